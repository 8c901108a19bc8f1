// A picture on the stage that marks are drawn on: fitted, zoomed and moved by wheel, buttons, keys, the middle button or two fingers.
import { make } from "./page.js";

const MOST = 120;

export class Sheet {
  /** `asked`: {ready(), press(event), cancel()}; `isMoving` = every drag moves the picture. */
  constructor(holder, url, alt, asked) {
    Object.assign(this, { holder, asked, isMoving: false, scale: 1, x: 0, y: 0, fingers: new Map(), isPinching: false });
    this.image = Object.assign(new Image(), { alt, draggable: false });
    this.element = make("div", { class: "sheet" }, this.image);
    holder.replaceChildren(this.element);
    this.image.addEventListener("load", () => (this.fit(), asked.ready()));
    this.image.addEventListener("error", () => holder.classList.add("broken"));
    this.image.src = url;
    holder.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    holder.addEventListener("pointerdown", (event) => this.#down(event), true);
    holder.addEventListener("pointermove", (event) => this.#move(event), true);
    for (const name of ["pointerup", "pointercancel"]) holder.addEventListener(name, (event) => this.#up(event), true);
  }

  get width() {
    return this.image.naturalWidth;
  }

  get height() {
    return this.image.naturalHeight;
  }

  fit() {
    if (!this.width || !this.holder.clientWidth || !this.holder.clientHeight) return;
    this.image.classList.toggle("tiny", Math.max(this.width, this.height) <= 64);
    this.scale = Math.min(MOST, 0.94 * Math.min(this.holder.clientWidth / this.width, this.holder.clientHeight / this.height));
    this.x = (this.holder.clientWidth - this.width * this.scale) / 2;
    this.y = (this.holder.clientHeight - this.height * this.scale) / 2;
    this.draw();
  }

  /** Zoom around a place of the holder, its middle when there is none. */
  zoom(factor, [x, y] = [this.holder.clientWidth / 2, this.holder.clientHeight / 2]) {
    const scale = Math.min(MOST, Math.max(0.02, this.scale * factor));
    const share = scale / this.scale;
    Object.assign(this, { scale, x: x - (x - this.x) * share, y: y - (y - this.y) * share });
    this.draw();
  }

  move(dx, dy) {
    this.x += dx;
    this.y += dy;
    this.draw();
  }

  draw() {
    const [width, height] = [this.width * this.scale, this.height * this.scale];
    Object.assign(this.element.style, { left: `${this.x}px`, top: `${this.y}px`, width: `${width}px`, height: `${height}px` });
  }

  /** The shares of the picture at a place of the window, cut at its edges. */
  shares({ clientX, clientY }) {
    const at = this.element.getBoundingClientRect();
    return [(clientX - at.left) / at.width, (clientY - at.top) / at.height].map((share) => Math.min(1, Math.max(0, share)));
  }

  /** The part of the picture that can be seen: [left, top, right, bottom] as shares. */
  seen() {
    const at = this.holder.getBoundingClientRect();
    return [...this.shares({ clientX: at.left, clientY: at.top }), ...this.shares({ clientX: at.right, clientY: at.bottom })];
  }

  #wheel(event) {
    event.preventDefault();
    const at = this.holder.getBoundingClientRect();
    this.zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15, [event.clientX - at.left, event.clientY - at.top]);
  }

  #down(event) {
    this.fingers.set(event.pointerId, event);
    const isSecond = this.fingers.size === 2 && event.pointerType === "touch";
    if (isSecond) this.asked.cancel();
    if (isSecond || this.isMoving || event.button === 1) {
      this.isPinching = true;
      this.holder.setPointerCapture(event.pointerId);
      event.preventDefault();
      event.stopPropagation();
    } else if (event.button === 0 && event.isTrusted) this.asked.press(event);
  }

  #move(event) {
    const before = this.fingers.get(event.pointerId);
    if (!this.isPinching || !before) return;
    event.stopPropagation();
    const other = [...this.fingers.values()].find(({ pointerId }) => pointerId !== event.pointerId);
    this.fingers.set(event.pointerId, event);
    const share = other ? 1 / this.fingers.size : 1;
    this.move((event.clientX - before.clientX) * share, (event.clientY - before.clientY) * share);
    if (other) this.#pinch(before, event, other);
  }

  #pinch(before, after, other) {
    const far = ({ clientX, clientY }) => Math.hypot(clientX - other.clientX, clientY - other.clientY);
    const at = this.holder.getBoundingClientRect();
    if (far(before) > 8) this.zoom(far(after) / far(before), [(after.clientX + other.clientX) / 2 - at.left, (after.clientY + other.clientY) / 2 - at.top]);
  }

  #up(event) {
    this.fingers.delete(event.pointerId);
    if (!this.fingers.size) this.isPinching = false;
  }
}
