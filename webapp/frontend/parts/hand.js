// The items this tab holds: the one on screen, those ready behind it, and skipped ones that came back. Kept in the tab's own
// storage, so that a reload goes on with the same items instead of leaving them leased and unseen.

const AHEAD_DECODED = 3;
const IS_SOUND = /\.(wav|mp3|ogg|oga|opus|flac|m4a|aac|weba)$/i;

function fetchMedia(media) {
  if (IS_SOUND.test(media)) return fetch(media, { credentials: "same-origin" }).catch(() => null);
  const image = new Image();
  image.src = media;
  image.decode().catch(() => {}); // one that is broken says so when it is shown
  return image;
}

/** Remembers `page.slug`'s items of this tab; `next()` takes the one to show. */
export class Hand {
  constructor(slug, user) {
    this.storage = `labelloop.hand.${user}.${slug}`;
    this.ready = [];
    this.later = [];
    this.skipped = new Set();
    this.decoded = new Map(); // media → what holds it ready
  }

  /** Take up what this tab held before a reload, except what `isAnswered` or has run out. */
  restore(isAnswered) {
    const left = JSON.parse(sessionStorage.getItem(this.storage) ?? "[]");
    this.ready = left.filter((item) => item.expires_at * 1000 > Date.now() + 5000 && !isAnswered(item.item_id));
  }

  /** Add items as the app hands them out: one that a reviewer sent back is next, one that was skipped waits until nothing else is left. */
  add(items, shown) {
    const known = new Set([shown, ...this.ready, ...this.later].map((item) => item?.item_id));
    for (const item of items) {
      if (known.has(item.item_id)) continue;
      if (item.returned) this.ready.unshift(item);
      else (this.skipped.has(item.item_id) ? this.later : this.ready).push(item);
    }
    this.prefetch();
  }

  /** Load and decode what the next items show, so that it is on screen with the key that asks for it. */
  prefetch() {
    const wanted = this.ready.slice(0, AHEAD_DECODED).flatMap((item) => [item.media, item.pair?.a?.media, item.pair?.b?.media].filter(Boolean));
    const kept = new Map(wanted.map((media) => [media, this.decoded.get(media) ?? fetchMedia(media)]));
    this.decoded = kept;
  }

  /** The next item to show, null = none. */
  next() {
    const item = this.ready.shift() ?? this.later.shift() ?? null;
    this.prefetch();
    return item;
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
