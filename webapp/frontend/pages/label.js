// The labelling page: shows an item with its draft, takes one key to accept and keys to change, never waits for the network.
import { loadEditor } from "../editors/load.js";
import { Hand } from "../parts/hand.js";
import { help } from "../parts/help.js";
import { installKeys, keysOf } from "../parts/keys.js";
import { Outbox, showWaiting } from "../parts/outbox.js";
import { announce, AppError, call, make, page, percent, sentence, text } from "../parts/page.js";
import { clean, isSame, said, valueOf } from "../parts/value.js";

const AHEAD = 5; // items held ready behind the one on screen
const LEASE_PULSE_MS = 60_000;
const SHORT_MS = 2000;
const MEASURE_MS = 2000;
const element = (id) => document.getElementById(id);
const buttons = [...element("choices").querySelectorAll("button")];

const state = { item: null, history: [], shownAt: 0, isAsking: false, isUndoing: false, timer: 0 };
const hand = new Hand(page.is_review ? `${page.slug}/review` : page.slug, page.user);
const outbox = new Outbox(page.slug, page.user, (waiting, problem, entries) => {
  element("saving").textContent = waiting ? text("saving", { n: waiting }) : text("saved");
  element("problem").textContent = problem;
  showWaiting(element("waiting"), problem ? entries : []);
});

const desk = { stage: element("stage-body"), side: element("editor-side"), page, isReadOnly: false, changed: drawChoices, save: accept, tell };
const editor = new (await loadEditor(page.editor ?? "choices"))(desk);

/** Say something to everybody: on the page and to screen readers. */
function tell(words) {
  element("said").textContent = words;
  announce(words);
}

// ---------------------------------------------------------------- items

const source = page.is_review ? `/projects/${page.slug}/rules/review` : `/projects/${page.slug}/next`;

/** In a review: which labels of rules are to come. */
function chosenOrder() {
  if (!page.is_review) return {};
  const option = element("review-by").selectedOptions[0];
  return { by: option.value, rule: option.dataset.rule ?? "" };
}

/** Give back what was fetched in another order and fetch anew. */
function reorder() {
  for (const { lease, item_id } of [state.item, ...hand.ready].filter(Boolean)) call("POST", `/projects/${page.slug}/skip`, { item_id, lease }).catch(() => {});
  hand.ready = [];
  show(null);
  refill();
}

async function showMeasured() {
  try {
    const { measured, rule_labels: left } = await call("GET", `/projects/${page.slug}/rules/state`);
    element("review-measured").textContent = text("review_is", { left, wrong: measured.wrong, n: measured.checked });
  } catch {
    // the next look comes soon, and the answers' own line says what is wrong
  }
}

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
    const order = chosenOrder();
    let reply = await call("POST", source, { ...wanted, ...order });
    if (!reply.items.length && !state.item && !outbox.entries.length) reply = await call("POST", source, { ...wanted, ...order, holding: [] });
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

function show(item, value = valueOf(item?.returned ?? item?.draft)) {
  state.item = item;
  state.shownAt = performance.now();
  hand.keep(item);
  if (!item) {
    showEmpty(text("nothing_left"));
    again();
    return;
  }
  element("empty").hidden = true;
  element("stage-body").hidden = element("editor-side").hidden = element("choices").hidden = false;
  editor.show(item, value);
  element("tools").hidden = !editor.picture;
  showDraft(item.draft);
  showReturned(item.returned);
  showVotes(item.votes ?? []);
  drawChoices();
  for (const id of ["accept", "skip", "none"]) element(id).disabled = false;
}

function showEmpty(words) {
  editor.close();
  for (const id of ["stage-body", "editor-side", "choices", "tools"]) element(id).hidden = true;
  element("empty").replaceChildren(make("p", {}, words), make("p", {}, make("a", { href: page.project_url }, text("to_project"))));
  element("empty").hidden = false;
  for (const id of ["accept", "skip", "none"]) element(id).disabled = true;
  element("draft").replaceChildren();
  showReturned(null);
  showVotes([]);
  drawChoices();
  if (element("said").dataset.empty !== words) announce(words);
  element("said").dataset.empty = words;
}

function showDraft(draft) {
  if (!draft) {
    element("draft").replaceChildren(make("span", { class: "muted" }, text("no_draft")));
    announce(text("no_draft"));
    return;
  }
  const labels = said(draft);
  const sure = percent(draft.confidence, 0);
  element("draft").replaceChildren(
    make("span", { class: "muted" }, text("draft")),
    make("strong", {}, labels),
    make("span", { class: "sure" }, sure),
    make("progress", { max: 1, value: draft.confidence, "aria-label": text("confidence") }),
  );
  announce(text("draft_is", { label: labels, sure }));
}

/** Why a reviewer sent this item back, if one did. */
function showReturned(note) {
  element("returned").hidden = !note;
  element("returned").textContent = note ? text("returned_is", { who: note.by, labels: said(note), comment: note.comment }) : "";
  if (note) announce(element("returned").textContent);
}

function showVotes(votes) {
  element("rule-votes")?.replaceChildren(...votes.map((vote) => make("li", {}, make("span", {}, vote.rule), " ", make("b", {}, vote.label))));
}

function tellStop(words) {
  element("stop").hidden = !words;
  element("stop-text").textContent = sentence(words);
}

// ---------------------------------------------------------------- choosing

function drawChoices() {
  const chosen = state.item ? editor.chosen() : new Set();
  for (const button of buttons) {
    button.setAttribute("aria-pressed", String(chosen.has(button.dataset.label)));
    button.disabled = !state.item;
  }
}

const isCorrected = (item, value) => Boolean(item.draft) && !isSame(valueOf(item.draft), value);

function accept() {
  const item = state.item;
  if (!item) return;
  const problem = editor.problem();
  if (problem) {
    tell(problem);
    return;
  }
  const value = clean(editor.value());
  const seconds = Math.round((performance.now() - state.shownAt) / 10) / 100;
  state.history.push({ ...item, said: value });
  count(1, isCorrected(item, value) ? 1 : 0);
  element("said").textContent = "";
  const next = page.is_review ? 0 : Math.max(0, AHEAD + 1 - hand.ready.length);
  outbox.add({ item_id: item.item_id, lease: item.lease, ...value, seconds, next }).then(take, (error) => refused(item, value, error));
  editor.saved?.(item);
  advance();
}

function refused(item, value, error) {
  state.history = state.history.filter((done) => done.lease !== item.lease);
  count(-1, isCorrected(item, value) ? -1 : 0);
  tell(text("refused", { item: item.name ?? item.item_id, why: error.message }));
}

function advance() {
  show(hand.next());
  if (hand.ready.length < (page.is_review ? AHEAD - 2 : 1)) refill();
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
  if (state.isUndoing || (state.item && editor.undo())) return;
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
  show({ ...last, ...(reply.item ?? {}), ...(page.is_review ? { draft: last.draft } : {}) }, valueOf(last.said));
  count(-1, isCorrected(last, last.said) ? -1 : 0);
  tell(text("undone"));
}

function count(labels, corrected) {
  for (const [id, by] of [["count-labels", labels], ["count-corrected", corrected]]) element(id).textContent = String(Number(element(id).textContent) + by);
}

// ---------------------------------------------------------------- keys and buttons

const actions = {
  accept,
  undo,
  redo: () => state.item && editor.redo?.(),
  skip,
  fit: () => editor.picture?.fit(),
  "zoom-in": () => editor.picture?.zoom(1.25),
  "zoom-out": () => editor.picture?.zoom(0.8),
  none: () => state.item && page.has_none && editor.none(),
  choose: (at) => state.item && editor.choose(page.labels[at]),
};
const labelKeys = keysOf(page.labels);
installKeys(actions, labelKeys, () => help.open, (event) => Boolean(state.item) && editor.key(event));
element("editor-keys").replaceChildren(...editor.keys().map(([key, words]) => make("tr", {}, make("th", { scope: "row" }, make("kbd", {}, key)), make("td", {}, words))));
for (const [at, button] of buttons.entries()) {
  button.addEventListener("click", () => state.item && editor.choose(button.dataset.label));
  if (editor.colourOf) button.dataset.k = editor.colourOf(button.dataset.label);
  if (labelKeys[at]) button.append(make("kbd", { "aria-hidden": "true" }, labelKeys[at].toUpperCase()));
}
for (const [id, name] of [["accept", "accept"], ["undo", "undo"], ["skip", "skip"], ["none", "none"], ["zoom-in", "zoom-in"], ["zoom-out", "zoom-out"], ["fit", "fit"]]) {
  element(id).addEventListener("click", () => actions[name]());
}
if (page.is_review) {
  element("review-by").addEventListener("change", reorder);
  setInterval(showMeasured, MEASURE_MS);
  showMeasured();
}
addEventListener("resize", () => editor.resize());
setInterval(() => {
  const leases = [state.item, ...hand.ready].filter(Boolean).map((item) => item.lease);
  if (leases.length) call("POST", `/projects/${page.slug}/leases`, { leases }).then((reply) => hand.extend(reply.expires_at, state.item), () => {});
}, LEASE_PULSE_MS);
await outbox.opened;
hand.restore((itemId) => outbox.holds(itemId));
if (hand.ready.length) show(hand.next());
if (hand.ready.length < AHEAD) refill();
