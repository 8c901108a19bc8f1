// What all editors of marks share: the marks of an item, the selected one, labels, undo and redo, the list and its number fields.
import { Legend } from "../parts/marks.js";
import { MarkList } from "../parts/mark_list.js";
import { make, text } from "../parts/page.js";
import { Steps } from "../parts/steps.js";

let made = 0;

export class Marking {
  /** A subclass has `paint()`, `sync()`, `add()`, `fields(mark)`, `withField(mark, at, number)`, `said(mark)`, `nudged(mark, dx, dy, isSize)`. */
  constructor(desk) {
    Object.assign(this, { desk, picture: null, marks: [], selected: null, label: desk.page.labels[0], isNone: false, steps: new Steps(), item: null });
    this.legend = new Legend(desk.page.labels);
    this.list = null;
  }

  /** Take over the marks of a value; those of the item's draft are drafts until they are touched. */
  begin(item, value) {
    const isDraft = Boolean(item.draft) && value.marks === item.draft.marks;
    this.marks = (value.marks ?? []).map((mark) => ({ ...mark, ...(isDraft ? { isDraft: true } : {}) }));
    Object.assign(this, { item, selected: null, isNone: Boolean(value.is_none), steps: new Steps() });
    this.list = new MarkList(this.desk.side, this.legend, {
      select: (id) => this.select(id),
      refresh: () => this.refresh(),
      set: (at, number) => this.setField(at, number),
      remove: () => this.remove(),
      tools: () => this.tools(),
      fields: (mark) => this.fields(mark),
      place: (mark) => this.said(mark),
      extra: (mark) => this.extra(mark),
      leave: () => this.focus(),
    });
  }

  get mark() {
    return this.marks.find(({ id }) => id === this.selected);
  }

  // ---------------------------------------------------------------- what the page asks

  value() {
    if (this.isNone) return { labels: [], is_none: true };
    const borne = new Set(this.marks.map(({ label }) => label));
    const marks = this.marks.map(({ id, label, shape, where }) => ({ id, label, shape, where }));
    return { labels: this.desk.page.labels.filter((label) => borne.has(label)), marks };
  }

  problem() {
    return "";
  }

  choose(label) {
    this.label = label;
    this.isNone = false;
    if (this.mark && this.mark.label !== label) this.alter({ label });
    else this.redraw();
  }

  chosen() {
    return new Set(this.isNone ? [] : [this.mark?.label ?? this.label]);
  }

  none() {
    this.change([], null);
    this.isNone = true;
    this.desk.save();
  }

  undo() {
    return this.#restore(this.steps.back(this.#state()));
  }

  redo() {
    return this.#restore(this.steps.forth(this.#state()));
  }

  colourOf(label) {
    return this.legend.colour(label);
  }

  /** The keys that all these editors have; true = taken. */
  key(event) {
    const key = event.key.toLowerCase();
    const isList = Boolean(event.target.closest?.("[role=listbox]"));
    if (event.altKey || event.target.matches?.("input, audio")) return false;
    if (key.startsWith("arrow")) return this.#arrow(key.slice(5), event, isList);
    if (event.ctrlKey || event.metaKey) return false;
    const act = {
      delete: () => this.remove(),
      escape: () => (this.cancel(), this.select(null)),
      n: () => this.add(),
      "[": () => this.step(-1),
      "]": () => this.step(1),
      f2: () => this.list.enter(),
      home: isList && (() => this.step(-this.marks.length)),
      end: isList && (() => this.step(this.marks.length)),
    }[key];
    if (!act) return false;
    act();
    return true;
  }

  keys() {
    return [
      ["N", text("key_new")],
      ["[  ]", text("key_walk")],
      ["Del", text("key_delete")],
      ["F2", text("key_numbers")],
      ["Esc", text("key_let_go")],
      ["Ctrl Z, Ctrl Y", text("key_undo")],
    ];
  }

  close() {
    this.cancel();
    this.item = null;
    this.desk.stage.replaceChildren();
    this.desk.side.replaceChildren();
  }

  // ---------------------------------------------------------------- changes

  /** Replace marks and selection as one step; changes of one `gesture` are one step together. */
  change(marks, selected, gesture = "") {
    this.steps.before(this.#state(), gesture);
    Object.assign(this, { marks, selected, isNone: false });
    this.redraw();
  }

  /** Change the selected mark; what a person touched is no draft any more. */
  alter(part, gesture = "") {
    const { isDraft: _, confidence: __, ...mark } = this.mark;
    this.change(this.#with({ ...mark, ...part }), this.selected, gesture);
  }

  /** The mark `id` is being dragged: its place, without drawing it anew. */
  drag(id, where, gesture) {
    const found = this.marks.find((one) => one.id === id);
    if (!found) return;
    this.steps.before(this.#state(), gesture);
    const { isDraft: _, confidence: __, ...mark } = found;
    const isOther = this.selected !== id;
    Object.assign(this, { selected: id, marks: this.#with({ ...mark, where }, id) });
    if (isOther) this.redraw();
    else {
      this.refresh();
      this.desk.changed();
    }
  }

  /** Add a mark with the present label and select it. */
  insert(shape, where, id = "") {
    const named = id || this.#newId();
    this.change([...this.marks, { id: named, label: this.label, shape, where }], named);
  }

  remove() {
    if (!this.mark) return;
    const at = this.marks.indexOf(this.mark);
    const rest = this.marks.filter((mark) => mark !== this.mark);
    this.change(rest, (rest[at] ?? rest[at - 1])?.id ?? null);
    if (!this.mark) this.focus();
  }

  setField(at, number) {
    if (!this.mark) return;
    const where = this.withField(this.mark, at, number);
    if (where.some((one, place) => one !== this.mark.where[place])) this.alter({ where }, `field ${this.selected} ${at}`);
  }

  select(id) {
    if (id === this.selected) return;
    this.selected = id;
    if (this.mark) this.label = this.mark.label;
    this.redraw();
  }

  /** Select the mark `by` places further on. */
  step(by) {
    if (!this.marks.length) return;
    const at = this.mark ? this.marks.indexOf(this.mark) + by : by > 0 ? 0 : this.marks.length - 1;
    this.select(this.marks[Math.min(this.marks.length - 1, Math.max(0, at))].id);
  }

  // ---------------------------------------------------------------- drawing

  redraw() {
    this.sync();
    this.list?.draw(this.marks, this.selected);
    this.desk.changed();
  }

  refresh() {
    this.list?.refresh(this.mark, this.marks);
  }

  cancel() {}

  extra() {
    return [];
  }

  tools() {
    const redo = make("button", { type: "button", class: "outline secondary small", onclick: () => this.redo() }, text("redo"));
    const add = make("button", { type: "button", class: "outline small", onclick: () => this.add() }, `${text("new_mark")} `, make("kbd", { "aria-hidden": "true" }, "N"));
    return [add, redo];
  }

  #arrow(way, event, isList) {
    if (isList && !event.ctrlKey) return ["up", "down"].includes(way) && (this.step(way === "up" ? -1 : 1), true);
    const by = event.shiftKey ? 10 : 1;
    const [dx, dy] = { left: [-by, 0], right: [by, 0], up: [0, -by], down: [0, by] }[way];
    if (!this.mark) return this.walk(dx, dy);
    const where = this.nudged(this.mark, dx, dy, event.ctrlKey || event.metaKey);
    this.alter({ where }, `nudge ${this.selected}`);
    return true;
  }

  #with(mark, id = mark.id) {
    return this.marks.map((one) => (one.id === id ? mark : one));
  }

  #newId() {
    const known = new Set(this.marks.map(({ id }) => id));
    do made += 1;
    while (known.has(`p${made}`));
    return `p${made}`;
  }

  #state() {
    const { marks, selected, isNone } = this;
    return { marks, selected, isNone };
  }

  #restore(state) {
    if (!state) return false;
    this.cancel();
    Object.assign(this, state);
    this.redraw();
    return true;
  }
}
