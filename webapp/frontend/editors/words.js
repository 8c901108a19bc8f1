// Free text about an item. What is typed stays in this browser until it is saved, so that a reload or a crash loses nothing.
import { showContent } from "../parts/content.js";
import { make, text } from "../parts/page.js";

const MOST_CHARS = 100_000;
const countOf = (words) => [...words].length;

export class Editor {
  constructor(desk) {
    this.desk = desk;
    this.prefix = `labelloop.text.${desk.page.user}.${desk.page.slug}.`;
  }

  show(item, value) {
    this.item = item;
    this.past = [];
    const content = make("div", { class: "writing-item" });
    this.field = make("textarea", { class: "writing-field", "aria-label": text("your_text"), rows: 6, spellcheck: true });
    this.field.readOnly = this.desk.isReadOnly;
    this.counted = make("p", { class: "muted writing-count" });
    this.desk.stage.replaceChildren(make("div", { class: "writing" }, content, make("div", {}, this.field, this.counted)));
    this.picture = showContent(content, item);
    const kept = this.desk.isReadOnly ? null : localStorage.getItem(this.prefix + item.item_id);
    this.field.value = kept ?? value.text ?? "";
    if (kept !== null && kept !== (value.text ?? "")) this.desk.tell(text("text_is_back"));
    this.field.addEventListener("input", () => this.keep());
    this.field.addEventListener("keydown", (event) => this.typed(event));
    this.count();
    if (!this.field.value && !this.desk.isReadOnly) this.field.focus({ preventScroll: true });
  }

  keep() {
    localStorage.setItem(this.prefix + this.item.item_id, this.field.value);
    this.count();
    this.desk.changed();
  }

  /** The answer is on its way and kept there; this copy may go. */
  saved(item) {
    localStorage.removeItem(this.prefix + item.item_id);
  }

  count() {
    this.counted.textContent = text("characters_are", { n: countOf(this.field.value) });
  }

  typed(event) {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.desk.save();
    } else if (event.key === "Escape") this.field.blur();
  }

  value() {
    return { labels: [], text: this.field.value };
  }

  problem() {
    if (!this.field.value.trim()) return text("write_first");
    const n = countOf(this.field.value);
    return n > MOST_CHARS ? text("too_long", { n, most: MOST_CHARS }) : "";
  }

  choose() {}

  chosen() {
    return new Set();
  }

  none() {}

  key(event) {
    if (event.key.toLowerCase() !== "e" || event.ctrlKey || event.metaKey) return false;
    this.field.focus();
    return true;
  }

  undo() {
    return false;
  }

  resize() {
    this.picture?.fit();
  }

  keys() {
    return [
      ["E", text("key_edit")],
      ["Ctrl Enter", text("key_save")],
      ["Esc", text("key_leave_field")],
    ];
  }

  close() {
    this.desk.stage.replaceChildren();
  }
}
