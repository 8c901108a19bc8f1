// Spans in a text, overlapping and nested, and relations between them: by mouse, by touch, or by keys alone.
import { Caret } from "../parts/caret.js";
import { Offsets } from "../parts/codepoints.js";
import { coloursOf } from "../parts/colours.js";
import { keysOf } from "../parts/keys.js";
import { make, text } from "../parts/page.js";
import { SpanArcs } from "../parts/span_arcs.js";
import { SpanLayer } from "../parts/span_layer.js";
import { SpanList } from "../parts/span_list.js";
import { SpanState } from "../parts/span_state.js";
import { SpanText } from "../parts/span_text.js";

export class Editor {
  constructor(desk) {
    this.desk = desk;
    this.labels = desk.page.labels;
    this.hasRelations = desk.page.kind === "relations";
    this.relationLabels = this.hasRelations ? (desk.page.relation_labels ?? this.labels) : [];
    this.colours = coloursOf([...new Set([...this.labels, ...this.relationLabels])]);
    this.linkKey = keysOf(this.labels).includes("r") ? "R" : "r";
    this.onSelection = () => this.follow();
    this.onPress = ({ type, target }) => (this.isAway = type === "pointerdown" && !this.frame.contains(target));
    this.state = new SpanState({});
    for (const button of document.querySelectorAll("#choices [data-label]")) {
      button.classList.add("coloured");
      button.style.setProperty("--mark", this.colours.get(button.dataset.label));
    }
  }

  show(item, value) {
    this.close();
    const content = item.text ?? item.link ?? "";
    this.offsets = new Offsets(content);
    this.holder = make("div", { class: this.hasRelations ? "span-text with-arcs" : "span-text", "data-spans": true });
    const name = `${text("item")} ${item.name ?? item.item_id ?? ""}`;
    this.frame = make("div", { class: "words span-frame", tabindex: 0, role: "region", "aria-label": name }, this.holder);
    this.desk.stage.replaceChildren(this.frame);
    this.body = new SpanText(this.holder, content);
    this.state = new SpanState(this.fitting(value));
    Object.assign(this, { isNone: Boolean(value.is_none), pending: null, linking: null });
    this.arcs = this.hasRelations ? new SpanArcs(this.holder, this.colours, (relation) => this.pick(relation)) : null;
    this.layer = new SpanLayer(this.body, this.offsets, this.colours, () => this.drawArcs());
    this.caret = new Caret(this.body);
    const { colours, desk } = this;
    const quote = ({ where }) => this.offsets.quote(...where);
    const told = { colours, quote, isReadOnly: desk.isReadOnly, onpick: (said) => this.pick(said), onplace: (...where) => this.move(where) };
    this.list = new SpanList(desk.side, told);
    this.listen();
    this.draw();
  }

  /** A value without the marks that lie outside this text. */
  fitting(value) {
    const marks = (value.marks ?? []).filter(({ where: [start, end] }) => start >= 0 && start < end && end <= this.offsets.length);
    const known = new Set(marks.map((mark) => mark.id));
    return { marks, relations: (value.relations ?? []).filter(({ source, target }) => known.has(source) && known.has(target)) };
  }

  listen() {
    this.frame.addEventListener("click", (event) => this.click(event));
    document.addEventListener("selectionchange", this.onSelection);
    for (const name of ["pointerdown", "keydown"]) document.addEventListener(name, this.onPress, true);
    if (document.activeElement === document.body && !this.desk.isReadOnly) this.frame.focus({ preventScroll: true });
  }

  // ---------------------------------------------------------------- what is selected

  /**
   * Keep what the reader has selected as the place of the next span, without the spaces around it. A selection that goes because
   * something else is pressed, as browsers of phones do with a tap on a label, stays the place.
   */
  follow() {
    const selected = this.body.selected();
    if (!selected || this.desk.isReadOnly) return;
    const [from, to] = selected;
    if (from === to && this.isAway) return;
    const content = this.body.text.slice(from, to);
    const start = from + (content.length - content.trimStart().length);
    const end = to - (content.length - content.trimEnd().length);
    this.pending = end > start ? this.points(start, end) : null;
    this.caret.draw();
    this.paintPending();
  }

  /** Code points of units; a selection never cuts a character in two. */
  points(start, end) {
    const isInside = this.offsets.units(this.offsets.points(end)) < end;
    return [this.offsets.points(start), this.offsets.points(end) + (isInside ? 1 : 0)];
  }

  paintPending() {
    if (!window.Highlight || !CSS.highlights) return;
    if (this.pending) CSS.highlights.set("pending", new Highlight(this.body.rangeOf(...this.pending.map((point) => this.offsets.units(point)))));
    else CSS.highlights.delete("pending");
  }

  click(event) {
    if (event.target.closest(".arc") || this.pending) return;
    const found = this.layer.at(event.clientX, event.clientY);
    const next = found[(found.indexOf(this.state.selected) + 1) % found.length];
    if (this.linking) this.link(next);
    else this.pick(next ?? null);
  }

  pick(said) {
    if (this.linking && typeof said === "string") this.linking.target = said;
    else {
      this.state.selected = said;
      this.forget();
    }
    this.draw();
    if (typeof said === "string") this.reveal(said);
  }

  forget() {
    this.pending = null;
    this.paintPending();
  }

  /** Scroll the text to a span. */
  reveal(id) {
    const rect = this.layer.bounds(id);
    if (!rect) return;
    const [top, height] = [rect.y, this.frame.clientHeight];
    if (top < this.frame.scrollTop || top + rect.height > this.frame.scrollTop + height) this.frame.scrollTop = top - height / 3;
  }

  // ---------------------------------------------------------------- what is changed

  choose(label) {
    if (this.desk.isReadOnly) return;
    const { state } = this;
    this.isNone = false;
    const [from, to] = this.body.selected() ?? [0, 0];
    if (from !== to) this.follow(); // the browser tells of a new selection later than of a key
    if (this.pending) state.add(label, ...this.pending);
    else if (state.selectedRelation) this.relabel(label);
    else if (state.selectedMark) state.change({ label });
    else {
      this.desk.tell(text("select_words"));
      return;
    }
    if (document.getSelection().rangeCount) document.getSelection().collapseToEnd();
    this.forget();
    this.changed();
  }

  relabel(label) {
    if (this.relationLabels.includes(label)) this.state.relabel(label);
  }

  move([start, end]) {
    if (!(start >= 0 && start < end && end <= this.offsets.length)) {
      this.desk.tell(text("span_place", { n: this.offsets.length }));
      return;
    }
    this.state.change({ where: [Math.trunc(start), Math.trunc(end)] });
    this.changed();
  }

  /** Begin a relation at the selected span, or end it at `target`. */
  link(target) {
    const { state, linking } = this;
    if (!linking) {
      if (!state.selectedMark) this.desk.tell(text("select_span"));
      else {
        this.linking = { source: state.selected, target: null };
        this.desk.tell(text("choose_target"));
      }
    } else if (target && target !== linking.source) {
      this.linking = null;
      state.relate(this.lastRelation ?? this.relationLabels[0], linking.source, target);
      this.desk.tell(text("related", { label: state.selectedRelation.label }));
      this.changed();
      return;
    }
    this.draw();
  }

  none() {
    this.state.clear();
    this.isNone = true;
    this.desk.save();
  }

  value() {
    return this.isNone && !this.state.marks.length ? { labels: [], is_none: true } : this.state.value(this.labels);
  }

  problem() {
    return "";
  }

  undo() {
    if (this.linking) {
      this.linking = null;
      this.draw();
      return true;
    }
    const isDone = this.state.undo();
    if (isDone) this.changed();
    return isDone;
  }

  changed() {
    if (this.state.selectedRelation) this.lastRelation = this.state.selectedRelation.label;
    this.draw();
    this.desk.changed();
  }

  // ---------------------------------------------------------------- keys

  key(event) {
    if (this.desk.isReadOnly) return false;
    const list = event.target.closest(".marks-list");
    const by = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (list && by) this.list.step(list, by);
    else if (this.linking && this.linkByKey(event.key)) return true;
    else if (event.key === this.linkKey && this.hasRelations && !event.ctrlKey && !event.metaKey) this.link();
    else if (this.relationKey(event)) return true;
    else if (event.key === "[" || event.key === "]") this.step(event.key === "]" ? 1 : -1);
    else if (event.key === "Delete") return this.remove();
    else if (event.key === "Escape") this.pick(null);
    else return !list && this.caret.key(event);
    return true;
  }

  /** Keys while a relation's target is sought. */
  linkByKey(key) {
    if (key === "Escape") this.undo();
    else if (key === "Enter") this.link(this.linking.target);
    else return false;
    return true;
  }

  /** Labels of relations that are not the project's have digits of their own while a relation is selected. */
  relationKey({ key, ctrlKey, metaKey }) {
    if (!this.state.selectedRelation || this.relationLabels === this.labels || ctrlKey || metaKey) return false;
    const label = this.relationLabels[keysOf(this.relationLabels).indexOf(key.toLowerCase())];
    if (!label) return false;
    this.relabel(label);
    this.changed();
    return true;
  }

  step(by) {
    const at = this.linking?.target ?? this.state.selected;
    const seen = Object.assign(new SpanState({}), { marks: this.state.marks, selected: at });
    seen.step(by, this.offsets.points(this.body.selected()?.[0] ?? 0));
    this.pick(seen.selected);
  }

  remove() {
    const isDone = this.state.remove();
    if (isDone) this.changed();
    return isDone;
  }

  keys() {
    const pairs = [
      ["← → ↑ ↓", text("key_caret")],
      ["Ctrl ← →", text("key_word")],
      ["Shift ← →", text("key_extend")],
      ["1 … 9, Q …", text("key_span")],
      ["[  ]", text("key_step")],
      ["Delete", text("key_remove")],
      ["Esc", text("key_escape")],
    ];
    return this.hasRelations ? [...pairs, [this.linkKey === "r" ? "R" : "Shift R", text("key_relation")]] : pairs;
  }

  // ---------------------------------------------------------------- drawing

  chosen() {
    const { selectedMark: mark, selectedRelation: relation } = this.state;
    return new Set([mark?.label ?? relation?.label].filter(Boolean));
  }

  draw() {
    const { state, linking } = this;
    const relation = state.selectedRelation;
    const selected = new Set([linking?.source, linking?.target, relation?.source, relation?.target, state.selectedMark?.id].filter(Boolean));
    this.layer.set(state.marks, selected);
    this.list.set(state, this.offsets.length);
    this.holder.classList.toggle("linking", Boolean(linking));
    this.drawArcs();
  }

  drawArcs() {
    if (!this.layer) return;
    this.arcs?.set(this.state.relations, (id) => this.layer.bounds(id), this.state.selectedRelation);
  }

  resize() {
    this.layer?.resize();
    this.caret?.draw();
  }

  close() {
    document.removeEventListener("selectionchange", this.onSelection);
    for (const name of ["pointerdown", "keydown"]) document.removeEventListener(name, this.onPress, true);
    this.forget();
    this.layer?.close();
    this.layer = null;
    this.desk.stage.replaceChildren();
    this.desk.side.replaceChildren();
  }
}
