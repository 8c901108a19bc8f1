// The labelling page: shows an item with its draft, takes one key to accept and keys to change, never waits for the network.
import { Hand } from "../parts/hand.js";
import { installKeys, keysOf } from "../parts/keys.js";
import { Outbox } from "../parts/outbox.js";
import { announce, AppError, call, make, page, percent, sentence, text } from "../parts/page.js";
import { Picture } from "../parts/picture.js";

const AHEAD = 5; // items held ready behind the one on screen
const LEASE_PULSE_MS = 60_000;
const SHORT_MS = 2000;
const element = (id) => document.getElementById(id);
const buttons = [...element("choices").querySelectorAll("button")];

const state = { item: null, picked: new Set(), history: [], shownAt: 0, picture: null, isAsking: false, isUndoing: false, timer: 0 };
const hand = new Hand(page.slug, page.user);
const outbox = new Outbox(page.slug, page.user, (waiting, problem) => {
  element("saving").textContent = waiting ? text("saving", { n: waiting }) : text("saved");
  element("problem").textContent = problem;
});

/** Say something to everybody: on the page and to screen readers. */
function tell(words) {
  element("said").textContent = words;
  announce(words);
}

// ---------------------------------------------------------------- items

function take(reply) {
  hand.add(reply.items ?? [], state.item);
  if (!state.item) show(hand.next());
  else hand.keep(state.item);
  if (reply.stop) tellStop(reply.stop);
  else if (reply.items?.length) tellStop("");
}

async function refill() {
  clearTimeout(state.timer);
  if (state.isAsking) return;
  state.isAsking = true;
  try {
    const wanted = { n: AHEAD + 1 - hand.ready.length };
    let reply = await call("POST", `/projects/${page.slug}/next`, wanted);
    if (!reply.items.length && !state.item && !outbox.entries.length) reply = await call("POST", `/projects/${page.slug}/next`, { ...wanted, holding: [] });
    take(reply);
  } catch (error) {
    if (!state.item) showEmpty(error.message);
    again();
  } finally {
    state.isAsking = false;
  }
}

function again() {
  clearTimeout(state.timer);
  state.timer = setTimeout(refill, SHORT_MS);
}

function show(item) {
  state.item = item;
  state.shownAt = performance.now();
  state.picture = null;
  hand.keep(item);
  if (!item) {
    showEmpty(text("nothing_left"));
    again();
    return;
  }
  state.picked = new Set(item.draft?.labels ?? []);
  element("stage-body").replaceWith(body(item));
  element("tools").hidden = !item.media;
  if (item.media) state.picture = new Picture(element("stage-body"), item.media, item.name ?? item.item_id);
  showDraft(item.draft);
  drawChoices();
  element("accept").disabled = element("skip").disabled = false;
}

function showEmpty(words) {
  element("stage-body").replaceWith(make("div", { id: "stage-body", class: "empty" }, make("p", {}, words), make("p", {}, make("a", { href: page.project_url }, text("to_project")))));
  element("tools").hidden = true;
  element("accept").disabled = element("skip").disabled = true;
  element("draft").replaceChildren();
  state.picked = new Set();
  drawChoices();
  if (element("said").dataset.empty !== words) announce(words);
  element("said").dataset.empty = words;
}

function body(item) {
  if (item.media) return make("div", { id: "stage-body", class: "picture" });
  if (item.row) {
    const rows = Object.entries(item.row).map(([name, value]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, String(value ?? ""))));
    return make("div", { id: "stage-body", class: "record", tabindex: 0, role: "region", "aria-label": text("item") }, make("table", {}, make("tbody", {}, ...rows)));
  }
  return make("div", { id: "stage-body", class: "words", tabindex: 0, role: "region", "aria-label": text("item") }, make("p", {}, item.text ?? item.link ?? ""));
}

function showDraft(draft) {
  if (!draft) {
    element("draft").replaceChildren(make("span", { class: "muted" }, text("no_draft")));
    announce(text("no_draft"));
    return;
  }
  const labels = draft.labels.join(", ") || text("none");
  const sure = percent(draft.confidence, 0);
  element("draft").replaceChildren(
    make("span", { class: "muted" }, text("draft")),
    make("strong", {}, labels),
    make("span", { class: "sure" }, sure),
    make("progress", { max: 1, value: draft.confidence, "aria-label": text("confidence") }),
  );
  announce(text("draft_is", { label: labels, sure }));
}

function tellStop(words) {
  element("stop").hidden = !words;
  element("stop-text").textContent = sentence(words);
}

// ---------------------------------------------------------------- choosing

function drawChoices() {
  for (const button of buttons) {
    button.setAttribute("aria-pressed", String(state.picked.has(button.dataset.label)));
    button.disabled = !state.item;
  }
}

function choose(label) {
  if (!state.item) return;
  if (page.kind === "multilabel") {
    if (!state.picked.delete(label)) state.picked.add(label);
    drawChoices();
    return;
  }
  state.picked = new Set([label]);
  accept();
}

const isCorrected = (item, labels) => Boolean(item.draft) && [...item.draft.labels].sort().join("\n") !== [...labels].sort().join("\n");

function accept() {
  const item = state.item;
  if (!item) return;
  const labels = page.labels.filter((label) => state.picked.has(label));
  if (page.kind !== "multilabel" && labels.length !== 1) {
    tell(text("choose_first"));
    return;
  }
  const seconds = Math.round((performance.now() - state.shownAt) / 10) / 100;
  state.history.push({ ...item, labels });
  count(1, isCorrected(item, labels) ? 1 : 0);
  element("said").textContent = "";
  const next = Math.max(0, AHEAD + 1 - hand.ready.length);
  outbox.add({ item_id: item.item_id, lease: item.lease, labels, seconds, next }).then(take, (error) => refused(item, labels, error));
  advance();
}

function refused(item, labels, error) {
  state.history = state.history.filter((done) => done.lease !== item.lease);
  count(-1, isCorrected(item, labels) ? -1 : 0);
  tell(text("refused", { item: item.name ?? item.item_id, why: error.message }));
}

function advance() {
  show(hand.next());
  if (!hand.ready.length) refill();
}

function skip() {
  const item = state.item;
  if (!item) return;
  hand.skipped.add(item.item_id);
  call("POST", `/projects/${page.slug}/skip`, { item_id: item.item_id, lease: item.lease }).catch((error) => tell(error.message));
  tell(text("skipped"));
  advance();
}

async function undo() {
  if (state.isUndoing) return;
  const last = state.history.pop();
  if (!last) {
    tell(text("nothing_to_undo"));
    return;
  }
  state.isUndoing = true;
  try {
    await outbox.drained();
    if (!state.item || state.item.item_id !== last.item_id) await withdraw(last);
  } catch (error) {
    tell(error.message);
    if (error instanceof AppError && error.isRetryable) state.history.push(last);
  } finally {
    state.isUndoing = false;
  }
}

async function withdraw(last) {
  const reply = await call("DELETE", `/projects/${page.slug}/annotations/${encodeURIComponent(last.item_id)}`);
  if (state.item) hand.ready.unshift(state.item);
  show({ ...last, ...(reply.item ?? {}) });
  state.picked = new Set(last.labels);
  drawChoices();
  count(-1, isCorrected(last, last.labels) ? -1 : 0);
  tell(text("undone"));
}

function count(labels, corrected) {
  for (const [id, by] of [["count-labels", labels], ["count-corrected", corrected]]) element(id).textContent = String(Number(element(id).textContent) + by);
}

// ---------------------------------------------------------------- keys and buttons

const help = element("help");
const actions = {
  accept,
  undo,
  skip,
  help: () => help.showModal(),
  fit: () => state.picture?.fit(),
  "zoom-in": () => state.picture?.zoom(1.25),
  "zoom-out": () => state.picture?.zoom(0.8),
  move: (x, y) => state.picture?.move(x, y),
  choose: (at) => choose(page.labels[at]),
};
const labelKeys = keysOf(page.labels);
installKeys(actions, labelKeys, () => help.open);
for (const [at, button] of buttons.entries()) {
  button.addEventListener("click", () => choose(button.dataset.label));
  if (labelKeys[at]) button.append(make("kbd", { "aria-hidden": "true" }, labelKeys[at].toUpperCase()));
}
for (const [id, name] of [["accept", "accept"], ["undo", "undo"], ["skip", "skip"], ["zoom-in", "zoom-in"], ["zoom-out", "zoom-out"], ["fit", "fit"], ["help-open", "help"]]) {
  element(id).addEventListener("click", () => actions[name]());
}
for (const button of help.querySelectorAll("[data-close]")) button.addEventListener("click", () => help.close());
addEventListener("resize", () => state.picture?.fit());
setInterval(() => {
  const leases = [state.item, ...hand.ready].filter(Boolean).map((item) => item.lease);
  if (leases.length) call("POST", `/projects/${page.slug}/leases`, { leases }).then((reply) => hand.extend(reply.expires_at, state.item), () => {});
}, LEASE_PULSE_MS);
hand.restore((itemId) => outbox.holds(itemId));
if (hand.ready.length) show(hand.next());
if (hand.ready.length < AHEAD) refill();
