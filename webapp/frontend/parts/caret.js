// A caret in a text that cannot be edited: moved by the arrow keys as in any editor, extended with Shift, drawn by us.
import { make } from "./page.js";

const MOVES = {
  arrowleft: ["backward", "character", "word"],
  arrowright: ["forward", "character", "word"],
  arrowup: ["backward", "line", "paragraph"],
  arrowdown: ["forward", "line", "paragraph"],
  home: ["backward", "lineboundary", "documentboundary"],
  end: ["forward", "lineboundary", "documentboundary"],
};

/** The caret of `body` (a SpanText). */
export class Caret {
  constructor(body) {
    this.body = body;
    this.mark = make("span", { class: "caret", "aria-hidden": "true" });
    this.mark.hidden = true;
    body.holder.append(this.mark);
  }

  /** Move or extend by a key; true = it was one of ours. */
  key(event) {
    const move = MOVES[event.key.toLowerCase()];
    if (!move || event.altKey) return false;
    const selection = document.getSelection();
    if (!this.body.selected()) this.place(0);
    selection.modify(event.shiftKey ? "extend" : "move", move[0], event.ctrlKey || event.metaKey ? move[2] : move[1]);
    if (!this.body.selected()) this.place(move[0] === "forward" ? this.body.text.length : 0);
    this.draw();
    this.mark.scrollIntoView({ block: "nearest" });
    return true;
  }

  /** Set the caret to an offset in units, without a selection. */
  place(offset) {
    document.getSelection().collapse(...this.body.place(offset, false));
    this.draw();
  }

  /** Draw the caret where the selection's moving end is. */
  draw() {
    const selected = this.body.selected();
    const rect = selected && this.body.caretRect(selected[2] ? selected[0] : selected[1]);
    this.mark.hidden = !rect;
    if (!rect) return;
    const { left, top } = this.body.holder.getBoundingClientRect();
    this.mark.style.left = `${rect.left - left}px`;
    this.mark.style.top = `${rect.top - top}px`;
    this.mark.style.height = `${rect.height}px`;
  }
}
