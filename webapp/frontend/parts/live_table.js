// A table that is drawn anew from what the app answers, without losing the focus or a scroll position; and figures as people read them.
import { make, sentence, text } from "./page.js";
import { inWords } from "./times.js";

export const element = (id) => document.getElementById(id);

/** Fill the body of table `id`: one row an entry, `cells(entry)` its cells as strings or nodes, `key(entry)` what it is known by. */
export function fill(id, entries, key, cells) {
  const body = element(id);
  const held = body.contains(document.activeElement) ? document.activeElement : null;
  const at = [...body.rows].indexOf(held?.closest("tr"));
  const heads = [...body.closest("table").tHead.querySelectorAll("th")].map((head) => head.textContent);
  const cell = (content, column) => make("td", { role: "cell", "data-head": heads[column] }, content ?? "–");
  const rows = entries.map((entry) => make("tr", { role: "row", id: `${id}-${key(entry)}` }, ...cells(entry).map(cell)));
  body.replaceChildren(...rows);
  element(`${id}-empty`).hidden = entries.length > 0;
  body.closest(".table-scroll").hidden = entries.length === 0;
  if (held) holdFocus(body, held.dataset.key, at);
}

/** Put the focus back on what is known by `key`; where that is gone, on the row that took its place `at`, else on the words for "empty". */
function holdFocus(body, key, at) {
  const same = key && body.querySelector(`[data-key="${CSS.escape(key)}"]`);
  const near = body.rows[Math.min(at, body.rows.length - 1)]?.querySelector("[data-key], a, summary");
  const place = same || near || element(`${body.id}-empty`);
  if (!same && !near) place.tabIndex = -1;
  place.focus({ preventScroll: true });
}

/** A small button whose focus survives a redraw; `key` is unique on the page. */
export function act(key, words, about, onclick) {
  return make("button", { type: "button", class: "outline secondary small", "data-key": key, onclick }, words, make("span", { class: "visually-hidden" }, ` ${about}`));
}

/** Show what is wrong, each with its way out. */
export function showTroubles(troubles) {
  const list = element("troubles");
  const lines = troubles.map((one) => make("li", {}, make("strong", {}, sentence(one.sentence)), " ", make("span", {}, sentence(one.way_out))));
  if (list.textContent !== lines.map((line) => line.textContent).join("")) list.replaceChildren(...lines);
  list.hidden = troubles.length === 0;
}

/** Call `draw` now and every `pause_ms`; what fails is shown and tried again. */
export function repeat(draw, pause_ms) {
  let failed = ""; // what a person did wrong stays until the next deed; only a failed look is taken back by a good one
  const turn = async () => {
    try {
      await draw();
      if (failed && element("problem")?.textContent === failed) say("");
      failed = "";
    } catch (error) {
      say((failed = error.message));
    }
    setTimeout(turn, document.hidden ? 5 * pause_ms : pause_ms);
  };
  turn();
}

/** Show `words` in the page's line for problems. */
export function say(words) {
  const line = element("problem");
  if (line.textContent !== words) line.textContent = words;
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/** Bytes as people read them. */
export function size(bytes) {
  if (bytes == null) return null;
  const step = Math.min(Math.floor(Math.log2(Math.max(bytes, 1)) / 10), UNITS.length - 1);
  return `${(bytes / 2 ** (10 * step)).toFixed(step && bytes / 2 ** (10 * step) < 10 ? 1 : 0)} ${UNITS[step]}`;
}

/** Seconds as people read them, in the reader's language: 8 s, 3 min, 2 h 5 min, 5 days. */
export function span(seconds) {
  if (seconds == null) return null;
  const minutes = Math.round(seconds / 60);
  if (seconds < 100) return text("seconds_are", { n: seconds.toFixed(0) });
  if (minutes < 100) return text("minutes_are", { n: minutes });
  return minutes < 2880 ? text("hours_are", { n: Math.floor(minutes / 60), rest: minutes % 60 }) : text("days_are", { n: Math.round(minutes / 1440) });
}

/** A moment (seconds since 1970, or ISO 8601) in the reader's own words. */
export function moment(at) {
  if (at == null) return null;
  const date = new Date(typeof at === "number" ? 1000 * at : at);
  return make("time", { datetime: date.toISOString() }, inWords(at));
}
