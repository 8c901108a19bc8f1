// The page of reviews: a label, who gave it, the draft; one key accepts, a label's key corrects, a comment returns it to its author.
import { loadEditor } from "../editors/load.js";
import { help } from "../parts/help.js";
import { installKeys, keysOf } from "../parts/keys.js";
import { announce, call, make, page, percent, text } from "../parts/page.js";
import { clean, isSame, said, valueOf } from "../parts/value.js";

const AHEAD = 3; // labels held ready behind the one on screen
const SHORT_MS = 3000;
const LEASE_PULSE_MS = 60_000;
const element = (id) => document.getElementById(id);
const buttons = [...element("choices").querySelectorAll("button")];
const state = { item: null, ready: [], judged: new Set(), history: [], isBusy: false, isAsking: false, timer: 0, wanted: page.item };

const desk = { stage: element("stage-body"), side: element("editor-side"), page, isReadOnly: false, changed: drawChoices, save: decide, tell };
const editor = new (await loadEditor(page.editor ?? "choices"))(desk);

function tell(words) {
  element("said").textContent = words;
  announce(words);
}

const mayReturn = (item) => Boolean(item?.author || item?.heard.length);

// ---------------------------------------------------------------- what is asked

async function refill() {
  clearTimeout(state.timer);
  if (state.isAsking) return;
  state.isAsking = true;
  state.judged.clear();
  const atHand = () => [state.item, ...state.ready].filter(Boolean);
  try {
    const holding = atHand().map((item) => item.item_id);
    const body = { n: AHEAD + 1 - holding.length, reason: element("reason").value, holding, ...(state.wanted ? { item_id: state.wanted } : {}) };
    state.wanted = "";
    const reply = await call("POST", `/projects/${page.slug}/reviews/next`, body);
    for (const item of reply.items) {
      const mine = atHand().find((one) => one.item_id === item.item_id); // taken back while this was on its way
      if (mine) mine.lease = item.lease;
      else if (!state.judged.has(item.item_id)) state.ready.push(item);
    }
    const waiting = Object.entries(reply.waiting).reduce((sum, [name, n]) => sum + (name === "back" ? 0 : n), 0);
    element("waiting").textContent = text("waiting_are", { n: waiting });
    if (!state.item) show(state.ready.shift() ?? null);
  } catch (error) {
    element("problem").textContent = error.message;
    if (!state.item) show(null);
  } finally {
    state.isAsking = false;
  }
}

function show(item) {
  state.item = item;
  element("comment").value = "";
  for (const id of ["accept", "return"]) element(id).disabled = !item;
  element("none").disabled = !item;
  element("return").disabled = !mayReturn(item);
  element("empty").hidden = Boolean(item);
  element("stage-body").hidden = element("editor-side").hidden = element("choices").hidden = !item;
  element("tools").hidden = true;
  if (!item) {
    editor.close();
    const words = text("nothing_to_review");
    element("empty").replaceChildren(make("p", {}, words), make("p", {}, make("a", { href: page.project_url }, text("to_project"))));
    for (const id of ["question", "heard", "steps"]) element(id).replaceChildren();
    drawChoices();
    if (element("said").dataset.empty !== words) announce(words);
    element("said").dataset.empty = words;
    state.timer = setTimeout(refill, SHORT_MS);
    return;
  }
  element("said").dataset.empty = "";
  editor.show(item, valueOf(item));
  element("tools").hidden = !editor.picture;
  showQuestion(item);
  drawChoices();
}

function showQuestion(item) {
  const who = item.author ? text("said_by", { who: item.author }) : text("said_by_several");
  const parts = [make("span", { class: "muted" }, who), make("strong", {}, said(item))];
  if (item.agreement != null) parts.push(make("span", { class: "sure" }, text("agreement_is", { share: percent(item.agreement, 0) })));
  const draft = item.draft ? text("draft_is", { label: said(item.draft), sure: percent(item.draft.confidence, 0) }) : text("no_draft");
  const why = text("asked_because", { why: text(`reason_${item.reason}`) });
  element("question").replaceChildren(...parts, make("p", { class: "muted" }, draft), make("p", { class: "muted" }, why));
  element("heard").replaceChildren(...item.heard.map((one) => heardLine(item, one)));
  element("steps").replaceChildren(...item.steps.map((one) => make("li", {}, text(`step_${one.action}`, { who: one.by, labels: said(one), comment: one.comment }))));
  announce(`${who} ${said(item)}. ${draft} ${why}`);
}

/** What one person said; pressed, it is on the stage, to be saved as it is or corrected further. */
function heardLine(item, one) {
  const look = () => {
    editor.show(item, valueOf(one));
    drawChoices();
    tell(text("stands_as", { who: one.by, labels: said(one) }));
  };
  return make("li", {}, make("button", { type: "button", class: "outline secondary small", onclick: look }, make("span", {}, one.by), " ", make("b", {}, said(one))));
}

function drawChoices() {
  const chosen = state.item ? editor.chosen() : new Set();
  for (const button of buttons) {
    button.setAttribute("aria-pressed", String(chosen.has(button.dataset.label)));
    button.disabled = !state.item;
  }
}

// ---------------------------------------------------------------- deciding

/** Enter, or a label's key: accept what was said, or correct it where the value has changed. */
function decide() {
  if (!state.item) return;
  const value = clean(editor.value());
  if (isSame(valueOf(state.item), value)) {
    judge("accept", {}, text("accepted"));
    return;
  }
  const problem = editor.problem();
  if (problem) tell(problem);
  else judge("correct", value, text("corrected"));
}

function giveBack() {
  if (!mayReturn(state.item)) return;
  const comment = element("comment").value.trim();
  const who = state.item.author || state.item.heard.map((one) => one.by).join(", ");
  if (comment) judge("return", { comment }, text("returned", { who }));
  else {
    element("comment").focus();
    tell(text("needs_comment"));
  }
}

async function judge(action, more, words) {
  const item = state.item;
  if (!item || state.isBusy) return;
  state.isBusy = true;
  element("problem").textContent = "";
  try {
    await call("POST", `/projects/${page.slug}/reviews`, { item_id: item.item_id, lease: item.lease, action, ...more });
    state.judged.add(item.item_id);
    if (action !== "return") state.history.push(item);
    tell(words);
  } catch (error) {
    element("problem").textContent = error.message;
    if (error.isRetryable) return;
  } finally {
    state.isBusy = false;
  }
  if (document.activeElement === element("comment")) element("comment").blur();
  show(state.ready.shift() ?? null);
  if (state.ready.length < AHEAD - 1) refill();
}

async function undo() {
  if (state.item && editor.undo()) return;
  const last = state.history.pop();
  if (!last) {
    tell(text("nothing_to_undo"));
    return;
  }
  try {
    await call("POST", `/projects/${page.slug}/reviews`, { item_id: last.item_id, action: "reopen" });
    const reply = await call("POST", `/projects/${page.slug}/reviews/next`, { item_id: last.item_id });
    state.judged.delete(last.item_id);
    state.ready = state.ready.filter((item) => item.item_id !== last.item_id);
    if (state.item) state.ready.unshift(state.item);
    show(reply.items[0]);
    tell(text("reopened"));
  } catch (error) {
    element("problem").textContent = error.message;
  }
}

// ---------------------------------------------------------------- keys and buttons

const actions = {
  accept: decide,
  undo,
  redo: () => state.item && editor.redo?.(),
  skip: giveBack,
  fit: () => editor.picture?.fit(),
  "zoom-in": () => editor.picture?.zoom(1.25),
  "zoom-out": () => editor.picture?.zoom(0.8),
  none: () => state.item && page.has_none && editor.none(),
  choose: (at) => state.item && editor.choose(page.labels[at]),
};
const labelKeys = keysOf(page.labels);
installKeys(actions, labelKeys, () => help.open, (event) => Boolean(state.item) && editor.key(event));
element("editor-keys").replaceChildren(...editor.keys().map(([key, words]) => make("tr", {}, make("th", { scope: "row" }, make("kbd", {}, key)), make("td", {}, words))));
element("comment").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) giveBack();
  if (event.key === "Escape") element("comment").blur();
});
for (const [at, button] of buttons.entries()) {
  button.addEventListener("click", () => state.item && editor.choose(button.dataset.label));
  if (editor.colourOf) button.dataset.k = editor.colourOf(button.dataset.label);
  if (labelKeys[at]) button.append(make("kbd", { "aria-hidden": "true" }, labelKeys[at].toUpperCase()));
}
for (const [id, act] of [["accept", decide], ["return", giveBack], ["undo", undo], ["none", actions.none], ["zoom-in", actions["zoom-in"]], ["zoom-out", actions["zoom-out"]], ["fit", actions.fit]]) element(id).addEventListener("click", act);
element("reason").addEventListener("change", () => {
  state.ready = [];
  show(null);
  refill();
});
addEventListener("resize", () => editor.resize());
setInterval(() => {
  const leases = [state.item, ...state.ready].filter(Boolean).map((item) => item.lease);
  if (leases.length) call("POST", `/projects/${page.slug}/leases`, { leases }).catch(() => {});
}, LEASE_PULSE_MS);
refill();
