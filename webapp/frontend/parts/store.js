// Answers in the browser's database: one entry an answer, under its key, so that two tabs never overwrite each other.

const DATABASE = "labelloop";
const ANSWERS = "answers";

const done = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

const committed = (transaction) =>
  new Promise((resolve, reject) => {
    transaction.oncomplete = resolve;
    transaction.onabort = transaction.onerror = () => reject(transaction.error);
  });

/** The answers of one person for one project; `open` rejects where the browser keeps nothing (a private window of some). */
export class Store {
  constructor(scope) {
    this.scope = scope;
  }

  async open() {
    const request = indexedDB.open(DATABASE, 1);
    request.onupgradeneeded = () => request.result.createObjectStore(ANSWERS, { keyPath: "key" }).createIndex("scope", "scope");
    this.database = await done(request);
    this.database.onversionchange = () => this.database.close();
  }

  /** Every entry, oldest first. */
  async all() {
    const index = this.database.transaction(ANSWERS).objectStore(ANSWERS).index("scope");
    return (await done(index.getAll(this.scope))).sort((a, b) => a.at - b.at);
  }

  /** Write entries; resolves when they are kept, rejects with QuotaExceededError when there is no room. */
  async put(...entries) {
    const transaction = this.database.transaction(ANSWERS, "readwrite", { durability: "strict" });
    for (const entry of entries) transaction.objectStore(ANSWERS).put({ ...entry, scope: this.scope });
    const kept = committed(transaction);
    transaction.commit?.();
    await kept;
  }

  /** Forget an entry. */
  async drop(key) {
    const transaction = this.database.transaction(ANSWERS, "readwrite");
    transaction.objectStore(ANSWERS).delete(key);
    await committed(transaction);
  }
}
