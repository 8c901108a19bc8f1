// The items this tab holds: the one on screen, those ready behind it, and skipped ones that came back. Kept in the tab's own
// storage, so that a reload goes on with the same items instead of leaving them leased and unseen.

/** Remembers `page.slug`'s items of this tab; `next()` takes the one to show. */
export class Hand {
  constructor(slug, user) {
    this.storage = `labelloop.hand.${user}.${slug}`;
    this.ready = [];
    this.later = [];
    this.skipped = new Set();
  }

  /** Take up what this tab held before a reload, except what `isAnswered` or has run out. */
  restore(isAnswered) {
    const left = JSON.parse(sessionStorage.getItem(this.storage) ?? "[]");
    this.ready = left.filter((item) => item.expires_at * 1000 > Date.now() + 5000 && !isAnswered(item.item_id));
  }

  /** Add items as the app hands them out; one that was skipped waits until nothing else is left. */
  add(items, shown) {
    const known = new Set([shown, ...this.ready, ...this.later].map((item) => item?.item_id));
    for (const item of items) {
      if (known.has(item.item_id)) continue;
      (this.skipped.has(item.item_id) ? this.later : this.ready).push(item);
      if (item.media) new Image().src = item.media;
    }
  }

  /** The next item to show, null = none. */
  next() {
    return this.ready.shift() ?? this.later.shift() ?? null;
  }

  /** Write down what this tab holds now. */
  keep(shown) {
    sessionStorage.setItem(this.storage, JSON.stringify([shown, ...this.ready].filter(Boolean)));
  }

  /** Note that all leases live until `expires_at` (seconds). */
  extend(expiresAt, shown) {
    for (const item of [shown, ...this.ready]) if (item) item.expires_at = expiresAt;
    this.keep(shown);
  }
}
