// The side panel of spans and relations: lists to walk through by keys, number fields for the selected span's place.
import { make, percent, text } from "./page.js";

const QUOTE_CHARS = 60;

/** Lists in `holder`. `onpick(selected)` selects, `onplace(start, end)` moves the selected span, `quote(mark)` is what it marks. */
export class SpanList {
  constructor(holder, { colours, quote, onpick, onplace, isReadOnly }) {
    Object.assign(this, { colours, quote, onpick, onplace });
    this.spans = listbox("spans-list", text("spans"));
    this.links = listbox("relations-list", text("relations"));
    this.fields = ["start", "end"].map((name) => {
      const field = make("input", { type: "number", min: 0, step: 1, id: `span-${name}` });
      field.addEventListener("change", () => onplace(...this.fields.map((one) => Number(one.value))));
      return field;
    });
    const names = [text("span_start"), text("span_end")];
    const places = this.fields.map((field, at) => make("label", {}, names[at], field));
    this.places = make("div", { class: "span-places" }, ...places);
    for (const list of [this.spans, this.links]) list.addEventListener("click", (event) => this.pick(list, event.target.closest("[role=option]")));
    holder.replaceChildren(this.spans, this.links, ...(isReadOnly ? [] : [this.places]));
  }

  pick(list, option) {
    if (option) this.onpick(this.said.get(option));
    list.focus();
  }

  /** Walk `by` options on in the list that has the focus. */
  step(list, by) {
    const options = [...list.children];
    const at = options.findIndex((option) => option.ariaSelected === "true");
    const next = options[at < 0 ? (by > 0 ? 0 : options.length - 1) : Math.min(Math.max(at + by, 0), options.length - 1)];
    if (next) this.onpick(this.said.get(next));
  }

  /** Show a SpanState; `length` of the text in code points. */
  set(state, length) {
    this.said = new Map();
    const spans = state.marks.map((mark) => this.option(mark.id, mark.id === state.selected, ...this.words(mark)));
    const links = state.relations.map((relation) => this.option(relation, relation === state.selected, ...this.ends(relation, state)));
    fill(this.spans, spans);
    fill(this.links, links);
    this.place(state.selectedMark, length);
  }

  place(mark, length) {
    this.places.hidden = !mark;
    if (!mark) return;
    for (const [at, field] of this.fields.entries()) {
      field.max = length;
      if (document.activeElement !== field || Number(field.value) !== mark.where[at]) field.value = mark.where[at];
    }
  }

  option(said, isSelected, ...children) {
    const option = make("div", { role: "option", "aria-selected": String(isSelected), id: `option-${this.said.size}` }, ...children);
    this.said.set(option, said);
    return option;
  }

  words(mark) {
    const isDraft = (mark.confidence ?? 1) < 1;
    const sure = isDraft ? make("span", { class: "muted" }, percent(mark.confidence, 0)) : null;
    return [this.name(mark.label, isDraft), " ", make("span", { class: "quote" }, this.short(mark)), " ", sure];
  }

  ends(relation, state) {
    const [source, target] = [relation.source, relation.target].map((id) => state.mark(id));
    return [this.name(relation.label, false), " ", make("span", { class: "quote" }, `${this.short(source)} → ${this.short(target)}`)];
  }

  short(mark) {
    const quote = mark ? this.quote(mark).replace(/\s+/g, " ") : "?";
    return quote.length > QUOTE_CHARS ? `${quote.slice(0, QUOTE_CHARS)}…` : quote;
  }

  name(label, isDraft) {
    const name = make("span", { class: isDraft ? "span-name is-draft" : "span-name" }, label);
    name.style.setProperty("--mark", this.colours.get(label) ?? "gray");
    return name;
  }
}

function listbox(id, name) {
  return make("div", { class: "marks-list", id, role: "listbox", tabindex: 0, "aria-label": name });
}

function fill(list, options) {
  list.hidden = !options.length;
  list.replaceChildren(...options);
  const chosen = options.find((option) => option.ariaSelected === "true");
  if (chosen) list.setAttribute("aria-activedescendant", chosen.id);
  else list.removeAttribute("aria-activedescendant");
  chosen?.scrollIntoView({ block: "nearest" });
}
