// Answers on their way to the app: saved one after the other in the background, kept in the browser until acknowledged, so that
// a closed tab or minutes without a network lose nothing. Each carries a key of its own, so that sending twice saves once.
import { AppError, call } from "./page.js";

const PAUSE_MS = 1500;

/** A queue of answers for one project. `onchange(waiting, problem)` is told whenever that changes. */
export class Outbox {
  constructor(slug, onchange) {
    this.slug = slug;
    this.storage = `labelloop.outbox.${slug}`;
    this.onchange = onchange;
    this.entries = JSON.parse(localStorage.getItem(this.storage) ?? "[]");
    this.problem = "";
    this.isBusy = false;
    this.waiters = [];
    addEventListener("online", () => this.send());
    this.report();
    this.send();
  }

  /** Queue an answer; resolves with the app's reply, rejects with AppError when the app refuses it for good. */
  add(body) {
    const entry = { ...body, key: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random().toString(36).slice(2)}` };
    this.entries.push(entry);
    this.keep();
    return new Promise((resolve, reject) => {
      this.waiters.push({ key: entry.key, resolve, reject });
      this.send();
    });
  }

  /** Resolves when everything queued so far has been answered. */
  async drained() {
    while (this.entries.length) await new Promise((done) => setTimeout(done, 30));
  }

  async send() {
    if (this.isBusy) return;
    this.isBusy = true;
    while (this.entries.length) {
      const entry = this.entries[0];
      try {
        const reply = await call("POST", `/projects/${this.slug}/annotations`, entry);
        this.settle(entry, "resolve", reply, "");
      } catch (error) {
        if (error instanceof AppError && !error.isRetryable) {
          this.settle(entry, "reject", error, error.message);
          continue;
        }
        this.problem = error.message;
        this.report();
        await new Promise((done) => setTimeout(done, PAUSE_MS));
      }
    }
    this.isBusy = false;
  }

  settle(entry, how, value, problem) {
    this.entries.shift();
    this.problem = problem;
    this.keep();
    const at = this.waiters.findIndex((waiter) => waiter.key === entry.key);
    if (at >= 0) this.waiters.splice(at, 1)[0][how](value);
  }

  keep() {
    localStorage.setItem(this.storage, JSON.stringify(this.entries));
    this.report();
  }

  report() {
    this.onchange(this.entries.length, this.problem);
  }
}
