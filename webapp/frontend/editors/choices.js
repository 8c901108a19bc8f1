// One label, or several, of a whole item: a picture, a text, a table row, a sound or a pair.
import { showContent } from "../parts/content.js";
import { text } from "../parts/page.js";

export class Editor {
  constructor(desk) {
    this.desk = desk;
    this.isSingle = desk.page.kind !== "multilabel";
    this.picked = new Set();
    this.picture = null;
    this.arrows = {};
  }

  show(item, value) {
    this.arrows = item.pair ? arrowsOf(this.desk.page.labels) : {};
    this.picked = new Set(value.labels);
    this.isNone = Boolean(value.is_none);
    this.picture?.close?.();
    this.picture = showContent(this.desk.stage, item);
  }

  value() {
    const labels = this.desk.page.labels.filter((label) => this.picked.has(label));
    return this.isNone ? { labels: [], is_none: true } : { labels };
  }

  problem() {
    return this.isSingle && !this.isNone && this.picked.size !== 1 ? text("choose_first") : "";
  }

  choose(label) {
    this.isNone = false;
    if (this.isSingle) {
      this.picked = new Set([label]);
      this.desk.save();
      return;
    }
    if (!this.picked.delete(label)) this.picked.add(label);
    this.desk.changed();
  }

  chosen() {
    return this.picked;
  }

  none() {
    this.picked = new Set();
    this.isNone = true;
    this.desk.save();
  }

  key(event) {
    const key = event.key.toLowerCase();
    const isText = event.target.closest(".words, .record");
    if (this.arrows[key] && !event.shiftKey && !(isText && key === "arrowdown")) {
      this.choose(this.arrows[key]);
      return true;
    }
    const move = { arrowleft: [-40, 0], arrowright: [40, 0], arrowup: [0, -40], arrowdown: [0, 40] }[key];
    if (this.picture?.key) return this.picture.key(event);
    if (!this.picture || !move || isText) return false;
    this.picture.move(...move);
    return true;
  }

  undo() {
    return false;
  }

  resize() {
    this.picture?.fit();
  }

  keys() {
    const { category, data, labels } = this.desk.page;
    if (data === "audio") return [["P", text("key_play")], ["← →", text("key_seek")]];
    if (category !== "pairs") return [];
    const signs = { arrowleft: "←", arrowright: "→", arrowdown: "↓" };
    const arrows = Object.entries(arrowsOf(labels)).map(([key, label]) => [signs[key], text("key_arrow", { label })]);
    return [...arrows, ["Shift ← ↑ → ↓", text("key_move_both")]];
  }

  close() {
    this.picture?.close?.();
    this.picture = null;
    this.desk.stage.replaceChildren();
  }
}

const TIE = /^(tie|tied|same|equal|both|draw|neither|either|no difference|平|平局|平手|一样|相同|都.*|差不多)$/i;

/** Two labels of a pair have the arrows to their sides, a third the arrow down: a tie in the middle, or the last. */
function arrowsOf(labels) {
  if (labels.length === 2) return { arrowleft: labels[0], arrowright: labels[1] };
  if (labels.length !== 3) return {};
  const [left, right, tie] = TIE.test(labels[1]) ? [labels[0], labels[2], labels[1]] : labels;
  return { arrowleft: left, arrowright: right, arrowdown: tie };
}
