// Figures of the status page: time in words, corrections and seconds by version, bars of the labels' spread.
import { make, text } from "./page.js";

/** Seconds as people say them, in two units at most. */
export function duration(seconds) {
  const minutes = Math.round(seconds / 60);
  if (seconds < 90) return text("seconds_are", { n: Math.max(1, Math.round(seconds)) });
  if (minutes < 90) return text("minutes_are", { n: minutes });
  if (minutes < 48 * 60) return text("hours_are", { n: Math.floor(minutes / 60), rest: minutes % 60 });
  return text("days_are", { n: Math.round(minutes / 1440) });
}

const share = (one) => (one?.drafted ? (100 * one.corrected) / one.drafted : null);
const each = (one) => (one?.timed ? one.seconds / one.timed : null);

export const per100 = (one) => share(one)?.toFixed(1) ?? "–";
export const secondsEach = (one) => each(one)?.toFixed(1) ?? "–";

/** Points by version, oldest first; labels without a draft stand before the first version. */
export function byVersion(shares) {
  const shown = shares.filter((one) => share(one) != null || each(one) != null);
  let number = 0;
  return {
    xs: shown.map((_, at) => at),
    names: shown.map((one) => (one.version ? String((number += 1)) : text("no_version"))),
    corrections: shown.map(share),
    seconds: shown.map(each),
  };
}

/** Draw one bar a label into a list, when they changed. */
export function bars(list, spread) {
  const key = JSON.stringify(spread);
  if (list.dataset.key === key) return;
  list.dataset.key = key;
  const most = Math.max(1, ...spread.map(([, n]) => n));
  const all = spread.reduce((sum, [, n]) => sum + n, 0);
  list.replaceChildren(
    ...(all ? spread : []).map(([label, n]) =>
      make("li", {}, make("span", {}, label), make("progress", { max: most, value: n, "aria-label": `${label}: ${n}` }), make("span", { class: "muted" }, `${n} · ${((100 * n) / all).toFixed(0)} %`)),
    ),
  );
}
