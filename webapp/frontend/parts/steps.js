// Undo and redo within one item: states as they were before each change. Changes of one gesture are one step.

const TOGETHER_MS = 1200;

export class Steps {
  constructor() {
    this.past = [];
    this.future = [];
    this.last = { gesture: "", at: 0 };
  }

  /** Remember `state`, which is about to change; not again while the same `gesture` goes on. */
  before(state, gesture = "") {
    const now = performance.now();
    const isSame = gesture && gesture === this.last.gesture && now - this.last.at < TOGETHER_MS;
    this.last = { gesture, at: now };
    this.future = [];
    if (!isSame) this.past.push(state);
  }

  /** The state before the last change, or undefined; `state` is the one that is left. */
  back(state) {
    return this.#swap(this.past, this.future, state);
  }

  /** The state that was taken back last, or undefined. */
  forth(state) {
    return this.#swap(this.future, this.past, state);
  }

  #swap(from, to, state) {
    this.last = { gesture: "", at: 0 };
    const found = from.pop();
    if (found !== undefined) to.push(state);
    return found;
  }
}
