// One number of a whole item, with its unit and limits where the project has them (`page.number`: {unit, least, most, step}).
import { showContent } from "../parts/content.js";
import { make, text } from "../parts/page.js";

const SHOWN_DIGITS = 6;

export class Editor {
  constructor(desk) {
    this.desk = desk;
    this.limits = desk.page.number ?? {};
  }

  show(item, value) {
    const { unit = "", least, most } = this.limits;
    const content = make("div", { class: "number-item" });
    this.given = value.number ?? null;
    this.field = make("input", { id: "number-field", inputmode: "decimal", autocomplete: "off" });
    this.field.value = this.first = this.given === null ? "" : shown(this.given);
    this.field.readOnly = this.desk.isReadOnly;
    this.past = [];
    const range = least != null || most != null ? make("span", { class: "muted" }, `${least ?? ""} … ${most ?? ""}`) : null;
    const label = make("label", { for: "number-field" }, text("value"));
    this.desk.stage.replaceChildren(make("div", { class: "writing" }, content, make("div", { class: "number-row" }, label, this.field, make("span", {}, unit), range)));
    this.picture = showContent(content, item);
    this.field.addEventListener("input", () => this.desk.changed());
    this.field.addEventListener("keydown", (event) => this.typed(event));
    if (!this.desk.isReadOnly) {
      this.field.focus({ preventScroll: true });
      this.field.select();
    }
  }

  typed(event) {
    if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Enter") this.desk.save();
    else if (event.key === "Escape") this.field.blur();
    else if (/^[us?]$/i.test(event.key)) this.pass(event.key);
    else if (!this.step(event)) return;
    event.preventDefault();
  }

  /** A letter is no part of a number: let the page have it. */
  pass(key) {
    this.field.blur();
    document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  }

  /** Plus and minus count up and down; in an empty field minus is a sign. */
  step({ key }) {
    const by = { "+": 1, ArrowUp: 1, "-": -1, ArrowDown: -1 }[key];
    const isSign = key === "-" && !this.field.value.trim();
    if (!by || isSign || this.desk.isReadOnly) return false;
    const now = this.number();
    const from = Number.isFinite(now) ? now : 0;
    const size = this.limits.step ?? 10 ** (Math.floor(Math.log10(Math.abs(from) || 10)) - 1);
    const { least = -Infinity, most = Infinity } = this.limits;
    this.past.push(this.field.value);
    this.field.value = shown(Math.min(Math.max(from + by * size, least ?? -Infinity), most ?? Infinity));
    this.desk.changed();
    return true;
  }

  /** What the field says; what came as a draft and was not touched stays exact. NaN = no number. */
  number() {
    const written = this.field.value.trim().replace(",", ".");
    if (this.given !== null && this.field.value === this.first) return this.given;
    return written ? Number(written) : NaN;
  }

  value() {
    return { labels: [], number: this.number() };
  }

  problem() {
    const number = this.number();
    const { least, most } = this.limits;
    if (!Number.isFinite(number)) return text("number_first");
    return (least != null && number < least) || (most != null && number > most) ? text("number_range", { least: least ?? "−∞", most: most ?? "∞" }) : "";
  }

  choose() {}

  chosen() {
    return new Set();
  }

  none() {}

  key(event) {
    if (!/^[\d+-]$/.test(event.key) || event.ctrlKey || event.metaKey || event.target === this.field) return false;
    if (!this.step(event)) {
      this.field.focus();
      this.field.value = event.key;
      this.desk.changed();
    }
    return true;
  }

  undo() {
    if (!this.past.length) return false;
    this.field.value = this.past.pop();
    this.desk.changed();
    return true;
  }

  resize() {
    this.picture?.fit();
  }

  keys() {
    return [
      ["+  −  ↑  ↓", text("key_count")],
      ["Esc", text("key_leave_field")],
    ];
  }

  close() {
    this.desk.stage.replaceChildren();
  }
}

const shown = (number) => String(Number(number.toPrecision(SHOWN_DIGITS)));
