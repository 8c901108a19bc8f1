// Answers on their way to the app: saved one after the other in the background, kept in the browser's database until acknowledged,
// so that a closed tab or minutes without a network lose nothing. Each carries a key of its own, so that sending it twice saves it
// once. A tab sends its own answers; those of a tab that is gone are taken over by the next one that looks.
import { AppError, call, make, text } from "./page.js";
import { Store } from "./store.js";

const MOST_SHOWN = 5;
const PAUSE_MS = 1000;
const SOON_MS = 500;
const LOOK_MS = 5000;
const newKey = () => crypto.randomUUID?.() ?? `${Date.now()}-${Math.random().toString(36).slice(2)}`;

/** Draw the first of the answers that wait: what was said of which item. */
export function showWaiting(list, entries) {
  const lines = entries.slice(0, MOST_SHOWN).map(({ body }) => make("li", {}, `${body.item_id}: `, make("b", {}, (body.labels ?? []).join(", ") || "…")));
  if (entries.length > MOST_SHOWN) lines.push(make("li", {}, "…"));
  list.replaceChildren(...lines);
}

/** A person's answers for one project. `onchange(waiting, problem, entries)` is told whenever that changes. */
export class Outbox {
  constructor(slug, user, onchange) {
    this.slug = slug;
    this.scope = `${user}.${slug}`;
    this.onchange = onchange;
    this.tab = newKey();
    this.entries = [];
    this.problem = "";
    this.lack = ""; // why answers are in this tab's memory alone
    this.isBusy = false;
    this.waiters = new Map();
    this.elsewhere = new Set(); // items whose answers other tabs have on their way
    this.store = new Store(this.scope);
    this.opened = this.open();
    addEventListener("online", () => this.hurry?.());
    addEventListener("beforeunload", (event) => {
      if (this.entries.some((entry) => !entry.isKept)) event.preventDefault();
    });
    this.report();
  }

  /** Open the browser's database and take over what earlier tabs left. Resolves in any case. */
  async open() {
    if (navigator.locks) await new Promise((held) => navigator.locks.request(this.lockOf(this.tab), () => (held(), new Promise(() => {}))).catch(held));
    try {
      await this.store.open();
      await this.takeOverOldStorage();
      await this.takeOver();
      setTimeout(() => this.takeOver().catch(() => {}), SOON_MS); // a page that is just being left still counts as there
      setInterval(() => this.takeOver().catch(() => {}), LOOK_MS);
    } catch (error) {
      this.noteLack(error);
    }
    this.send();
  }

  lockOf(tab) {
    return `labelloop.outbox.${this.scope}.${tab}`;
  }

  /** Answers of tabs that are gone become this tab's; they ask for no next items. */
  async takeOver() {
    const mine = new Set(this.entries.map((entry) => entry.key));
    const alive = new Set(navigator.locks ? (await navigator.locks.query()).held.map((lock) => lock.name) : []);
    const others = (await this.store.all()).filter((entry) => !mine.has(entry.key) && entry.tab !== this.tab);
    this.elsewhere = new Set(others.map((entry) => entry.body.item_id));
    const left = others.filter((entry) => !alive.has(this.lockOf(entry.tab)));
    if (!left.length) return;
    const taken = left.map((entry) => ({ ...entry, tab: this.tab, body: { ...entry.body, next: 0 } }));
    await this.store.put(...taken);
    this.entries.push(...taken.filter((entry) => !this.holdsKey(entry.key)).map((entry) => ({ ...entry, isKept: true })));
    this.report();
    this.send();
  }

  /** Answers that a page of an earlier release left in the other storage. */
  async takeOverOldStorage() {
    const prefix = `labelloop.answer.${this.scope}.`;
    for (const name of Object.keys(localStorage).filter((one) => one.startsWith(prefix))) {
      const { at, body } = JSON.parse(localStorage.getItem(name));
      await this.store.put({ key: body.key, at, tab: "", body });
      localStorage.removeItem(name);
    }
  }

  /** Queue an answer; resolves with the app's reply, rejects with AppError when the app refuses it for good. */
  add(body) {
    const key = newKey();
    const entry = { key, at: Date.now(), tab: this.tab, body: { ...body, key }, isKept: false };
    this.entries.push(entry);
    this.report();
    entry.kept = this.keep(entry);
    return new Promise((resolve, reject) => {
      this.waiters.set(key, { resolve, reject });
      this.send();
    });
  }

  async keep(entry) {
    const { key, at, tab, body } = entry;
    try {
      await this.opened;
      if (!this.store.database) return;
      await this.store.put({ key, at, tab, body });
      entry.isKept = true;
    } catch (error) {
      this.noteLack(error);
    }
  }

  noteLack(error) {
    this.lack = error?.name === "QuotaExceededError" ? text("storage_full") : text("storage_none");
    this.report();
  }

  /** Whether an answer for this item has not been acknowledged yet. */
  holds(itemId) {
    return this.elsewhere.has(itemId) || this.entries.some((entry) => entry.body.item_id === itemId);
  }

  holdsKey(key) {
    return this.entries.some((entry) => entry.key === key);
  }

  /** Resolves when everything queued so far has been answered. */
  async drained() {
    while (this.entries.length) await new Promise((wait) => setTimeout(wait, 20));
  }

  async send() {
    if (this.isBusy) return;
    this.isBusy = true;
    while (this.entries.length) {
      const entry = this.entries[0];
      await entry.kept;
      try {
        await this.settle(entry, "resolve", await call("POST", `/projects/${this.slug}/annotations`, entry.body), "");
      } catch (error) {
        if (error instanceof AppError && !error.isRetryable) await this.settle(entry, "reject", error, error.message);
        else await this.pause(error.message);
      }
    }
    this.isBusy = false;
  }

  async pause(problem) {
    this.problem = problem;
    this.report();
    await new Promise((wait) => {
      this.hurry = wait;
      setTimeout(wait, PAUSE_MS);
    });
  }

  async settle(entry, how, value, problem) {
    this.entries.shift();
    this.problem = problem;
    if (entry.isKept) await this.store.drop(entry.key).catch(() => {}); // sent again it is the same answer
    if (!this.entries.some((left) => !left.isKept)) this.lack = "";
    this.report();
    this.waiters.get(entry.key)?.[how](value);
    this.waiters.delete(entry.key);
  }

  report() {
    this.onchange(this.entries.length, [this.problem, this.entries.length ? this.lack : ""].filter(Boolean).join(" "), this.entries);
  }
}
