// Keypoints on a picture. Annotorious knows no points, so they are dots of our own: a click sets one, a drag moves it.
import { dotOf, place, tagOf } from "../parts/marks.js";
import { make } from "../parts/page.js";

const REACH_PX = { mouse: 8, touch: 20 };

export class Points {
  /** `asked`: {added(where), moved(id, where, gesture), settled(), picked(id or null)}. */
  constructor(sheet, legend, asked) {
    Object.assign(this, { sheet, legend, asked, marks: [], selected: null, held: null, pending: null, gesture: 0 });
    this.layer = make("div", { class: "tags points", "aria-hidden": "true" });
    sheet.element.append(this.layer);
    sheet.holder.addEventListener("pointermove", (event) => this.#move(event));
    sheet.holder.addEventListener("pointerup", () => this.#up());
    sheet.holder.addEventListener("pointercancel", () => this.cancel());
  }

  show(marks, selected) {
    Object.assign(this, { marks, selected });
    this.parts = new Map(marks.map((mark) => [mark.id, [dotOf(mark, this.legend), tagOf(mark, this.legend, mark.id === selected)]]));
    this.parts.get(selected)?.[0].classList.add("selected");
    this.layer.replaceChildren(...[...this.parts.values()].flat());
  }

  press(event) {
    const found = this.#at(event);
    this.gesture += 1;
    this.sheet.holder.setPointerCapture(event.pointerId);
    event.preventDefault();
    this.sheet.holder.focus({ preventScroll: true });
    if (found) {
      this.held = found.id;
      this.asked.picked(found.id);
    } else if (this.#isInside(event)) this.pending = this.sheet.shares(event);
  }

  isOpen() {
    return false;
  }

  /** A second finger came: what the first one began was not meant. */
  cancel() {
    this.held = this.pending = null;
  }

  close() {
    this.layer.remove();
  }

  #isInside({ clientX, clientY }) {
    const { left, top, right, bottom } = this.sheet.element.getBoundingClientRect();
    return left <= clientX && clientX <= right && top <= clientY && clientY <= bottom;
  }

  /** The nearest mark within reach. */
  #at({ clientX, clientY, pointerType }) {
    const { left, top, width, height } = this.sheet.element.getBoundingClientRect();
    const far = ({ where }) => Math.hypot(left + where[0] * width - clientX, top + where[1] * height - clientY);
    const near = this.marks.filter((mark) => far(mark) <= (REACH_PX[pointerType] ?? REACH_PX.mouse));
    return near.sort((one, other) => far(one) - far(other))[0];
  }

  #up() {
    const [where, held] = [this.pending, this.held];
    this.cancel();
    if (where) this.asked.added(where);
    else if (held) this.asked.settled();
  }

  #move(event) {
    if (!this.held) return;
    const where = this.sheet.shares(event);
    this.marks = this.marks.map((mark) => (mark.id === this.held ? { ...mark, where } : mark));
    for (const part of this.parts.get(this.held) ?? []) place(part, { shape: "point", where });
    this.asked.moved(this.held, where, `drag ${this.gesture}`);
  }
}
