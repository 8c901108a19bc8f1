// Draws spans under a text and finds those at a point, on Recogito's store and spatial index: only what is in sight is drawn, so that
// thousands of spans stay quick. What is drawn are boxes behind the text; nothing is styled by a parser (content security policy).
import { createRenderer, createTextAnnotator, Origin } from "@recogito/text-annotator";
import { make } from "./page.js";
import { lanesOf } from "./span_state.js";

const LANE_PX = 3;
const TAG_CHAR_PX = 7;

/** Shows marks over `body` (a SpanText); `colours` is a Map label -> colour, `ondrawn()` is told after each drawing. */
export class SpanLayer {
  constructor(body, offsets, colours, ondrawn = () => {}) {
    Object.assign(this, { body, offsets, colours, marks: new Map(), lanes: new Map(), selected: new Set() });
    this.box = make("div", { class: "span-layer", "aria-hidden": "true" });
    const painter = { redraw: (highlights) => this.paint(highlights), setVisible: () => {}, destroy: () => this.box.remove() };
    this.annotator = createTextAnnotator(body.holder, {
      annotatingEnabled: false, // choosing words is the editor's: by mouse, touch or keys, and a label after it
      renderer: (container, state, viewport) => createRenderer(painter, container, state, viewport),
    });
    body.holder.append(this.box);
    this.annotator.renderer.on("onRedraw", ondrawn);
  }

  get store() {
    return this.annotator.state.store;
  }

  /** Show these marks; `selected` are the ids of those that stand out. */
  set(marks, selected) {
    this.lanes = lanesOf(marks);
    this.selected = selected;
    const wanted = new Map(marks.map((mark) => [mark.id, mark]));
    const isKept = (id) => wanted.has(id) && String(wanted.get(id).where) === String(this.marks.get(id)?.where);
    const gone = [...this.marks.keys()].filter((id) => !isKept(id));
    const fresh = marks.filter((mark) => !isKept(mark.id) || !this.marks.has(mark.id));
    this.marks = wanted;
    if (gone.length) this.store.bulkDeleteAnnotations(gone, Origin.REMOTE);
    if (fresh.length) this.store.bulkAddAnnotations(fresh.map((mark) => this.annotation(mark)), false, Origin.REMOTE);
    this.annotator.renderer.redraw(true);
  }

  annotation({ id, where }) {
    const [start, end] = where.map((point) => this.offsets.units(point));
    const selector = [{ start, end, quote: "", range: this.body.rangeOf(start, end) }];
    return { id, bodies: [], target: { annotation: id, selector } };
  }

  paint(highlights) {
    const tags = new Map();
    const inOrder = [...highlights].sort((a, b) => a.rects[0].x - b.rects[0].x);
    const boxes = inOrder.flatMap(({ annotation, rects }) => this.boxes(this.marks.get(annotation.id), rects, tags));
    this.box.replaceChildren(...boxes, ...[...tags.values()].map(({ element }) => element));
  }

  boxes(mark, rects, tags) {
    if (!mark) return [];
    const lane = Math.min(this.lanes.get(mark.id) ?? 0, 4);
    const isDraft = (mark.confidence ?? 1) < 1;
    const classes = `span-mark${isDraft ? " is-draft" : ""}${this.selected.has(mark.id) ? " selected" : ""}`;
    this.tag(mark, rects[0], tags);
    return rects.map((rect) => {
      const box = make("span", { class: classes, "data-mark": mark.id });
      place(box, rect.x, rect.y);
      box.style.width = `${rect.width}px`;
      box.style.height = `${rect.height + lane * LANE_PX + 2}px`;
      box.style.setProperty("--mark", this.colours.get(mark.label) ?? "gray");
      return box;
    });
  }

  /** The label's name above a span; spans that begin so close that their names would cover each other share one line. */
  tag(mark, rect, tags) {
    const width = mark.label.length * TAG_CHAR_PX;
    const row = Math.round(rect.y);
    const near = [...tags.values()].find((tag) => tag.row === row && rect.x < tag.x + tag.width && tag.x < rect.x + width);
    if (!near) {
      const element = place(make("span", { class: "span-tag" }, mark.label), rect.x, rect.y);
      tags.set(mark.id, { row, x: rect.x, width, names: [mark.label], element });
    } else if (!near.names.includes(mark.label)) {
      near.names.push(mark.label);
      near.width += width;
      near.element.textContent = near.names.join(" · ");
    }
  }

  /** The ids of the marks at a point of the window, the smallest first. */
  at(x, y) {
    const { left, top } = this.body.holder.getBoundingClientRect();
    return (this.store.getAt(x - left, y - top, true) ?? []).map(({ id }) => id);
  }

  /** Where a mark is drawn, relative to the text; undefined = nowhere. */
  bounds(id) {
    return this.store.getAnnotationRects(id)[0];
  }

  /** Measure anew, as after the window changed its size. */
  resize() {
    this.store.recalculatePositions();
    this.annotator.renderer.redraw(true);
  }

  close() {
    this.annotator.destroy();
  }
}

function place(element, x, y) {
  element.style.left = `${x}px`;
  element.style.top = `${y}px`;
  return element;
}
