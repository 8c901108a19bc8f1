// A text on the stage, cut into pieces that the browser lays out one by one, and the way between its nodes and offsets in UTF-16 units.
import { make } from "./page.js";

const BLOCK_CHARS = 2000; // short lines share a block up to this size
const NODE_CHARS = 4000;

/** Fills `holder` with `text`; `rangeOf` and `offsetOf` convert, `selected` is what the reader has selected. */
export class SpanText {
  constructor(holder, text) {
    this.holder = holder;
    this.text = text;
    this.nodes = [];
    this.starts = [];
    this.at = new Map();
    holder.replaceChildren(...blocks(text).map((lines) => this.block(lines)));
  }

  block(lines) {
    const block = make("div", { class: "span-block" });
    for (const piece of pieces(lines)) {
      const node = document.createTextNode(piece);
      this.at.set(node, this.starts.length);
      this.starts.push(this.nodes.length ? this.starts.at(-1) + this.nodes.at(-1).data.length : 0);
      this.nodes.push(node);
      block.append(node);
    }
    return block;
  }

  /** The node and the offset in it of a place; at a seam the earlier node where `isEnd`. */
  place(offset, isEnd) {
    let [low, high] = [0, this.nodes.length - 1];
    while (low < high) {
      const middle = (low + high + 1) >> 1;
      if (isEnd ? this.starts[middle] < offset : this.starts[middle] <= offset) low = middle;
      else high = middle - 1;
    }
    return [this.nodes[low], Math.min(offset - this.starts[low], this.nodes[low].data.length)];
  }

  rangeOf(start, end) {
    const range = document.createRange();
    range.setStart(...this.place(start, false));
    range.setEnd(...this.place(end, end > start));
    return range;
  }

  /** The offset of a place in the document; null = it is not in this text. */
  offsetOf(node, offset) {
    if (this.at.has(node)) return this.starts[this.at.get(node)] + offset;
    if (!this.holder.contains(node)) return null;
    const point = document.createRange();
    point.setStart(node, offset);
    const next = this.nodes.find((one) => point.comparePoint(one, 0) >= 0);
    return next ? this.starts[this.at.get(next)] : this.text.length;
  }

  /** [start, end, isBackwards] of the document's selection where both its ends lie in this text, else null. */
  selected() {
    const selection = document.getSelection();
    if (!selection?.anchorNode) return null;
    const from = this.offsetOf(selection.anchorNode, selection.anchorOffset);
    const to = this.offsetOf(selection.focusNode, selection.focusOffset);
    return from === null || to === null ? null : [Math.min(from, to), Math.max(from, to), to < from];
  }

  /** The rectangle of the place at which a caret stands. */
  caretRect(offset) {
    const rects = this.rangeOf(offset, offset).getClientRects();
    if (rects.length) return rects[0];
    const next = this.rangeOf(offset, Math.min(offset + 1, this.text.length)).getClientRects()[0];
    if (next) return next;
    const last = [...this.rangeOf(Math.max(0, offset - 1), offset).getClientRects()].at(-1);
    return last ? new DOMRect(last.right, last.top, 0, last.height) : null;
  }
}

/** Whole lines, short ones together: a block begins on a line of its own. */
function blocks(text) {
  const out = [""];
  for (const line of text.split(/(?<=\n)/)) {
    if (out.at(-1) && out.at(-1).length + line.length > BLOCK_CHARS) out.push("");
    out[out.length - 1] += line;
  }
  return out;
}

/** A long line in pieces that end behind a space, or at least never within a character. */
function pieces(line) {
  const out = [];
  for (let from = 0; from < line.length || !out.length; ) {
    let to = Math.min(from + NODE_CHARS, line.length);
    if (to < line.length) {
      const space = line.lastIndexOf(" ", to);
      if (space > from + NODE_CHARS / 2) to = space + 1;
      else if (line.charCodeAt(to) >= 0xdc00 && line.charCodeAt(to) <= 0xdfff) to += 1;
    }
    out.push(line.slice(from, to));
    from = Math.max(to, from + 1);
  }
  return out;
}
