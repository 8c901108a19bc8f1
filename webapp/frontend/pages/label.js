// The labelling page: shows an item with its draft, takes one key to accept and keys to change, never waits for the network.
import { Outbox } from "../parts/outbox.js";
import { announce, AppError, call, make, page, percent, text } from "../parts/page.js";
import { Picture } from "../parts/picture.js";

const AHEAD = 3; // items held ready behind the one on screen
const LEASE_PULSE_MS = 60_000;
const LABEL_KEYS = [..."1234567890qwertyiopgjkl"];
const element = (id) => document.getElementById(id);

const state = { item: null, ready: [], picked: new Set(), history: [], shownAt: 0, picture: null, isAsking: false, isEmpty: false };
const outbox = new Outbox(page.slug, (waiting, problem) => {
  element("saving").textContent = problem || (waiting ? text("saving", { n: waiting }) : text("saved"));
  element("saving").classList.toggle("error-text", Boolean(problem));
});
addEventListener("beforeunload", (event) => {
  if (outbox.entries.length) event.preventDefault();
});

// ---------------------------------------------------------------- items

function take(reply) {
  const known = new Set([state.item?.lease, ...state.ready.map((item) => item.lease)]);
  for (const item of reply.items ?? []) {
    if (known.has(item.lease)) continue;
    state.ready.push(item);
    if (item.media) new Image().src = item.media;
  }
  if (reply.stop !== undefined) tellStop(reply.stop);
}

async function refill() {
  if (state.isAsking) return;
  state.isAsking = true;
  try {
    const reply = await call("POST", `/projects/${page.slug}/next`, { n: AHEAD + 1 - state.ready.length });
    take(reply);
    state.isEmpty = !(reply.items ?? []).length;
    if (!state.item) show(state.ready.shift() ?? null);
  } catch (error) {
    if (!state.item) showEmpty(error.message);
    setTimeout(refill, 2000);
  } finally {
    state.isAsking = false;
  }
}

function show(item) {
  state.item = item;
  state.shownAt = performance.now();
  state.picture = null;
  if (!item) {
    showEmpty(text("nothing_left"));
    setTimeout(refill, 3000);
    return;
  }
  state.picked = new Set(item.draft?.labels ?? []);
  element("stage-body").replaceWith(body(item));
  element("tools").hidden = !item.media;
  if (item.media) state.picture = new Picture(element("stage-body"), item.media, item.item_id);
  showDraft(item);
  drawChoices();
  element("accept").disabled = false;
  announce(item.draft ? text("draft_is", { label: item.draft.labels.join(", "), sure: percent(item.draft.confidence, 0) }) : text("no_draft"));
}

function showEmpty(sentence) {
  element("stage-body").replaceWith(make("div", { id: "stage-body", class: "empty" }, make("p", {}, sentence), make("p", {}, make("a", { href: page.project_url }, text("to_project")))));
  element("tools").hidden = true;
  element("accept").disabled = true;
  element("draft").replaceChildren();
  announce(sentence);
}

function body(item) {
  if (item.media) return make("div", { id: "stage-body", class: "picture" });
  if (item.row) {
    const rows = Object.entries(item.row).map(([name, value]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, String(value))));
    return make("div", { id: "stage-body", class: "record", tabindex: 0, role: "region", "aria-label": text("item") }, make("table", {}, make("tbody", {}, ...rows)));
  }
  return make("div", { id: "stage-body", class: "words", tabindex: 0, role: "region", "aria-label": text("item") }, item.text ?? item.link ?? "");
}

function showDraft(item) {
  const draft = item.draft;
  element("draft").replaceChildren(
    ...(draft
      ? [make("span", { class: "muted" }, `${text("draft")} `), make("strong", {}, draft.labels.join(", ") || text("none")), make("span", { class: "muted" }, ` ${percent(draft.confidence, 0)}`)]
      : [make("span", { class: "muted" }, text("no_draft"))]),
  );
}

function tellStop(sentence) {
  element("stop").hidden = !sentence;
  element("stop-text").textContent = sentence ?? "";
}

// ---------------------------------------------------------------- choosing

function drawChoices() {
  for (const button of element("choices").querySelectorAll("button")) button.setAttribute("aria-pressed", String(state.picked.has(button.dataset.label)));
}

function choose(label) {
  if (!state.item) return;
  if (page.kind === "multilabel") {
    state.picked.has(label) ? state.picked.delete(label) : state.picked.add(label);
    drawChoices();
    return;
  }
  state.picked = new Set([label]);
  drawChoices();
  accept();
}

function accept() {
  const item = state.item;
  if (!item) return;
  const labels = page.labels.filter((label) => state.picked.has(label));
  if (page.kind !== "multilabel" && labels.length !== 1) {
    announce(text("choose_first"));
    element("choices").querySelector("button")?.focus();
    return;
  }
  const seconds = Math.round((performance.now() - state.shownAt) / 10) / 100;
  state.history.push({ ...item, labels });
  outbox.add({ item_id: item.item_id, lease: item.lease, labels, seconds, next: Math.max(0, AHEAD - state.ready.length) }).then(take, (error) => refused(item, error));
  count(1, item.draft && item.draft.labels.join("\n") !== labels.join("\n") ? 1 : 0);
  advance();
}

function refused(item, error) {
  state.history = state.history.filter((done) => done.lease !== item.lease);
  announce(text("refused", { item: item.item_id, why: error.message }));
}

function advance() {
  show(state.ready.shift() ?? null);
  if (state.ready.length < AHEAD) refill();
}

function skip() {
  const item = state.item;
  if (!item) return;
  call("POST", `/projects/${page.slug}/skip`, { item_id: item.item_id, lease: item.lease }).catch((error) => announce(error.message));
  announce(text("skipped"));
  advance();
}

async function undo() {
  const last = state.history.pop();
  if (!last) {
    announce(text("nothing_to_undo"));
    return;
  }
  await outbox.drained();
  try {
    const reply = await call("DELETE", `/projects/${page.slug}/annotations/${encodeURIComponent(last.item_id)}`);
    if (state.item) state.ready.unshift(state.item);
    show({ ...last, ...(reply?.item ?? {}), draft: last.draft });
    state.picked = new Set(last.labels);
    drawChoices();
    count(-1, 0);
    announce(text("undone"));
  } catch (error) {
    announce(error.message);
    if (error instanceof AppError && error.isRetryable) state.history.push(last);
  }
}

function count(labels, corrected) {
  for (const [id, by] of [["count-labels", labels], ["count-corrected", corrected]]) element(id).textContent = String(Number(element(id).textContent) + by);
}

// ---------------------------------------------------------------- keys

const commands = {
  Enter: accept,
  " ": accept,
  u: undo,
  Backspace: undo,
  s: skip,
  f: () => state.picture?.fit(),
  "+": () => state.picture?.zoom(1.25),
  "=": () => state.picture?.zoom(1.25),
  "-": () => state.picture?.zoom(0.8),
  ArrowLeft: () => state.picture?.move(40, 0),
  ArrowRight: () => state.picture?.move(-40, 0),
  ArrowUp: () => state.picture?.move(0, 40),
  ArrowDown: () => state.picture?.move(0, -40),
  "?": () => element("help").showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) {
    if (event.key === "z") event.preventDefault(), undo();
    return;
  }
  const target = event.target;
  if (element("help").open || target.matches("input, select, textarea, a")) return;
  const isButton = target.matches("button, summary");
  if (isButton && (event.key === "Enter" || event.key === " ")) return;
  const at = LABEL_KEYS.indexOf(event.key);
  if (at >= 0 && at < page.labels.length) {
    event.preventDefault();
    if (!event.repeat) choose(page.labels[at]);
    return;
  }
  if (target.closest(".words, .record") && event.key.startsWith("Arrow")) return;
  const command = commands[event.key];
  if (command) {
    event.preventDefault();
    if (!event.repeat || event.key.startsWith("Arrow") || "+-=".includes(event.key)) command();
  }
});

for (const [at, button] of [...element("choices").querySelectorAll("button")].entries()) {
  button.addEventListener("click", () => choose(button.dataset.label));
  if (LABEL_KEYS[at]) button.append(make("kbd", { "aria-hidden": "true" }, LABEL_KEYS[at].toUpperCase()));
}
for (const [id, act] of Object.entries({ accept, undo, skip, "zoom-in": commands["+"], "zoom-out": commands["-"], fit: commands.f, "help-open": commands["?"] })) element(id).addEventListener("click", act);
for (const button of element("help").querySelectorAll("[data-close]")) button.addEventListener("click", () => element("help").close());
addEventListener("resize", () => state.picture?.fit());
setInterval(() => {
  const leases = [state.item, ...state.ready].filter(Boolean).map((item) => item.lease);
  if (leases.length) call("POST", `/projects/${page.slug}/leases`, { leases }).catch(() => {});
}, LEASE_PULSE_MS);
refill();
