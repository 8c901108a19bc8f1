// The labels of a project: rename, merge, add, undo, all by keyboard; the progress of what is written anew in the background.
import "../parts/help.js";
import { announce, call, make, page, sentence, text } from "../parts/page.js";

const LOOK_MS = 1000;
const element = (id) => document.getElementById(id);
const list = element("label-list");
let state = { labels: [], undo: null, job: null, trouble: "" };
let editing = "";
let asked = 0;
let taken = 0;
const isClosed = Boolean(page.read_only);

const chosen = () => [...list.querySelectorAll("input[type=checkbox]:checked")].map((box) => box.value);
const boxes = () => [...list.querySelectorAll("input[type=checkbox]")];

function row({ name, earlier }) {
  const box = make("input", { type: "checkbox", value: name, "aria-label": text("choose", { label: name }), disabled: isClosed });
  if (name === editing) return make("li", { class: "row" }, form(name));
  return make(
    "li",
    { class: "row spread" },
    make("label", {}, box, ` ${name}`, earlier.length ? make("small", { class: "muted" }, ` ${text("earlier", { names: earlier.join(", ") })}`) : null),
    make("button", { type: "button", class: "outline small", disabled: isClosed, "aria-label": text("rename_this", { label: name }), onclick: () => edit(name) }, text("rename")),
  );
}

function form(name) {
  const field = make("input", { value: name, maxlength: 100, required: true, "aria-label": text("new_name", { label: name }) });
  const leave = () => edit("");
  field.addEventListener("keydown", (event) => event.key === "Escape" && leave());
  const made = make("form", { class: "row" }, field, make("button", { type: "submit", class: "small" }, text("save")), make("button", { type: "button", class: "outline secondary small", onclick: leave }, text("cancel")));
  made.addEventListener("submit", (event) => {
    event.preventDefault();
    const wanted = field.value.trim();
    if (wanted === name) leave();
    else act("labels/rename", { label: name, name: wanted }, text("renamed", { label: name, name: wanted }), wanted);
  });
  return made;
}

/** Turn the row of `name` into a form; '' = none. The focus follows. */
function edit(name) {
  const before = editing;
  editing = name;
  draw();
  if (name) list.querySelector("form input").select();
  else focusOn(before);
}

function focusOn(name) {
  (boxes().find((box) => box.value === name) ?? boxes()[0])?.focus();
}

function draw() {
  const kept = new Set(chosen());
  list.replaceChildren(...state.labels.map(row));
  for (const box of boxes()) box.checked = kept.has(box.value);
  showMerge();
  const undo = element("undo-labels");
  undo.disabled = isClosed || !state.undo;
  if (!state.undo) return;
  const names = { gone: state.undo.gone.join(", "), into: state.undo.into };
  undo.textContent = state.undo.kind === "merge" ? text("undo_merge", names) : text("undo_rename", names);
}

function showMerge() {
  const names = chosen();
  const into = element("into").value;
  element("merge-what").textContent = names.length ? text("chosen", { names: names.join(", ") }) : text("none_chosen");
  element("into").replaceChildren(...state.labels.map(({ name }) => make("option", {}, name)));
  if (state.labels.some(({ name }) => name === into)) element("into").value = into;
  element("into").hidden = !names.length;
  element("merge-go").hidden = !names.length;
}

function showJob({ job, trouble }) {
  element("trouble").hidden = !(trouble || isClosed);
  element("trouble-text").textContent = isClosed ? page.read_only : sentence(trouble);
  element("job").hidden = !job;
  if (!job) return;
  element("job-bar").value = job.share;
  element("job-text").textContent = words(job);
}

function words({ state: now, done, total, changed, reason }) {
  if (now === "waiting") return text("relabel_waiting");
  if (now === "running") return text("relabel_running", { done, total, changed });
  if (now === "cancelled") return text("relabel_cancelled");
  return now === "failed" ? text("relabel_failed", { why: sentence(reason) }) : text("relabel_done", { changed });
}

async function look() {
  const mine = (asked += 1);
  try {
    const now = await call("GET", `/projects/${page.slug}/labels`);
    if (mine < taken) return; // an answer that was overtaken tells of a moment before what was done meanwhile
    taken = mine;
    const isNew = JSON.stringify([now.labels, now.undo]) !== JSON.stringify([state.labels, state.undo]);
    state = now;
    if (isNew && !editing) redraw();
    showJob(now);
  } catch (error) {
    element("problem").textContent = error.message;
  }
}

/** Draw again with the focus where it was. */
function redraw(name = document.activeElement?.value) {
  const hadFocus = list.contains(document.activeElement);
  draw();
  if (hadFocus) focusOn(name);
}

async function act(path, body, said, focus) {
  element("problem").textContent = "";
  try {
    await (path ? call("POST", `/projects/${page.slug}/${path}`, body) : call("PATCH", `/projects/${page.slug}`, body));
    editing = "";
    await look();
    draw();
    if (focus) focusOn(focus);
    announce(said);
    element("said").textContent = said;
    return true;
  } catch (error) {
    element("problem").textContent = error.message;
    return false;
  }
}

list.addEventListener("change", showMerge);
list.addEventListener("keydown", (event) => {
  const at = boxes().indexOf(event.target);
  if (at < 0) return;
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (step) {
    event.preventDefault();
    boxes()[(at + step + boxes().length) % boxes().length].focus();
  } else if (event.key === "F2" && !isClosed) {
    event.preventDefault();
    edit(event.target.value);
  }
});
element("merge").addEventListener("submit", (event) => {
  event.preventDefault();
  const into = element("into").value;
  const names = chosen().filter((name) => name !== into);
  for (const box of boxes()) box.checked = false;
  if (names.length) act("labels/merge", { labels: names, into }, text("merged", { names: names.join(", "), into }), into);
});
element("add").addEventListener("submit", async (event) => {
  event.preventDefault();
  const field = element("new-label");
  const label = field.value.trim();
  const isIn = label && (await act("", { labels: [...state.labels.map(({ name }) => name), label] }, text("added", { label })));
  if (isIn && field.value.trim() === label) field.value = ""; // what was refused, or typed meanwhile, stays
});
const undo = () => act("labels/undo", {}, text("undone"), state.undo?.gone[0]);
element("undo-labels").addEventListener("click", undo);
addEventListener("keydown", (event) => {
  const isText = event.target.matches?.("input:not([type=checkbox]), textarea, select");
  if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey) && !isText && !element("undo-labels").disabled) {
    event.preventDefault();
    undo();
  }
});
for (const part of document.querySelectorAll("#add input, #add button, #merge button, #merge select")) part.disabled = isClosed;
look().then(draw);
setInterval(look, LOOK_MS);
