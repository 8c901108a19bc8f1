// Boxes and polygons by mouse and touch: Annotorious draws and edits them, this module tells it what is there and hears what changed.
import { createImageAnnotator } from "@annotorious/annotorious";
import css from "@annotorious/annotorious/annotorious.css" with { type: "text" };
import { place, tagOf } from "../parts/marks.js";
import { make } from "../parts/page.js";
import { adopt } from "../parts/style.js";
import own from "./drawing.css" with { type: "text" };

const UNITS = 10_000; // of the picture's longer side: Annotorious' thresholds are in units, ours in pixels of the screen
const LEAST_PX = 4; // a smaller box was meant as a click
const REMOTE = "REMOTE";

adopt(document, css);
adopt(document, own);

export class Drawing {
  /** `asked`: {added(where, id), moved(id, where, gesture), settled(), picked(id or null)}. */
  constructor(sheet, shape, legend, asked) {
    Object.assign(this, { sheet, shape, legend, asked, shown: new Map(), tagged: new Map(), marks: [], gesture: 0, held: null, isQuiet: false });
    const most = Math.max(sheet.width, sheet.height);
    this.units = [(sheet.width / most) * UNITS, (sheet.height / most) * UNITS];
    this.anno = createImageAnnotator(sheet.image, { drawingEnabled: true, drawingMode: "drag", userSelectAction: "EDIT" });
    this.anno.setDrawingTool(shape === "box" ? "rectangle" : "polygon");
    this.svg = this.anno.element.querySelector("svg");
    this.svg.setAttribute("viewBox", `0 0 ${this.units.join(" ")}`);
    this.svg.setAttribute("aria-hidden", "true");
    this.tags = make("div", { class: "tags", "aria-hidden": "true" });
    sheet.element.append(this.tags);
    this.observer = new MutationObserver(() => this.#dress());
    this.observer.observe(this.svg, { childList: true, subtree: true });
    this.anno.state.store.observe((event) => this.#heard(event.changes), { origin: "LOCAL" });
    this.anno.state.selection.subscribe(({ selected }) => this.isQuiet || this.held || this.asked.picked(selected[0]?.id ?? null));
    this.#dress();
  }

  /** Show these marks, and handles on the selected one. */
  show(marks, selected) {
    const { store, selection } = this.anno.state;
    const kept = new Set(marks.map(({ id }) => id));
    const gone = [...this.shown.keys()].filter((id) => !kept.has(id));
    const changed = marks.filter((mark) => this.shown.get(mark.id) !== mark.where);
    this.isQuiet = true;
    if (gone.length) store.bulkDeleteAnnotations(gone, REMOTE);
    if (changed.length) store.bulkUpsertAnnotations(changed.map((mark) => this.#annotation(mark)), REMOTE);
    if (selected && !selection.isSelected(selected)) this.anno.setSelected(selected);
    else if (!selected && !selection.isEmpty()) selection.clear();
    this.isQuiet = false;
    for (const id of gone) this.shown.delete(id);
    for (const mark of changed) this.shown.set(mark.id, mark.where);
    Object.assign(this, { marks, selected });
    this.#tag();
    this.#dress();
  }

  /** A tag on each mark; those that stayed as they were are not made anew. */
  #tag() {
    const before = this.tagged;
    this.tagged = new Map(this.marks.map((mark) => {
      const [old, isSelected] = [before.get(mark.id), mark.id === this.selected];
      return [mark.id, old?.mark === mark && old.isSelected === isSelected ? old : { mark, isSelected, tag: tagOf(mark, this.legend, isSelected) }];
    }));
    for (const [id, { tag }] of before) if (this.tagged.get(id)?.tag !== tag) tag.remove();
    for (const { tag } of this.tagged.values()) if (!tag.isConnected) this.tags.append(tag);
  }

  /** A press that begins outside the selected mark lets it go and draws or picks with the same press. */
  press(event) {
    this.gesture += 1;
    const isOnSelected = Boolean(event.target.closest(".a9s-annotation.selected"));
    if (isOnSelected) {
      this.held = this.selected;
      addEventListener("pointerup", (up) => setTimeout(() => this.#release(event, up)), { once: true });
      return;
    }
    if (this.anno.state.selection.isEmpty()) {
      this.#hold(event);
      return;
    }
    event.stopPropagation();
    this.anno.state.selection.clear();
    const again = new PointerEvent("pointerdown", event);
    for (const name of ["offsetX", "offsetY"]) Object.defineProperty(again, name, { value: this.#offset(event)[name] });
    setTimeout(() => {
      this.svg.dispatchEvent(again);
      this.#hold(event);
    });
  }

  /** Whether a polygon is begun and not closed. */
  isOpen() {
    return this.shape === "polygon" && Boolean(this.svg.querySelector(".a9s-rubberband polygon"));
  }

  cancel() {
    this.anno.cancelDrawing();
  }

  close() {
    this.observer.disconnect();
    this.isQuiet = true;
    this.anno.destroy();
  }

  // ---------------------------------------------------------------- to and from Annotorious

  #annotation({ id, where }) {
    const [width, height] = this.units;
    const at = where.map((share, place) => share * (place % 2 ? height : width));
    return { id, bodies: [], target: { annotation: id, selector: this.shape === "box" ? boxOf(at) : polygonOf(at) } };
  }

  #where({ geometry }) {
    const flat = this.shape === "box" ? [geometry.x, geometry.y, geometry.w, geometry.h] : geometry.points.flat();
    return flat.map((unit, at) => unit / this.units[at % 2]);
  }

  #heard({ created = [], updated = [] }) {
    for (const annotation of created) this.#created(annotation);
    for (const { newValue } of updated) {
      const before = this.marks.find(({ id }) => id === newValue.id)?.where;
      const drawn = this.#where(newValue.target.selector);
      const where = this.shape === "box" ? keepBox(drawn, before) : drawn.map(cut);
      this.shown.set(newValue.id, where.every((share, at) => share === drawn[at]) ? where : null);
      this.marks = this.marks.map((mark) => (mark.id === newValue.id ? { ...mark, where } : mark));
      const tag = this.tagged.get(newValue.id)?.tag;
      if (tag) place(tag, { shape: this.shape, where });
      this.asked.moved(newValue.id, where, `drag ${this.gesture}`);
    }
  }

  #created(annotation) {
    const drawn = this.#where(annotation.target.selector);
    const where = this.shape === "box" ? cutBox(drawn) : drawn.map(cut);
    const [width, height] = [this.sheet.width * this.sheet.scale, this.sheet.height * this.sheet.scale];
    if (this.shape === "box" && where[2] * width < LEAST_PX && where[3] * height < LEAST_PX) {
      setTimeout(() => this.#clicked(annotation.id, drawn));
      return;
    }
    this.shown.set(annotation.id, where.every((share, at) => share === drawn[at]) ? where : null);
    this.asked.added(where, annotation.id);
  }

  #clicked(id, [x, y]) {
    const { store } = this.anno.state;
    this.isQuiet = true;
    store.bulkDeleteAnnotations([id], REMOTE);
    this.isQuiet = false;
    const found = store.getAt(x * this.units[0], y * this.units[1], undefined, 2);
    this.asked.picked(found?.id ?? null);
  }

  /** After a drag: the mark is drawn where it was kept, within the picture, is no draft any more, and stays selected: Annotorious takes
   * a quick drag for a click, which lets go of a mark whose corner ends outside of what it was. */
  #release(down, up) {
    const [held, now] = [this.held, this.anno.getSelected()[0]?.id ?? null];
    this.held = null;
    if (this.isQuiet) return;
    const isDrag = Math.hypot(up.clientX - down.clientX, up.clientY - down.clientY) >= LEAST_PX;
    if (held !== now && isDrag) {
      this.isQuiet = true;
      this.anno.setSelected(held);
      this.isQuiet = false;
    } else if (held !== now) this.asked.picked(now);
    this.asked.settled();
  }

  #hold(event) {
    try {
      this.svg.setPointerCapture(event.pointerId);
    } catch {
      // the pointer is up already
    }
  }

  #offset(event) {
    const at = this.svg.getBoundingClientRect();
    return { offsetX: event.clientX - at.left, offsetY: event.clientY - at.top };
  }

  /** Colours by label; no place of its own in the order of tabs, because the list is the way by keys. */
  #dress() {
    const byId = new Map(this.marks.map((mark) => [mark.id, mark]));
    for (const group of this.svg.querySelectorAll("g[data-id], .a9s-annotation.selected, .a9s-rubberband")) {
      const mark = byId.get(group.dataset.id ?? this.selected);
      if (mark) this.legend.paint(group, mark);
    }
    for (const handle of [this.svg, ...this.svg.querySelectorAll("[tabindex]")]) {
      handle.removeAttribute("tabindex");
      handle.removeAttribute("role");
    }
  }
}

const cut = (share) => Math.min(1, Math.max(0, share));

function cutBox([x, y, width, height]) {
  const [left, top, right, bottom] = [x, y, x + width, y + height].map(cut);
  return [left, top, right - left, bottom - top];
}

/** A box within the picture: one that was moved keeps its size, one that was pulled is cut. */
function keepBox(drawn, before) {
  const [x, y, width, height] = drawn;
  const isMoved = before && Math.abs(before[2] - width) < 1e-6 && Math.abs(before[3] - height) < 1e-6;
  return isMoved ? [Math.min(1 - width, Math.max(0, x)), Math.min(1 - height, Math.max(0, y)), width, height] : cutBox(drawn);
}

function boxOf([x, y, w, h]) {
  return { type: "RECTANGLE", geometry: { x, y, w, h, rot: 0, bounds: { minX: x, minY: y, maxX: x + w, maxY: y + h } } };
}

function polygonOf(flat) {
  const points = Array.from({ length: flat.length / 2 }, (_, at) => [flat[2 * at], flat[2 * at + 1]]);
  const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
  const bounds = { minX: Math.min(...xs), minY: Math.min(...ys), maxX: Math.max(...xs), maxY: Math.max(...ys) };
  return { type: "POLYGON", geometry: { points, bounds } };
}
