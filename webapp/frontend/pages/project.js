// The live project page: progress, curve, corrections, version, training now, next training and why.
import uPlot from "uplot";
import "../parts/help.js";
import { bars, byVersion, duration, per100, secondsEach } from "../parts/outlook.js";
import { announce, AppError, call, figure, make, page, percent, sentence, text } from "../parts/page.js";

const LOOK_MS = 1000;
const HIDDEN_LOOK_MS = 10_000;
const element = (id) => document.getElementById(id);
const charts = new Map();
let last = "";
let now = {};
let lostAt = 0;
const LOST_MS = 5000;

/** A colour of the style sheet as #rrggbb, so that a share of it can be laid over the grid. */
function hex(name) {
  const context = document.createElement("canvas").getContext("2d");
  context.fillStyle = name;
  return context.fillStyle;
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim() || "#888";
}

/** Draw `series` ([label, colour, values]) over `xs` in the box `id`, or its words where there is nothing yet. */
function draw(id, xs, series, { unit = (value) => value, x = "", ticks: names, right, bands } = {}) {
  const box = element(id);
  const data = [xs, ...series.map(([, , values]) => values)];
  const key = JSON.stringify(data);
  if (charts.get(id)?.key === key) return;
  charts.get(id)?.plot.destroy();
  charts.delete(id);
  box.querySelector(".empty-chart").hidden = xs.length > 0;
  if (!xs.length) return;
  const axis = { stroke: colour("--pico-color"), grid: { stroke: colour("--pico-muted-border-color"), width: 1 } };
  const plot = new uPlot(
    {
      width: box.clientWidth - 20,
      height: 190,
      scales: { x: { time: false }, ...(right ? { right: {} } : {}) },
      axes: [
        names ? { ...axis, splits: () => xs, values: (_, splits) => splits.map((at) => names[xs.indexOf(at)] ?? "") } : axis,
        { ...axis, values: (_, ticks) => ticks.map(unit), size: 56 },
        ...(right ? [{ ...axis, scale: "right", side: 1, grid: { show: false }, values: (_, ticks) => ticks.map(right), size: 56 }] : []),
      ],
      bands,
      series: [{ label: x }, ...series.map(([label, stroke, , more]) => ({ label, stroke, width: 2, points: { show: xs.length < 40 }, value: (_, value) => (value == null ? "–" : unit(value)), ...more }))],
    },
    data,
    box.querySelector(".plot"),
  );
  charts.set(id, { plot, key });
}

const set = (id, value) => {
  if (element(id) && element(id).textContent !== String(value)) element(id).textContent = String(value);
};

function showRun(run) {
  const isLive = run && ["queued", "running"].includes(run.state);
  element("run").hidden = !isLive;
  if (!isLive) return;
  set("run-name", text("run_is", { run: run.run, algorithm: run.algorithm, labels: run.labels }));
  const bar = element("run-bar");
  bar.max = Math.max(1, run.steps);
  bar.value = run.step;
  const left = run.step > 0 && run.seconds > 0 ? text("run_left", { time: duration((run.seconds * (run.steps - run.step)) / run.step) }) : "";
  set("run-loss", [run.loss == null ? "" : text("loss_is", { loss: run.loss.toPrecision(3) }), left].filter(Boolean).join(" · "));
  if (element("run-cancel")) element("run-cancel").dataset.run = run.run;
}

function showVersions(versions) {
  const shares = new Map((now.corrections_by_version ?? []).map((one) => [one.version, one]));
  const rows = versions.map((version) =>
    make(
      "tr",
      {},
      make("th", { scope: "row" }, version.version, version.is_serving ? make("mark", {}, text("serving")) : null),
      make("td", {}, String(version.labels)),
      make("td", {}, version.accuracy == null ? "–" : percent(version.accuracy)),
      make("td", {}, per100(shares.get(version.version))),
      make("td", {}, secondsEach(shares.get(version.version))),
      make("td", {}, version.algorithm),
      make("td", {}, sentence(version.reason)),
      make("td", {}, page.may_manage && !version.is_serving ? make("button", { type: "button", class: "outline", "data-promote": version.version, "aria-label": text("promote_this", { version: version.version }) }, text("promote")) : ""),
    ),
  );
  element("versions").replaceChildren(...rows);
  element("versions-empty").hidden = rows.length > 0;
}

function show(status) {
  now = status;
  set("draft-agreement", status.agreement == null ? "–" : percent(status.agreement));
  set("pace", status.labels_per_hour == null ? "–" : figure(Math.round(status.labels_per_hour)));
  set("eta", status.left_s == null ? "–" : duration(status.left_s));
  element("people-agreement-fact").hidden = status.people_agreement == null;
  if (status.people_agreement != null) set("people-agreement", status.people_agreement.toFixed(2));
  element("work").hidden = !status.work;
  if (status.work) {
    set("work-text", status.work.kind === "copy" ? text("copying") : text("relabelling"));
    element("work-bar").value = status.work.share;
  }
  bars(element("spread-list"), status.spread ?? []);
  element("spread-empty").hidden = (status.spread ?? []).some(([, n]) => n > 0);
  if (element("no-items")) element("no-items").hidden = status.items > 0;
  set("labels", figure(status.labels));
  set("rule-labels", figure(status.rule_labels));
  set("items", figure(status.items));
  set("progress-text", percent(status.items ? status.labels / status.items : 0, 0));
  element("progress").value = status.items ? status.labels / status.items : 0;
  set("drafted", figure(status.drafted));
  set("corrected", figure(status.corrected));
  set("version", status.serving || text("none_yet"));
  set("accuracy", status.accuracy == null ? "–" : percent(status.accuracy));
  set("next-training", sentence(status.next_training) || "–");
  set("comparer", sentence(status.comparer));
  set("outbox", figure(status.outbox));
  set("ordered-by", status.ordered_by || text("none_yet"));
  set("ordering", status.ordering ? `(${sentence(status.ordering)})` : "");
  element("order-problem").hidden = !status.ordering_problem;
  set("order-problem-text", sentence(status.ordering_problem));
  element("stop").hidden = !status.stop;
  set("stop-text", sentence(status.stop));
  element("trouble").hidden = !status.trouble;
  set("trouble-text", sentence(status.trouble));
  showFailed(status.failed ?? []);
  showRun(status.run);
  const curve = status.curve ?? [];
  const bounds = status.curve_bounds ?? [];
  const faint = { width: 0, points: { show: false } };
  const lines = [[text("accuracy"), colour("--pico-primary"), curve.map(([, accuracy]) => accuracy)]];
  if (bounds.some(Boolean)) {
    lines.push([text("upper_bound"), colour("--pico-primary"), bounds.map((pair) => pair?.[1] ?? null), faint]);
    lines.push([text("lower_bound"), colour("--pico-primary"), bounds.map((pair) => pair?.[0] ?? null), faint]);
  }
  if (status.chance != null) lines.push([text("guessing"), colour("--pico-muted-color"), curve.map(() => status.chance), { dash: [6, 4], points: { show: false } }]);
  const bands = bounds.some(Boolean) ? [{ series: [2, 3], fill: `${hex(colour("--pico-primary"))}22` }] : undefined;
  draw("curve", curve.map(([labels]) => labels), lines, { unit: (value) => percent(value, 0), x: text("labels"), bands });
  const versions = byVersion(status.corrections_by_version ?? []);
  draw("by-version", versions.xs, [[text("corrections_per_100"), colour("--warn"), versions.corrections], [text("seconds_per_item"), colour("--pico-primary"), versions.seconds, { scale: "right", dash: [6, 4] }]], { unit: (value) => value.toFixed(0), right: (value) => text("seconds_are", { n: value.toFixed(1) }), x: text("version"), ticks: versions.names });
  const corrections = status.corrections_per_100 ?? [];
  draw("corrections", corrections.map((_, at) => Math.min((at + 1) * 100, status.drafted)), [[text("corrections"), colour("--warn"), corrections]], { unit: (value) => value.toFixed(0), x: text("drafted_labels") });
  const losses = status.run?.losses ?? [];
  draw("losses", losses.map(([step]) => step), [[text("loss"), colour("--pico-primary"), losses.map(([, loss]) => loss)]], { unit: (value) => value.toPrecision(3), x: text("step") });
}

function showFailed(failed) {
  element("failed").hidden = !failed.length;
  element("failed-list").replaceChildren(...failed.map((one) => make("li", {}, `${one.item_id}: ${sentence(one.reason)}`)));
}

async function take(status) {
  show(status);
  const key = JSON.stringify([status.serving, status.pointer, status.runs_seen, (status.curve ?? []).length, status.corrections_by_version]);
  if (key === last) return;
  last = key;
  showVersions((await call("GET", `/projects/${page.slug}/versions`)).versions);
}

async function look() {
  try {
    await take(await call("GET", `/projects/${page.slug}/status`));
  } catch (error) {
    complain(error);
  }
}

function complain(error) {
  if (!(error instanceof AppError)) throw error;
  last = "";
  element("trouble").hidden = false;
  set("trouble-text", error.message);
}

// The status comes as server-sent events; while there is no stream (between two, or all are taken) the page asks.
let stream = null;
function listen() {
  stream = new EventSource(`/api/v1/projects/${page.slug}/events?after=-1`);
  stream.addEventListener("status", (event) => take(JSON.parse(event.data)).catch(complain));
}

async function follow() {
  if (document.hidden) {
    stream?.close();
    stream = null;
  } else if (!stream || stream.readyState === EventSource.CLOSED) {
    listen();
  }
  const isOpen = document.hidden || stream.readyState === EventSource.OPEN;
  lostAt = isOpen ? 0 : lostAt || Date.now();
  element("connection").hidden = !lostAt || Date.now() - lostAt < LOST_MS;
  if (!isOpen) await look();
  setTimeout(follow, document.hidden ? HIDDEN_LOOK_MS : LOOK_MS);
}

async function act(path, body) {
  try {
    const reply = await call("POST", `/projects/${page.slug}/${path}`, body ?? {});
    announce(sentence(reply.reason) || text("done"));
    set("said", sentence(reply.reason) || text("done"));
  } catch (error) {
    announce(error.message);
    set("said", error.message);
  }
  last = "";
  look();
}

element("train-now")?.addEventListener("click", () => act("train"));
element("rollback")?.addEventListener("click", () => act("rollback"));
element("resend")?.addEventListener("click", () => act("resend"));
element("run-cancel")?.addEventListener("click", (event) => act("cancel", { run: Number(event.target.dataset.run) }));
element("versions").addEventListener("click", (event) => {
  const version = event.target.dataset?.promote;
  if (version) act("promote", { version });
});
const redraw = () => {
  charts.forEach(({ plot }) => plot.destroy());
  charts.clear();
  if (now.slug) show(now);
};
let resized = 0;
addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(redraw, 150);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
addEventListener("pagehide", () => stream?.close());
look().then(follow);
