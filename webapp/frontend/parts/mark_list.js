// The marks of an item in the side panel: a list to walk through, and number fields of the selected one.
import { make, text } from "./page.js";
import { isDraft } from "./marks.js";

export class MarkList {
  /**
   * `asked`: {select(id), refresh(), set(at, number), remove(), tools(): elements, fields(mark): [{words, value, step, most}], place(mark): words,
   * extra(mark): elements, leave()}.
   */
  constructor(side, legend, asked) {
    Object.assign(this, { side, legend, asked, shown: "", marks: [], rows: new Map() });
    this.count = make("p", { class: "muted mark-count", role: "status" });
    this.list = make("ul", { class: "mark-list", role: "listbox", tabindex: 0, "aria-label": text("marks") });
    this.list.addEventListener("click", (event) => {
      const row = event.target.closest("[role=option]");
      if (row) asked.select(row.dataset.id);
    });
    this.fields = make("fieldset", { class: "mark-fields" });
    this.fields.addEventListener("change", (event) => this.#changed(event.target));
    this.fields.addEventListener("keydown", (event) => this.#key(event));
    side.replaceChildren(make("div", { class: "mark-tools row" }, ...asked.tools()), this.count, this.list, this.fields);
  }

  /** Show the marks anew: after one came, went, or got another label. */
  draw(marks, selected) {
    this.count.textContent = marks.length ? text("marks_n", { n: marks.length }) : text("no_marks");
    this.list.hidden = !marks.length;
    this.#keep(marks);
    const row = this.rows.get(selected)?.row;
    for (const other of this.list.querySelectorAll("[aria-selected=true]")) other.setAttribute("aria-selected", String(other === row));
    row?.setAttribute("aria-selected", "true");
    if (row) this.list.setAttribute("aria-activedescendant", row.id);
    else this.list.removeAttribute("aria-activedescendant");
    row?.scrollIntoView({ block: "nearest" });
    this.refresh(marks.find(({ id }) => id === selected), marks);
  }

  /** Show where the selected mark is now. */
  refresh(mark, marks = this.marks) {
    this.marks = marks;
    const fields = mark ? this.asked.fields(mark) : [];
    const shape = mark ? `${mark.id} ${mark.label} ${fields.length}` : "";
    if (shape !== this.shown) this.#build(mark, fields);
    this.shown = shape;
    if (mark) this.rows.get(mark.id)?.row.setAttribute("aria-label", this.#words(mark, this.marks.indexOf(mark)));
    for (const [at, input] of [...this.fields.querySelectorAll("input")].entries()) {
      const value = String(fields[at].value);
      if (input.value !== value) input.value = value;
    }
  }

  /** Put the cursor into the first number field; false when no mark is selected. */
  enter() {
    const first = this.fields.querySelector("input");
    first?.focus();
    first?.select();
    return Boolean(first);
  }

  /** The rows of these marks; those that stayed as they were are not made anew. */
  #keep(marks) {
    const before = this.rows;
    this.rows = new Map(marks.map((mark, at) => {
      const old = before.get(mark.id);
      return [mark.id, old?.mark === mark && old.at === at ? old : { mark, at, row: this.#row(mark, at) }];
    }));
    for (const { mark, at, row } of this.rows.values()) if (row.ariaLabel !== this.#words(mark, at)) row.ariaLabel = this.#words(mark, at);
    const rows = [...this.rows.values()].map(({ row }) => row);
    for (const [at, row] of rows.entries()) {
      const there = this.list.children[at];
      if (there !== row) there ? there.replaceWith(row) : this.list.append(row);
    }
    while (this.list.children.length > rows.length) this.list.lastChild.remove();
  }

  #row(mark, at) {
    const tag = make("span", { class: "tag", "aria-hidden": "true" }, this.legend.words(mark));
    this.legend.paint(tag, mark);
    const name = make("span", { class: "mark-name" }, mark.label);
    return make("li", { role: "option", id: `mark-${at}`, "data-id": mark.id, "aria-selected": "false", "aria-label": this.#words(mark, at) }, tag, name);
  }

  #words(mark, at) {
    return [`${at + 1}`, mark.label, isDraft(mark) ? text("is_draft") : "", this.asked.place(mark)].filter(Boolean).join(", ");
  }

  #build(mark, fields) {
    if (!mark) {
      this.fields.replaceChildren();
      return;
    }
    this.fields.setAttribute("aria-label", text("place_of", { label: mark.label }));
    const inputs = fields.map(({ words, step, most }) => make("label", {}, words, make("input", { type: "number", step: "any", "data-step": step, min: 0, max: most })));
    const remove = make("button", { type: "button", class: "outline secondary small", onclick: () => this.asked.remove() }, `${text("delete")} `, make("kbd", { "aria-hidden": "true" }, "Del"));
    this.fields.replaceChildren(...inputs, ...this.asked.extra(mark), remove);
  }

  #changed(input) {
    const at = [...this.fields.querySelectorAll("input")].indexOf(input);
    const number = input.valueAsNumber;
    if (at >= 0 && Number.isFinite(number)) this.asked.set(at, number);
    this.asked.refresh(); // a number that was cut, or is none, is shown as it was taken
  }

  /** Arrows step, Enter and Escape leave, and Ctrl+Z stays the field's own. */
  #key(event) {
    if (!event.target.matches("input")) return;
    if (event.ctrlKey || event.metaKey) event.stopPropagation();
    const steps = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (steps) {
      event.preventDefault();
      const input = event.target;
      const number = (input.valueAsNumber || 0) + steps * Number(input.dataset.step) * (event.shiftKey ? 10 : 1);
      this.asked.set([...this.fields.querySelectorAll("input")].indexOf(input), number);
    } else if (event.key === "Enter" || event.key === "Escape") {
      event.preventDefault();
      event.stopPropagation();
      if (event.key === "Enter") event.target.blur();
      this.asked.leave();
    }
  }
}
