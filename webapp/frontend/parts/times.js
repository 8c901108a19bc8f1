// Moments in the reader's own words and time zone, and the zone is always named. The server, which knows no zone, writes UTC.

const STYLE = { year: "numeric", month: "short", day: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", timeZoneName: "short" };
const locale = document.documentElement.lang === "zh" ? "zh-CN" : "en-GB";

/** A moment (seconds since 1970, or ISO 8601) as people read it: 22 Nov 2026, 07:57:49 CET. */
export const inWords = (at) => new Date(typeof at === "number" ? 1000 * at : at).toLocaleString(locale, STYLE);

/** Write the moments that the server wrote in UTC in the reader's zone. */
export function retell() {
  for (const time of document.querySelectorAll("time[data-moment]")) time.textContent = inWords(time.dateTime);
}
