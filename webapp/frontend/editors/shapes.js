// Boxes, polygons and keypoints on a picture: by mouse, by touch, and by keys and number fields alone.
import { showContent } from "../parts/content.js";
import { drawMarks } from "../parts/marks.js";
import { make, text } from "../parts/page.js";
import { Sheet } from "../parts/sheet.js";
import { Drawing } from "./drawing.js";
import { Marking } from "./marking.js";
import { Points } from "./points.js";

const SHAPE = { boxes: "box", polygons: "polygon", keypoints: "point" };
const DIGITS = 2;

export class Editor extends Marking {
  constructor(desk) {
    super(desk);
    this.shape = SHAPE[desk.page.kind] ?? "box";
    this.drawing = null;
  }

  show(item, value) {
    this.cancel();
    if (this.desk.isReadOnly) {
      drawMarks(this.desk.stage, item, value, this.desk.page.labels);
      return;
    }
    this.begin(item, value);
    const name = `${text("item")} ${item.name ?? item.item_id ?? ""}`;
    const holder = make("div", { class: "marking", tabindex: 0, role: "region", "aria-label": name });
    this.drawing?.close();
    this.drawing = this.picture = null;
    if (!item.media) {
      showContent(this.desk.stage, item); // a link that this browser cannot follow
      this.list.draw(this.marks, null);
      return;
    }
    this.desk.stage.replaceChildren(holder);
    this.picture = new Sheet(holder, item.media, item.name ?? item.item_id ?? "", {
      ready: () => this.#ready(holder),
      press: (event) => this.#press(holder, event),
      cancel: () => this.cancel(),
    });
    this.list.draw(this.marks, null);
  }

  #ready(holder) {
    if (!this.item || holder !== this.picture?.holder || this.drawing) return;
    const asked = {
      added: (where, id) => this.insert(this.shape, where, id),
      moved: (id, where, gesture) => this.drag(id, where, gesture),
      settled: () => this.redraw(),
      picked: (id) => this.select(id),
    };
    this.drawing = this.shape === "point" ? new Points(this.picture, this.legend, asked) : new Drawing(this.picture, this.shape, this.legend, asked);
    holder.dataset.ready = "";
    this.redraw();
  }

  #press(holder, event) {
    holder.focus({ preventScroll: true });
    this.drawing?.press(event);
  }

  sync() {
    this.drawing?.show(this.marks, this.selected);
  }

  cancel() {
    this.drawing?.cancel();
  }

  focus() {
    this.picture?.holder.focus({ preventScroll: true });
  }

  problem() {
    return this.drawing?.isOpen() ? text("polygon_is_open") : "";
  }

  resize() {
    this.picture?.fit();
  }

  close() {
    this.drawing?.close();
    this.drawing = this.picture = null;
    super.close();
  }

  // ---------------------------------------------------------------- by keys and numbers

  add() {
    if (!this.picture?.width) return;
    const [left, top, right, bottom] = this.picture.seen();
    const [x, y, half] = [(left + right) / 2, (top + bottom) / 2, 0.15];
    const [w, h] = [(right - left) * half, (bottom - top) * half];
    const where = { box: [x - w, y - h, 2 * w, 2 * h], polygon: [x - w, y - h, x + w, y - h, x + w, y + h, x - w, y + h], point: [x, y] }[this.shape];
    this.insert(this.shape, where);
    this.focus();
  }

  walk(dx, dy) {
    if (!this.picture) return false;
    this.picture.move(-40 * Math.sign(dx), -40 * Math.sign(dy));
    return true;
  }

  fields({ where, shape }) {
    if (!this.picture?.width) return [];
    const [width, height] = [this.picture.width, this.picture.height];
    const names = {
      box: () => [text("field_x"), text("field_y"), text("field_width"), text("field_height")],
      point: () => [text("field_x"), text("field_y")],
      polygon: () => where.map((_, at) => `${at % 2 ? text("field_y") : text("field_x")} ${Math.floor(at / 2) + 1}`),
    }[shape]();
    return where.map((share, at) => {
      const size = at % 2 ? height : width;
      return { words: names[at], value: Number((share * size).toFixed(DIGITS)), step: 1, most: size };
    });
  }

  withField({ where, shape }, at, number) {
    const wanted = number / (at % 2 ? this.picture.height : this.picture.width);
    const other = shape === "box" ? where[(at + 2) % 4] : 0;
    const least = shape === "box" && at > 1 ? this.#pixel(at) : 0;
    const share = Math.min(1 - other, Math.max(least, wanted));
    return where.map((one, place) => (place === at ? share : one));
  }

  nudged({ where, shape }, dx, dy, isSize) {
    if (!this.picture?.width) return where;
    const by = [dx / this.picture.width, dy / this.picture.height];
    if (shape === "box" && isSize) return where.map((one, at) => (at < 2 ? one : Math.min(1 - where[at - 2], Math.max(this.#pixel(at), one + by[at - 2]))));
    const moves = shape === "box" ? where.slice(0, 2) : where;
    const kept = [0, 1].map((axis) => {
      const along = moves.filter((_, at) => at % 2 === axis);
      const most = 1 - Math.max(...along) - (shape === "box" ? where[axis + 2] : 0);
      return Math.min(most, Math.max(-Math.min(...along), by[axis]));
    });
    return where.map((one, at) => (at < moves.length ? one + kept[at % 2] : one));
  }

  #pixel(at) {
    return Math.min(1, 1 / (at % 2 ? this.picture.height : this.picture.width));
  }

  said(mark) {
    if (!this.picture?.width) return "";
    const [x, y, width, height] = this.fields(mark).map(({ value }) => Math.round(value));
    if (this.shape === "polygon") return text("corners_n", { n: mark.where.length / 2 });
    return this.shape === "box" ? text("box_is", { x, y, width, height }) : text("point_is", { x, y });
  }

  extra({ shape, where }) {
    if (shape !== "polygon") return [];
    const button = (words, act) => make("button", { type: "button", class: "outline secondary small", onclick: act }, words);
    const out = [button(text("add_corner"), () => this.alter({ where: withCorner(this.mark.where) }))];
    if (where.length > 6) out.push(button(text("drop_corner"), () => this.alter({ where: this.mark.where.slice(0, -2) })));
    return out;
  }

  tools() {
    const hand = make("button", { type: "button", class: "outline secondary small", "aria-pressed": "false", onclick: () => this.#hand(hand) }, text("move_picture"));
    return [...super.tools(), hand];
  }

  #hand(button) {
    if (!this.picture) return;
    this.picture.isMoving = !this.picture.isMoving;
    this.picture.holder.classList.toggle("hand", this.picture.isMoving);
    button.setAttribute("aria-pressed", String(this.picture.isMoving));
  }

  keys() {
    return [...super.keys(), ["← ↑ → ↓", text("key_nudge")], ["Ctrl ← ↑ → ↓", text("key_resize")]];
  }
}

/** One corner more, between the last and the first. */
function withCorner(where) {
  return [...where, ...where.slice(-2).map((one, at) => (one + where[at]) / 2)];
}
