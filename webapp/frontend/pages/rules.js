// The page of rules: every edit is saved and tried out a moment later; an answer that is not the newest is thrown away. Whatever the
// cluster or the network does, what was typed stays: in the app, and until it is there in the browser.
import "../parts/help.js";
import { announce, AppError, call, make, page, percent, sentence, text } from "../parts/page.js";
import { exampleOf, kindsHere, RuleCard } from "../parts/rule_card.js";
import { KINDS } from "../parts/rule_form.js";

const PREVIEW_MS = 300;
const SAVE_MS = 700;
const AGAIN_MS = 3000;
const element = (id) => document.getElementById(id);
const path = `/projects/${page.slug}/rules`;
const kept = `labelloop.rules.${page.user}.${page.slug}`;

const set = { ...page.rule_set };
const state = { cards: [], asked: 0, changes: 0, savedChanges: 0, isSaving: false, previewTimer: 0, saveTimer: 0, lookTimer: 0, measured: new Map(), answer: null, job: null };

// ---------------------------------------------------------------- editing

function drawRules() {
  state.cards = set.rules.map((rule) => cardOf(rule));
  element("rules").replaceChildren(...state.cards.map((card) => card.node));
  element("rules-empty").hidden = set.rules.length > 0;
}

function cardOf(rule) {
  const card = new RuleCard(rule, changed, () => {
    const at = state.cards.indexOf(card);
    set.rules.splice(at, 1);
    state.cards.splice(at, 1);
    card.node.remove();
    element("rules-empty").hidden = set.rules.length > 0;
    (state.cards[Math.min(at, state.cards.length - 1)]?.name ?? element("add")).focus();
    changed();
  });
  return card;
}

function add() {
  const kind = element("new-kind").value;
  const names = new Set(set.rules.map((rule) => rule.name));
  let at = set.rules.length + 1;
  while (names.has(`${kind} ${at}`)) at += 1;
  const rule = { kind, name: `${kind} ${at}`, ...KINDS[kind].fresh() };
  set.rules.push(rule);
  const card = cardOf(rule);
  state.cards.push(card);
  element("rules").append(card.node);
  element("rules-empty").hidden = true;
  card.name.focus();
  card.name.select();
  changed();
}

function changed() {
  state.changes += 1;
  keep();
  element("saved").textContent = text("saving_rules");
  clearTimeout(state.previewTimer);
  clearTimeout(state.saveTimer);
  state.previewTimer = setTimeout(preview, PREVIEW_MS);
  state.saveTimer = setTimeout(save, SAVE_MS);
  if (document.activeElement !== element("raw")) element("raw").value = JSON.stringify(set.rules, null, 1);
}

const keep = () => localStorage.setItem(kept, JSON.stringify(set));

/** Save what is on the page; resolves when all of it is in the app. Throws AppError. */
async function save() {
  clearTimeout(state.saveTimer);
  while (state.isSaving) await new Promise((done) => setTimeout(done, 20));
  if (state.savedChanges === state.changes) return;
  const now = state.changes;
  state.isSaving = true;
  try {
    const { revision, rules, least_confidence, method } = set;
    set.revision = (await call("PUT", path, { revision, rules, least_confidence, method })).revision;
    state.savedChanges = now;
    if (now === state.changes) {
      localStorage.removeItem(kept);
      element("saved").textContent = text("rules_saved");
    } else keep();
    tellSaving("");
  } catch (error) {
    tellSaving(error.message);
    if (error instanceof AppError && error.isRetryable) state.saveTimer = setTimeout(() => save().catch(() => {}), AGAIN_MS);
    throw error;
  } finally {
    state.isSaving = false;
  }
}

function tellSaving(words) {
  if (words && element("save-problem").textContent !== words) element("saved").textContent = "";
  element("save-problem").textContent = words;
}

// ---------------------------------------------------------------- preview

async function preview() {
  clearTimeout(state.previewTimer);
  const asked = (state.asked += 1);
  element("preview").setAttribute("aria-busy", "true");
  try {
    const answer = await call("POST", `${path}/preview`, { rules: set.rules, method: set.method });
    if (asked !== state.asked) return;
    tell("");
    state.answer = answer;
    draw();
    announce(text("covered_is", { share: percent(answer.coverage) }));
  } catch (error) {
    if (asked !== state.asked) return;
    tell(error.message);
    if (error instanceof AppError && error.isRetryable) state.previewTimer = setTimeout(preview, AGAIN_MS);
  }
  if (asked === state.asked) element("preview").removeAttribute("aria-busy");
}

function tell(words) {
  element("trouble").hidden = !words;
  if (element("trouble-text").textContent !== words) element("trouble-text").textContent = words;
}

function draw() {
  const answer = state.answer;
  for (const [at, card] of state.cards.entries()) card.show(answer?.rules[at] ?? null, answer?.items ?? {}, state.measured.get(card.rule.name));
  if (!answer) return;
  const values = { coverage: percent(answer.coverage), overlap: percent(answer.overlap), conflict: percent(answer.conflict), sample: text("sample_is", { n: answer.n_items, known: answer.n_known }) };
  for (const [id, value] of Object.entries(values)) element(`total-${id}`).textContent = value;
  element("method-why").textContent = answer.rules.some((one) => one.view) ? `${answer.method}: ${sentence(answer.reason)}` : "";
  element("unread").textContent = answer.failed ? text("unread_is", { n: answer.failed, why: sentence(answer.failed_reason) }) : "";
  element("uncovered").replaceChildren(...answer.uncovered.map((at) => exampleOf(answer.items[at], "")));
  element("uncovered-box").hidden = !answer.uncovered.length;
}

// ---------------------------------------------------------------- applying

async function act(what, body) {
  try {
    if (what === "apply") await save();
    await call("POST", `${path}/${what}`, body);
    await look();
  } catch (error) {
    element("job-problem").textContent = error.message;
    announce(error.message);
  }
}

async function look() {
  clearTimeout(state.lookTimer);
  let isLive = false;
  try {
    const found = await call("GET", `${path}/state`);
    isLive = showState(found);
  } catch (error) {
    announce(error.message);
  }
  state.lookTimer = setTimeout(look, isLive ? 700 : 5000);
}

function showState({ job, rule_labels, labels, trouble, measured }) {
  const isLive = Boolean(job) && ["waiting", "running"].includes(job.state);
  element("both-counts").textContent = text("both_are", { rules: rule_labels, people: labels });
  element("job").hidden = !job;
  for (const id of ["apply", "withdraw"]) element(id).disabled = isLive;
  element("withdraw").hidden = !rule_labels;
  element("review").hidden = !rule_labels;
  if (job) showJob(job, isLive, trouble);
  element("measured").textContent = measured.checked ? text("measured_is", { wrong: measured.wrong, n: measured.checked, share: percent(measured.wrong / measured.checked) }) : "";
  const before = JSON.stringify([...state.measured]);
  state.measured = new Map(measured.rules.map((one) => [one.name, one]));
  if (before !== JSON.stringify([...state.measured])) draw();
  return isLive;
}

function showJob(job, isLive, trouble) {
  const names = { waiting: text("job_waiting"), running: text("job_running"), done: text("job_done"), failed: text("job_failed"), cancelled: text("job_cancelled") };
  element("job-bar").value = job.share;
  element("job-bar").hidden = element("job-cancel").hidden = !isLive;
  element("job-cancel").dataset.job = job.id;
  element("job-state").textContent = `${names[job.state]} · ${text("job_is", job)}`;
  element("job-problem").textContent = sentence(trouble || job.reason);
}

// ---------------------------------------------------------------- raw view, buttons, start

function useRaw() {
  try {
    const rules = JSON.parse(element("raw").value || "[]");
    if (!Array.isArray(rules) || !rules.every((rule) => rule && typeof rule === "object" && !Array.isArray(rule))) throw new Error(text("raw_is_no_list"));
    set.rules = rules;
    element("raw-problem").textContent = "";
    drawRules();
    changed();
  } catch (error) {
    element("raw-problem").textContent = error.message;
  }
}

/** Take up what an earlier page could not save: as the rules where nobody else changed them, else in the raw view only. */
function restore() {
  const left = JSON.parse(localStorage.getItem(kept) ?? "null");
  if (!left) return;
  if (left.revision === set.revision) {
    Object.assign(set, left);
    state.changes += 1;
    save().catch(() => {});
  } else {
    element("raw").value = JSON.stringify(left.rules, null, 1);
    element("raw-box").open = true;
    tellSaving(text("unsaved_in_raw"));
    localStorage.removeItem(kept);
  }
}

if (element("rules")) {
  element("raw").value = JSON.stringify(set.rules, null, 1);
  restore();
  for (const kind of kindsHere()) element("new-kind").append(make("option", { value: kind }, KINDS[kind].title()));
  element("least").value = set.least_confidence;
  element("method").value = set.method;
  drawRules();
  element("add").addEventListener("click", add);
  element("least").addEventListener("input", () => ((set.least_confidence = Number(element("least").value)), changed()));
  element("method").addEventListener("input", () => ((set.method = element("method").value), changed()));
  element("raw-use").addEventListener("click", useRaw);
  element("apply").addEventListener("click", () => act("apply"));
  element("withdraw").addEventListener("click", () => act("withdraw"));
  element("job-cancel").addEventListener("click", (event) => act("cancel", { id: Number(event.target.dataset.job) }));
  document.addEventListener("keydown", (event) => {
    if (event.key.toLowerCase() === "n" && event.altKey) event.preventDefault(), add();
  });
  preview();
  look();
}
