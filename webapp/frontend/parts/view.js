// Any value of any kind of project, read-only: for histories, reviews and comparisons. Takes no change.
import { isSound } from "./address.js";
import { Offsets } from "./codepoints.js";
import { coloursOf } from "./colours.js";
import { showContent } from "./content.js";
import { drawMarks } from "./marks.js";
import { make, percent, text } from "./page.js";
import { inWords } from "./times.js";
import { clean } from "./value.js";

const FIGURES = 6;

/**
 * Show what is said of an item: the item with its marks, then labels, relations, number or text, then who said it.
 * `labels` and `kind` are the project's. `by` a name, `at` seconds since 1970, `confidence` of a draft, `notes` further words.
 * `isWithItem` false leaves the item out where its value has no marks (a list that shows the item already).
 */
export function showValue(holder, item, value, { labels = [], kind = "", by = "", at = null, confidence = null, notes = [], isWithItem = true } = {}) {
  const colours = coloursOf(labels);
  const marks = value.marks ?? [];
  const shown = isWithItem || marks.length ? itemOf(item, value, labels, colours) : null;
  const said = make("ul", { class: "value-said", "data-kind": kind }, ...words(item, value, colours));
  holder.replaceChildren(make("div", { class: "value-view" }, shown, said, whose({ by, at, confidence, notes })));
}

function itemOf(item, value, labels, colours) {
  const holder = make("div", { class: "value-item" });
  const marks = value.marks ?? [];
  const isText = typeof item.text === "string" && marks.some(({ shape }) => shape === "span");
  if (isText) holder.append(markedText(item, marks, colours));
  else if (!marks.length || !item.media || !drawMarks(holder, item, value, labels)) still(holder, item);
  return holder;
}

function still(holder, item) {
  if (isSound(item.media)) holder.append(make("audio", { controls: true, preload: "metadata", src: item.media, "aria-label": text("item") }));
  else showContent(holder, item);
}

/** A text with its spans, nested ones within each other; overlapping ones are cut where another begins or ends. */
function markedText(item, marks, colours) {
  const offsets = new Offsets(item.text);
  const spans = marks
    .filter(({ shape, where: [start, end] }) => shape === "span" && start < end && end <= offsets.length)
    .sort((a, b) => a.where[0] - b.where[0] || b.where[1] - a.where[1]);
  const holder = make("div", { class: "value-text", tabindex: 0, role: "figure", "aria-label": text("item") });
  let open = [];
  let at = 0;
  for (const place of placesOf(spans, offsets.length)) {
    holder.append(piece(offsets.quote(at, place), at, open, colours));
    open = [...open.filter(({ where }) => where[1] > place), ...spans.filter(({ where }) => where[0] === place)];
    at = place;
  }
  return holder;
}

const placesOf = (spans, length) => [...new Set([...spans.flatMap(({ where }) => where), length])].sort((a, b) => a - b);

/** Words within the marks that are open there; a mark bears its name where it begins. */
function piece(words, at, open, colours) {
  return open.reduceRight((inner, mark) => {
    const name = mark.where[0] === at ? make("span", { class: "name" }, mark.label) : null;
    const element = make("mark", { class: (mark.confidence ?? 1) < 1 ? "is-draft" : "", title: mark.label }, name, inner);
    element.style.setProperty("--mark", colours.get(mark.label) ?? "gray");
    return element;
  }, document.createTextNode(words));
}

// ---------------------------------------------------------------- in words

function words(item, value, colours) {
  if (value.is_none) return [line(text("none_fits"))];
  const said = [
    ...numberOf(value),
    ...(value.text == null ? [] : [make("li", { class: "written" }, value.text)]),
    ...(value.labels ?? []).map((label) => make("li", {}, chip(label, colours, value.marks?.filter((mark) => mark.label === label).length))),
    ...(value.relations ?? []).map((relation) => line(`${relation.label}: ${nameOf(item, value, relation.source)} → ${nameOf(item, value, relation.target)}`)),
  ];
  return said.length ? said : [line(Object.keys(clean(value)).length > 1 ? text("none") : text("nothing_marked"))];
}

const line = (words) => make("li", {}, words);

function numberOf({ number }) {
  return number == null ? [] : [make("li", {}, `${text("value")}: `, make("strong", {}, String(Number(number.toPrecision(FIGURES)))))];
}

function chip(label, colours, count) {
  const name = make("span", { class: count ? "span-name" : "" }, count > 1 ? `${label} × ${count}` : label);
  name.style.setProperty("--mark", colours.get(label) ?? "gray");
  return name;
}

function nameOf(item, value, id) {
  const mark = value.marks?.find((one) => one.id === id);
  return mark && typeof item.text === "string" ? new Offsets(item.text).quote(...mark.where) : (mark?.label ?? "?");
}

function whose({ by, at, confidence, notes }) {
  const when = at === null ? "" : inWords(at);
  const sure = confidence === null ? "" : percent(confidence, 0);
  const parts = [by, when, sure, ...notes].filter(Boolean);
  return parts.length ? make("p", { class: "value-by" }, parts.join(" · ")) : null;
}
