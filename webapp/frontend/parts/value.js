// Values of annotations and drafts in the browser: {labels, marks, relations, number, text, is_none}.
import { figure, text } from "./page.js";

/** The value within a draft or an answer; labels are always there. */
export function valueOf(from) {
  const { labels = [], marks, relations, number, text, is_none } = from ?? {};
  return { labels: [...labels], marks, relations, number, text, is_none };
}

/** A value without its empty fields, as the app takes it. */
export function clean(value) {
  const kept = Object.entries(value).filter(([name, field]) => name === "labels" || (field != null && field !== false && !(Array.isArray(field) && !field.length)));
  return Object.fromEntries(kept);
}

/** What a value says, in a few words. */
export function said({ labels = [], marks = [], number, text: written }) {
  if (marks.length) return text("marks_are", { n: marks.length, labels: labels.join(", ") });
  return (number == null ? null : figure(number)) ?? written ?? (labels.join(", ") || text("none"));
}

const round = (number) => Math.round(number * 1e4) / 1e4;

function plain(value) {
  const { labels, marks = [], relations = [], ...rest } = clean(value);
  const order = new Map(marks.map((mark) => [mark.id, JSON.stringify([mark.label, mark.shape, mark.where.map(round)])]));
  const links = relations.map(({ label, source, target }) => JSON.stringify([label, order.get(source), order.get(target)]));
  return JSON.stringify([[...labels].sort(), [...order.values()].sort(), links.sort(), rest]);
}

/** Whether two values say the same, whatever their marks are called. */
export const isSame = (one, other) => plain(one) === plain(other);
