// Spans and relations of one text as a person changes them, with undo. Knows no page: offsets are code points, as the app has them.

const MOST_UNDOS = 200;

/** `marks` in reading order, `relations`, and which of them is `selected` (an id of a mark, or a relation). */
export class SpanState {
  constructor(value) {
    this.marks = inOrder((value.marks ?? []).filter((mark) => mark.shape === "span"));
    this.relations = [...(value.relations ?? [])];
    this.selected = null;
    this.past = [];
  }

  mark(id) {
    return this.marks.find((mark) => mark.id === id);
  }

  get selectedMark() {
    return typeof this.selected === "string" ? this.mark(this.selected) : undefined;
  }

  get selectedRelation() {
    return this.relations.includes(this.selected) ? this.selected : undefined;
  }

  remember() {
    this.past.push({ marks: this.marks, relations: this.relations, selected: this.selected });
    if (this.past.length > MOST_UNDOS) this.past.shift();
  }

  /** Take back the last change; false = there is none. */
  undo() {
    const before = this.past.pop();
    if (before) Object.assign(this, before);
    return Boolean(before);
  }

  /** Add a span, or select the equal one that is there. */
  add(label, start, end) {
    const same = this.marks.find((mark) => mark.label === label && mark.where[0] === start && mark.where[1] === end);
    if (same) {
      this.selected = same.id;
      return;
    }
    this.remember();
    const id = this.freeId();
    this.marks = inOrder([...this.marks, { id, label, shape: "span", where: [start, end] }]);
    this.selected = id;
  }

  freeId() {
    const known = new Set(this.marks.map((mark) => mark.id));
    let number = this.marks.length + 1;
    while (known.has(`m${number}`)) number += 1;
    return `m${number}`;
  }

  /** Change the selected span; what a person touched is certain. */
  change(more) {
    const mark = this.selectedMark;
    if (!mark) return;
    this.remember();
    const changed = { id: mark.id, label: mark.label, shape: "span", where: mark.where, ...more };
    this.marks = inOrder(this.marks.map((one) => (one === mark ? changed : one)));
  }

  /** Relate two spans; the relation is then selected. */
  relate(label, source, target) {
    const same = this.relations.find((one) => one.label === label && one.source === source && one.target === target);
    if (!same) {
      this.remember();
      this.relations = [...this.relations, { label, source, target }];
    }
    this.selected = same ?? this.relations.at(-1);
  }

  relabel(label) {
    const relation = this.selectedRelation;
    if (!relation || relation.label === label) return;
    this.remember();
    const changed = { ...relation, label };
    const isThere = this.relations.some((one) => one.label === label && one.source === relation.source && one.target === relation.target);
    this.relations = isThere ? this.relations.filter((one) => one !== relation) : this.relations.map((one) => (one === relation ? changed : one));
    this.selected = isThere ? null : changed;
  }

  /** Remove what is selected, a span with its relations; false = nothing is. */
  remove() {
    const { selectedMark: mark, selectedRelation: relation } = this;
    if (!mark && !relation) return false;
    this.remember();
    const at = this.marks.indexOf(mark);
    if (mark) this.marks = this.marks.filter((one) => one !== mark);
    this.relations = this.relations.filter((one) => one !== relation && one.source !== mark?.id && one.target !== mark?.id);
    this.selected = mark ? (this.marks[Math.min(at, this.marks.length - 1)]?.id ?? null) : null;
    return true;
  }

  clear() {
    if (!this.marks.length) return;
    this.remember();
    Object.assign(this, { marks: [], relations: [], selected: null });
  }

  /** Select the span `by` places on in reading order, from the selected one or from `place`. */
  step(by, place = 0) {
    if (!this.marks.length) return;
    const at = this.marks.indexOf(this.selectedMark);
    const after = this.marks.findIndex((mark) => mark.where[0] >= place);
    const fresh = by > 0 ? (after < 0 ? 0 : after) : (after < 0 ? this.marks.length : after) - 1;
    const next = at < 0 ? fresh : at + by;
    this.selected = this.marks[(next + this.marks.length) % this.marks.length].id;
  }

  value(labels) {
    const borne = new Set(this.marks.map((mark) => mark.label));
    const marks = this.marks.map(({ id, label, where }) => ({ id, label, shape: "span", where }));
    return { labels: labels.filter((label) => borne.has(label)), marks, relations: this.relations };
  }
}

const inOrder = (marks) => [...marks].sort((a, b) => a.where[0] - b.where[0] || b.where[1] - a.where[1]);

/** How deep each mark lies among those it overlaps: Map id -> lane, 0 = the outermost. */
export function lanesOf(marks) {
  const ends = [];
  const lanes = new Map();
  for (const { id, where } of inOrder(marks)) {
    const free = ends.findIndex((end) => end <= where[0]);
    const lane = free < 0 ? ends.length : free;
    ends[lane] = where[1];
    lanes.set(id, lane);
  }
  return lanes;
}
