// The page of quality: agreement, people, differences, drafts accepted in bulk, how people work together.
import "../parts/help.js";
import { announce, call, make, page, percent, sentence, text } from "../parts/page.js";

const element = (id) => document.getElementById(id);
const place = `/projects/${page.slug}`;
const JOB_MS = 700;
const state = { after: -1, timer: 0 };
const number = (value, digits = 2) => (value == null ? text("no_value") : value.toFixed(digits));
const share = (value) => (value == null ? text("no_value") : percent(value, 0));
const cells = (...values) => values.map((value) => make("td", {}, String(value)));
const row = (head, ...values) => make("tr", {}, make("th", { scope: "row" }, head), ...cells(...values));

// ---------------------------------------------------------------- figures

async function showQuality() {
  try {
    const { agreement, people, waiting } = await call("GET", `${place}/quality`);
    const n = Object.entries(waiting).reduce((sum, [name, count]) => sum + (name === "back" ? 0 : count), 0);
    element("waiting").textContent = n ? `(${n})` : "";
    showAgreement(agreement);
    element("people").replaceChildren(...people.map(personRow));
    if (!people.length) element("people").replaceChildren(make("tr", {}, make("td", { colspan: 9 }, text("nobody_yet"))));
  } catch (error) {
    element("problem").textContent = error.message;
  }
}

function showAgreement(found) {
  element("fact-items").textContent = String(found.items);
  for (const [id, value] of [["share", share(found.share)], ["alpha", number(found.alpha)], ["fleiss", number(found.fleiss)], ["iou", number(found.iou)], ["f1", number(found.f1)], ["exact", number(found.exact_f1)]]) element(`fact-${id}`).textContent = value;
  for (const part of document.querySelectorAll(".of-marks")) part.hidden = found.f1 == null;
  for (const part of document.querySelectorAll(".of-spans")) part.hidden = found.exact_f1 == null;
  element("no-pairs").hidden = found.items > 0;
  element("agreement-tables").hidden = !found.items;
  element("no-pairs").textContent = text("no_pairs");
  element("by-class").replaceChildren(...found.by_class.map((one) => row(one.label || text("none"), number(one.alpha), number(one.f1))));
  element("by-pair").replaceChildren(...found.pairs.map((one) => row(`${one.a} · ${one.b}`, one.items, share(one.share), number(one.cohen), number(one.iou), number(one.f1))));
}

function personRow(one) {
  const part = (right, all) => (all ? `${share(right / all)} (${right}/${all})` : text("no_value"));
  return row(one.name, one.labels, one.per_day, number(one.seconds, 1), part(one.gold_right, one.gold), part(one.agreed, one.decided), one.accepted, one.corrected, one.returned);
}

// ---------------------------------------------------------------- differences

async function showDifferences(isMore) {
  const between = element("between").value;
  if (!isMore) state.after = -1;
  try {
    const least = between === "model" ? element("least").value || 0 : 0;
    const found = await call("GET", `${place}/differences?between=${between}&least_confidence=${least}&after=${state.after}&limit=20`);
    const lines = found.items.map((item) => differenceLine(item));
    if (isMore) element("differences").append(...lines);
    else element("differences").replaceChildren(...(lines.length ? lines : [make("li", { class: "muted" }, text("no_differences"))]));
    state.after = found.after ?? -1;
    element("more").hidden = found.after == null;
  } catch (error) {
    element("problem").textContent = error.message;
  }
}

function differenceLine(item) {
  const name = item.name ?? item.item_id;
  const said = (item.heard ?? [{ by: item.by, labels: item.labels }]).map((one) => text("person_says", { who: one.by, labels: one.labels.join(", ") || text("none") }));
  const draft = item.draft ? [text("draft_says", { labels: item.draft.labels.join(", "), sure: percent(item.draft.confidence, 0) })] : [];
  const shown = item.text ?? (item.row ? Object.values(item.row).join(" · ") : name);
  const link = make("a", { href: `${page.reviews_url}?item=${encodeURIComponent(item.item_id)}` }, text("open_item", { item: name }));
  const picture = item.media ? make("img", { src: item.media, alt: "" }) : null;
  return make("li", { class: "example" }, picture, make("span", { class: "words" }, shown.length > 200 ? `${shown.slice(0, 200)}…` : shown), make("span", {}, [...said, ...draft].join(" · ")), link);
}

// ---------------------------------------------------------------- drafts accepted in bulk

async function showJobs() {
  clearTimeout(state.timer);
  try {
    const { jobs } = await call("GET", `${place}/bulk`);
    element("bulk-jobs").replaceChildren(...jobs.map(jobLine));
    const isLive = jobs.some((job) => ["waiting", "running", "undoing"].includes(job.state));
    if (isLive) state.timer = setTimeout(showJobs, JOB_MS);
  } catch (error) {
    element("bulk-problem").textContent = error.message;
  }
}

function jobLine(job) {
  const isLive = ["waiting", "running"].includes(job.state);
  const what = text("bulk_is", { least: percent(job.least_confidence, 0), accepted: job.accepted });
  const back = job.withdrawn ? ` · ${text("bulk_taken_back", { n: job.withdrawn })}` : "";
  const turn = (words, path) => make("button", { type: "button", class: "outline small", onclick: () => turnJob(path, job.id) }, words);
  const button = isLive ? turn(text("cancel"), "cancel") : ["done", "cancelled", "failed"].includes(job.state) && job.accepted ? turn(text("take_back"), "undo") : null;
  const bar = isLive || job.state === "undoing" ? make("progress", { max: 1, value: job.share, "aria-label": what }) : null;
  return make("li", { "data-job": job.id }, make("div", { class: "row spread" }, make("span", {}, `${text(`bulk_${job.state}`)}: ${what}${back}`), button), bar, auditLine(job.error), job.reason ? make("p", { class: "muted" }, sentence(job.reason)) : null);
}

function auditLine(error) {
  if (!error.drawn) return null;
  if (!error.looked) return make("p", { class: "muted" }, text("audit_waits", error));
  const rounded = { share: percent(error.share), low: percent(error.low), high: percent(error.high) };
  return make("p", { class: "audit" }, text("audit_is", { ...error, ...rounded }));
}

async function turnJob(path, id) {
  element("bulk-problem").textContent = "";
  try {
    await call("POST", `${place}/bulk/${path}`, { id });
  } catch (error) {
    element("bulk-problem").textContent = error.message;
  }
  showJobs();
}

async function acceptDrafts(event) {
  event.preventDefault();
  element("bulk-problem").textContent = "";
  try {
    await call("POST", `${place}/bulk`, { least_confidence: Number(element("bulk-least").value), audit: Number(element("bulk-audit").value) });
  } catch (error) {
    element("bulk-problem").textContent = error.message;
  }
  showJobs();
}

// ---------------------------------------------------------------- how people work

async function saveWork(event) {
  event.preventDefault();
  const fields = [...element("work").elements].filter((field) => field.name);
  element("work-problem").textContent = element("work-said").textContent = "";
  try {
    await call("PUT", `${place}/work`, Object.fromEntries(fields.map((field) => [field.name, field.type === "number" ? Number(field.value) : field.value])));
    element("work-said").textContent = text("saved");
    announce(text("saved"));
  } catch (error) {
    element("work-problem").textContent = error.message;
  }
}

async function markGold(event) {
  event.preventDefault();
  const item_ids = element("gold-items").value.split(/[\s,]+/).filter(Boolean);
  try {
    const { changed, total } = await call("POST", `${place}/gold`, { item_ids });
    element("gold-said").textContent = text("gold_is", { changed, total });
  } catch (error) {
    element("gold-said").textContent = error.message;
  }
}

element("between").addEventListener("change", () => showDifferences(false));
element("least").addEventListener("change", () => showDifferences(false));
element("more").addEventListener("click", () => showDifferences(true));
element("bulk")?.addEventListener("submit", acceptDrafts);
element("work")?.addEventListener("submit", saveWork);
element("gold")?.addEventListener("submit", markGold);
showQuality();
showDifferences(false);
if (page.may_manage) showJobs();
