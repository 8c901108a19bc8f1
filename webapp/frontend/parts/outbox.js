// Answers on their way to the app: saved one after the other in the background, kept in the browser until acknowledged, so that
// a closed tab or minutes without a network lose nothing. Each answer is an entry of its own in the browser's storage, so that two
// tabs never overwrite each other, and carries a key of its own, so that sending it twice saves it once.
import { AppError, call } from "./page.js";

const PAUSE_MS = 1000;
const newKey = () => crypto.randomUUID?.() ?? `${Date.now()}-${Math.random().toString(36).slice(2)}`;

/** A person's answers for one project. `onchange(waiting, problem)` is told whenever that changes. */
export class Outbox {
  constructor(slug, user, onchange) {
    this.slug = slug;
    this.prefix = `labelloop.answer.${user}.${slug}.`;
    this.onchange = onchange;
    this.entries = this.left();
    this.problem = "";
    this.isBusy = false;
    this.waiters = new Map();
    addEventListener("online", () => this.hurry?.());
    this.report();
    this.send();
  }

  /** The answers that an earlier page left behind, oldest first; they ask for no next items. */
  left() {
    const names = Object.keys(localStorage).filter((name) => name.startsWith(this.prefix));
    const found = names.map((name) => JSON.parse(localStorage.getItem(name)));
    return found.sort((a, b) => a.at - b.at).map((entry) => ({ ...entry, body: { ...entry.body, next: 0 } }));
  }

  /** Queue an answer; resolves with the app's reply, rejects with AppError when the app refuses it for good. */
  add(body) {
    const entry = { at: Date.now(), body: { ...body, key: newKey() } };
    this.entries.push(entry);
    localStorage.setItem(this.prefix + entry.body.key, JSON.stringify(entry));
    this.report();
    return new Promise((resolve, reject) => {
      this.waiters.set(entry.body.key, { resolve, reject });
      this.send();
    });
  }

  /** Whether an answer for this item has not been acknowledged yet. */
  holds(itemId) {
    return this.entries.some((entry) => entry.body.item_id === itemId);
  }

  /** Resolves when everything queued so far has been answered. */
  async drained() {
    while (this.entries.length) await new Promise((done) => setTimeout(done, 20));
  }

  async send() {
    if (this.isBusy) return;
    this.isBusy = true;
    while (this.entries.length) {
      const entry = this.entries[0];
      try {
        this.settle(entry, "resolve", await call("POST", `/projects/${this.slug}/annotations`, entry.body), "");
      } catch (error) {
        if (error instanceof AppError && !error.isRetryable) this.settle(entry, "reject", error, error.message);
        else await this.pause(error.message);
      }
    }
    this.isBusy = false;
  }

  async pause(problem) {
    this.problem = problem;
    this.report();
    await new Promise((done) => {
      this.hurry = done;
      setTimeout(done, PAUSE_MS);
    });
  }

  settle(entry, how, value, problem) {
    this.entries.shift();
    this.problem = problem;
    localStorage.removeItem(this.prefix + entry.body.key);
    this.report();
    this.waiters.get(entry.body.key)?.[how](value);
    this.waiters.delete(entry.body.key);
  }

  report() {
    this.onchange(this.entries.length, this.problem);
  }
}
