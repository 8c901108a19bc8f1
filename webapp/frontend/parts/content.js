// What a person looks at: a picture, a sound, a text, a table row, or two of them side by side.
import { isSound } from "./address.js";
import { differences } from "./differences.js";
import { make, text } from "./page.js";
import { Picture } from "./picture.js";

const nameOf = (item) => item.name ?? item.item_id ?? "";

/** Fill `stage` with an item; returns the Picture or the Player when it is one, else null. */
export function showContent(stage, item) {
  if (item.pair) return pair(stage, item.pair);
  if (isSound(item.media)) return new Player(stage, item);
  if (item.media) {
    const holder = make("div", { class: "picture" });
    stage.replaceChildren(holder);
    return new Picture(holder, item.media, nameOf(item));
  }
  stage.replaceChildren(item.row ? record(item) : words(item));
  return null;
}

function record(item) {
  const rows = Object.entries(item.row).map(([name, value]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, String(value ?? ""))));
  return make("div", { class: "record", tabindex: 0, role: "region", "aria-label": `${text("item")} ${nameOf(item)}` }, make("table", {}, make("tbody", {}, ...rows)));
}

function words(item, pieces = [[item.text ?? item.link ?? "", false]]) {
  const shown = pieces.map(([part, isDifferent]) => (isDifferent ? make("mark", { class: "differs" }, part) : part));
  return make("div", { class: "words", tabindex: 0, role: "region", "aria-label": `${text("item")} ${nameOf(item)}` }, make("p", {}, ...shown));
}

// ---------------------------------------------------------------- two side by side

function pair(stage, sides) {
  const holders = Object.keys(sides).map((side) => make("div", { class: "half" }, make("b", { class: "half-name", "aria-hidden": "true" }, side.toUpperCase()), make("div", { class: "half-body" })));
  stage.replaceChildren(make("div", { class: "pair" }, ...holders));
  const items = Object.entries(sides).map(([side, item]) => ({ ...item, name: side.toUpperCase() }));
  const bodies = holders.map((holder) => holder.lastChild);
  if (items.length === 2 && items.every((item) => typeof item.text === "string")) {
    const found = differences(items[0].text, items[1].text);
    bodies.forEach((body, at) => body.replaceChildren(words(items[at], found[at])));
    return null;
  }
  return together(items.map((item, at) => showContent(bodies[at], item)).filter(Boolean));
}

/** Both sides as one: pictures are zoomed, moved and fitted together, a key goes to the side that has the focus. null = texts. */
function together(shown) {
  if (!shown.length) return null;
  if (!shown.every((one) => one instanceof Picture)) return new Both(shown);
  for (const name of ["fit", "zoom", "move"]) {
    const own = shown.map((picture) => picture[name].bind(picture));
    for (const picture of shown) picture[name] = (...how) => own.forEach((act) => act(...how));
  }
  return shown[0];
}

class Both {
  constructor(shown) {
    this.shown = shown;
  }

  fit() {
    for (const one of this.shown) one.fit();
  }

  zoom(factor) {
    for (const one of this.shown) one.zoom(factor);
  }

  key(event) {
    const half = [...document.querySelectorAll(".half")].indexOf(event.target.closest(".half"));
    return (this.shown[half] ?? this.shown[0]).key?.(event) ?? false;
  }

  close() {
    for (const one of this.shown) one.close?.();
  }
}

/** A sound with its waveform, whose chunk is fetched now. The browser's own player is there at once. */
class Player {
  constructor(stage, item) {
    const audio = make("audio", { controls: true, src: item.media, "aria-label": `${text("item")} ${nameOf(item)}` });
    const holder = make("div", { class: "sounds" }, make("div", { class: "sound" }, audio));
    stage.replaceChildren(holder);
    this.loading = import("./wave.js").then(({ Wave }) => {
      if (holder.isConnected) this.wave = new Wave(holder, item);
    });
  }

  key(event) {
    return this.wave?.key(event) ?? false;
  }

  fit() {
    this.wave?.fit();
  }

  zoom(factor) {
    this.wave?.zoom(factor);
  }

  close() {
    this.wave?.close();
  }
}
