// Segments of a sound: drawn on its waveform, or set by in and out points, keys and number fields alone.
import Regions from "wavesurfer.js/plugins/regions";
import { showContent } from "../parts/content.js";
import { COLOUR_OF, drawMarks, isDraft, tagOf } from "../parts/marks.js";
import { make, text } from "../parts/page.js";
import { Wave } from "../parts/wave.js";
import { Marking } from "./marking.js";

const LEAST_S = 0.01;
const NEW_S = 1;
const round = (seconds) => Math.round(seconds * 1000) / 1000;

export class Editor extends Marking {
  show(item, value) {
    this.wave?.close();
    if (this.desk.isReadOnly) {
      drawMarks(this.desk.stage, item, value, this.desk.page.labels);
      return;
    }
    this.begin(item, value);
    this.from = null;
    this.gesture = 0;
    this.parts = new Map();
    this.isQuiet = false;
    if (!item.media) {
      showContent(this.desk.stage, item); // a link that this browser cannot follow
      this.wave = this.picture = null;
      this.list.draw(this.marks, null);
      return;
    }
    this.regions = Regions.create();
    this.wave = new Wave(this.desk.stage, item, { ready: () => this.#ready() }, [this.regions]);
    this.picture = this.wave;
    this.list.draw(this.marks, null);
  }

  #ready() {
    this.regions.enableDragSelection({ color: "#8888" });
    this.regions.on("region-created", (region) => !this.isQuiet && this.#drawn(region));
    this.regions.on("region-update", (region) => this.#pulled(region));
    this.regions.on("region-updated", (region) => this.#settled(region));
    this.regions.on("region-clicked", (region, event) => (event.stopPropagation(), this.select(region.id)));
    this.redraw();
  }

  #drawn(region) {
    const [start, end] = [round(Math.max(0, region.start)), round(Math.min(this.wave.seconds, region.end))];
    this.isQuiet = true;
    region.remove();
    this.isQuiet = false;
    if (end - start >= LEAST_S) this.insert("segment", [start, end]);
  }

  #pulled(region) {
    if (!this.parts.has(region.id)) return;
    const where = this.#within([region.start, region.end]);
    this.parts.set(region.id, { ...this.parts.get(region.id), where });
    this.drag(region.id, where, `drag ${this.gesture}`);
  }

  /** After a drag: the segment is drawn where it was kept, and is no draft any more. */
  #settled(region) {
    this.gesture += 1;
    if (this.parts.has(region.id)) this.redraw();
  }

  sync() {
    if (!this.wave?.isReady) return;
    this.isQuiet = true;
    const kept = new Set(this.marks.map(({ id }) => id));
    for (const [id, { region }] of this.parts) if (!kept.has(id)) region.remove(), this.parts.delete(id);
    for (const mark of this.marks) this.#draw(mark);
    this.isQuiet = false;
  }

  #draw(mark) {
    const isSelected = mark.id === this.selected;
    const look = JSON.stringify([mark.where, mark.label, isDraft(mark), mark.confidence, isSelected]);
    const before = this.parts.get(mark.id);
    if (before?.look === look) return;
    const [start, end] = mark.where;
    const colour = COLOUR_OF[this.legend.colour(mark.label)];
    const content = tagOf({ ...mark, shape: "point", where: [0, 0] }, this.legend, isSelected);
    content.removeAttribute("style");
    Object.assign(content.style, { background: colour, color: colour === "#0072b2" ? "#fff" : "#000", font: "600 12px/1.4 sans-serif", padding: "0 4px", display: "inline-block" });
    const options = { id: mark.id, start, end, color: `${colour}${isSelected ? "66" : "38"}`, content };
    const region = before?.region ?? this.regions.addRegion({ ...options, drag: true, resize: true, minLength: LEAST_S });
    if (before) {
      region.setOptions(options);
      region.setContent(content);
    }
    region.element.style.borderInline = `2px ${isDraft(mark) ? "dashed" : "solid"} ${colour}`;
    region.element.style.boxShadow = isSelected ? `inset 0 0 0 2px ${colour}` : "none";
    region.element.dataset.mark = mark.id;
    this.parts.set(mark.id, { region, look });
  }

  // ---------------------------------------------------------------- keys and numbers

  key(event) {
    const key = event.key.toLowerCase();
    if (!this.wave?.isReady || event.ctrlKey || event.metaKey || event.altKey || event.target.matches?.("input, audio")) return super.key(event);
    if (key === "i") this.#point(true);
    else if (key === "o") this.#point(false);
    else if (key === "r" && this.mark) this.wave.play(...this.mark.where);
    else return (!event.target.closest?.("[role=listbox]") && this.wave?.key(event)) || super.key(event);
    return true;
  }

  /** Set the beginning or the end of the selected segment here; without one, the out point makes a new segment. */
  #point(isIn) {
    const now = round(this.wave.now);
    if (this.mark && this.from === null) {
      const [start, end] = this.mark.where;
      const where = isIn ? [now, end] : [start, now];
      if (where[1] - where[0] >= LEAST_S) {
        this.alter({ where });
        return;
      }
    }
    if (isIn) {
      this.select(null);
      this.from = now;
      this.desk.tell(text("in_is", { at: now.toFixed(2) }));
      return;
    }
    const start = this.from ?? 0;
    this.from = null;
    if (now - start < LEAST_S) this.desk.tell(text("out_first"));
    else this.insert("segment", [start, now]);
  }

  add() {
    if (!this.wave?.isReady) return;
    const start = round(Math.min(this.wave.now, Math.max(0, this.wave.seconds - LEAST_S)));
    this.insert("segment", this.#within([start, start + NEW_S]));
    this.focus();
  }

  walk() {
    return false;
  }

  nudged({ where: [start, end] }, dx, dy, isSize) {
    if (!this.wave?.isReady) return [start, end];
    const by = (dx || -dy) / 100;
    if (isSize) return this.#within([start, Math.max(start + LEAST_S, end + by)]);
    const kept = Math.min(this.wave.seconds - end, Math.max(-start, by));
    return [round(start + kept), round(end + kept)];
  }

  fields({ where }) {
    const words = [text("field_start"), text("field_end")];
    return where.map((value, at) => ({ words: words[at], value: Number(value.toFixed(3)), step: 0.01, most: this.wave?.isReady ? this.wave.seconds : 1e6 }));
  }

  withField({ where: [start, end] }, at, number) {
    const here = round(Math.min(this.wave?.isReady ? this.wave.seconds : number, Math.max(0, number)));
    return at ? [start, Math.max(here, round(start + LEAST_S))] : [Math.min(here, round(end - LEAST_S)), end];
  }

  #within([start, end]) {
    const last = this.wave.seconds;
    const from = round(Math.min(Math.max(0, start), last - LEAST_S));
    return [from, round(Math.min(last, Math.max(end, from + LEAST_S)))];
  }

  said({ where: [start, end] }) {
    return text("seconds_are", { from: start.toFixed(2), to: end.toFixed(2) });
  }

  extra() {
    return [make("button", { type: "button", class: "outline secondary small", onclick: () => this.mark && this.wave?.play(...this.mark.where) }, `${text("play")} `, make("kbd", { "aria-hidden": "true" }, "R"))];
  }

  focus() {
    this.wave?.box.focus({ preventScroll: true });
  }

  resize() {}

  close() {
    this.wave?.close();
    this.wave = this.picture = null;
    super.close();
  }

  keys() {
    return [...super.keys(), ["P", text("key_play")], ["← →", text("key_seek")], ["I, O", text("key_points")], ["R", text("key_repeat")], ["↑ ↓, Ctrl ← →", text("key_segment")]];
  }
}
