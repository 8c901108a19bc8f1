// Marks of a value: which colour and which tag a label has, and a read-only drawing on a picture or beside a sound. Takes no change.
import css from "./marks.css" with { type: "text" };
import { isSound } from "./address.js";
import { keysOf } from "./keys.js";
import { make, percent, text } from "./page.js";
import { adopt } from "./style.js";

const COLOURS = 8;
const SVG = "http://www.w3.org/2000/svg";
export const COLOUR_OF = ["#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#b8b8b8"];

adopt(document, css);

/** The labels of a project in their order, each with a colour and a tag: its key, or its number where it has none. */
export class Legend {
  constructor(labels) {
    this.labels = labels;
    const keys = keysOf(labels);
    this.tags = new Map(labels.map((label, at) => [label, (keys[at] || String(at + 1)).toUpperCase()]));
  }

  colour(label) {
    return Math.max(0, this.labels.indexOf(label)) % COLOURS;
  }

  tag(label) {
    return this.tags.get(label) ?? "?";
  }

  /** Give an element the colour of a mark's label, dashed while it is a draft. */
  paint(element, mark) {
    const colour = String(this.colour(mark.label));
    if (element.dataset.k !== colour) element.dataset.k = colour;
    if (element.classList.contains("drafted") !== isDraft(mark)) element.classList.toggle("drafted", isDraft(mark));
  }

  /** The words on a mark: its tag, the label too when `isLong`, and how sure a draft is of it. */
  words(mark, isLong = false) {
    return [this.tag(mark.label), isLong ? mark.label : "", isDraft(mark) && mark.confidence != null ? percent(mark.confidence, 0) : ""].filter(Boolean).join(" ");
  }
}

/** Whether a model said so and nobody has touched it. */
export const isDraft = (mark) => mark.isDraft ?? (mark.confidence ?? 1) < 1;

/** The left and top edge of a mark, as shares. */
export function corner({ shape, where }) {
  if (shape !== "polygon") return where.slice(0, 2);
  const top = Math.min(...where.filter((_, at) => at % 2));
  return [where[where.indexOf(top) - 1], top];
}

/** The tag of a mark, placed on the picture. */
export function tagOf(mark, legend, isSelected = false) {
  const tag = make("span", { class: "tag" }, legend.words(mark, isSelected));
  legend.paint(tag, mark);
  tag.classList.toggle("selected", isSelected);
  place(tag, mark);
  return tag;
}

/** Put a tag or a dot where its mark is. */
export function place(element, mark) {
  const [x, y] = corner(mark);
  element.style.left = `${100 * x}%`;
  element.style.top = `${100 * y}%`;
  element.classList.toggle("low", y < 0.04);
}

/**
 * Draw an item with its marks, read-only, into `holder`: boxes, polygons and points on a picture, segments beside a sound. `labels` are
 * the project's in their order. Returns false when the item is neither.
 */
export function drawMarks(holder, item, value, labels) {
  const legend = new Legend(labels);
  const marks = value.marks ?? [];
  if (isSound(item.media)) holder.replaceChildren(...sound(item, marks, legend));
  else if (item.media) holder.replaceChildren(picture(item, marks, legend));
  else return false;
  return true;
}

function picture(item, marks, legend) {
  const svg = document.createElementNS(SVG, "svg");
  for (const [name, said] of [["class", "shapes"], ["viewBox", "0 0 1 1"], ["preserveAspectRatio", "none"], ["aria-hidden", "true"]]) svg.setAttribute(name, said);
  svg.append(...marks.filter(({ shape }) => shape !== "point").map((mark) => outline(mark, legend)));
  const dots = marks.flatMap((mark) => (mark.shape === "point" ? [dotOf(mark, legend), tagOf(mark, legend)] : [tagOf(mark, legend)]));
  const alt = [`${text("item")} ${item.name ?? item.item_id ?? ""}`, ...marks.map((mark) => `${mark.label}`)].join(", ");
  const sheet = make("div", { class: "sheet" }, make("img", { src: item.media, alt }), svg, make("div", { class: "tags", "aria-hidden": "true" }, ...dots));
  return make("div", { class: "still" }, sheet);
}

/** The dot of a keypoint. */
export function dotOf(mark, legend) {
  const dot = make("span", { class: "dot", "data-id": mark.id });
  legend.paint(dot, mark);
  place(dot, mark);
  return dot;
}

function outline(mark, legend) {
  const group = document.createElementNS(SVG, "g");
  const [x, y, width, height] = mark.where;
  const points = mark.shape === "box" ? [x, y, x + width, y, x + width, y + height, x, y + height] : mark.where;
  for (const name of ["halo", "line"]) {
    const line = document.createElementNS(SVG, "polygon");
    line.setAttribute("class", name);
    line.setAttribute("points", points.join(" "));
    group.append(line);
  }
  legend.paint(group, mark);
  return group;
}

function sound(item, marks, legend) {
  const audio = make("audio", { controls: true, preload: "metadata", src: item.media, "aria-label": `${text("item")} ${item.name ?? item.item_id ?? ""}` });
  if (!marks.length) return [audio];
  const segments = marks.map((mark) => make("div", { class: "segment" }, tagOf({ ...mark, shape: "point", where: [0, 0] }, legend, true)));
  const spread = () => {
    const end = Math.max(audio.duration || 0, ...marks.map(({ where }) => where[1]));
    for (const [at, element] of segments.entries()) {
      const [from, to] = marks[at].where;
      legend.paint(element, marks[at]);
      Object.assign(element.style, { left: `${(100 * from) / end}%`, width: `${(100 * (to - from)) / end}%` });
    }
  };
  audio.addEventListener("loadedmetadata", spread);
  spread();
  const words = marks.map(({ label, where }) => text("segment_is", { label, from: where[0].toFixed(2), to: where[1].toFixed(2) })).join("; ");
  return [audio, make("div", { class: "strip", role: "img", "aria-label": words }, ...segments)];
}
