// Imports and exports with a live bar, cancel, and a list of what failed; the upload itself shows its own progress.
import "../parts/help.js";
import { announce, call, make, page, sentence, text } from "../parts/page.js";

const element = (id) => document.getElementById(id);
const form = element("upload");
const shown = new Map();

// What a proxy on the way answers is no JSON: its status then says what there is to say.
function answerOf(request) {
  try {
    return JSON.parse(request.responseText);
  } catch {
    return {};
  }
}

function complain(words) {
  element("problem").textContent = words;
}

function send(data, onprogress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/api/v1/projects/${page.slug}/imports`);
    request.setRequestHeader("X-CSRFToken", page.csrf);
    request.setRequestHeader("Accept", "application/json");
    request.upload.onprogress = (event) => event.lengthComputable && onprogress(event.loaded / event.total);
    request.onerror = () => reject(new Error(text("offline")));
    request.onload = () => {
      const body = answerOf(request);
      request.status < 400 ? resolve(body) : reject(new Error(sentence(body.message) || text("failed", { status: request.status })));
    };
    request.send(data);
    element("upload-cancel").onclick = () => request.abort();
    request.onabort = () => reject(new Error(text("cancelled")));
  });
}

const isLive = (state) => ["waiting", "running"].includes(state);

// One import or export: name, state, bar, a sentence, what was left out, and what can be done with it.
function showJob(list, job, name, sentenceOf, left, buttons) {
  const id = `${list}-${job.id}`;
  const key = JSON.stringify(job);
  if (shown.get(id) === key) return;
  shown.set(id, key);
  const share = job.state === "done" ? 1 : job.share;
  const bar = make("progress", { max: 1, "aria-label": name, ...(share === null && isLive(job.state) ? {} : { value: share ?? 0 }) });
  const row = make(
    "article",
    { id },
    make("div", { class: "row spread" }, make("strong", {}, name), make("span", {}, stateOf(list, job.state))),
    bar,
    make("p", { class: "muted" }, sentenceOf),
    job.reason ? make("p", { class: "error-text" }, sentence(job.reason)) : null,
    left.lines.length ? make("details", {}, make("summary", {}, left.title), make("ul", {}, ...left.lines.map((line) => make("li", {}, line)))) : null,
    buttons.length ? make("div", { class: "row" }, ...buttons) : null,
  );
  const before = element(id);
  if (before?.querySelector("details[open]")) row.querySelector("details")?.setAttribute("open", "");
  const focused = before?.contains(document.activeElement) ? document.activeElement.dataset.does : null;
  if (before) before.replaceWith(row);
  else element(list).prepend(row);
  if (focused) row.querySelector(`[data-does="${focused}"]`)?.focus();
}

const stateOf = (list, state) => (list === "exports" && state === "running" ? text("export_running") : text(`import_${state}`));

function button(does, label, act) {
  const made = make("button", { type: "button", class: "outline", "data-does": does }, label);
  made.addEventListener("click", async () => {
    made.disabled = true;
    complain("");
    try {
      await act();
    } catch (error) {
      made.disabled = false;
      complain(error.message);
    }
    watch();
  });
  return made;
}

function showImport(job) {
  const lines = (job.errors ?? []).map((error) => `${[error.line, error.name].filter(Boolean).join(" · ")}: ${sentence(error.reason)}`);
  const cancel = button("cancel", text("cancel"), () => call("POST", `/projects/${page.slug}/imports/${job.id}/cancel`));
  const said = text("rows_are", { ok: job.rows_ok, failed: job.rows_failed });
  showJob("imports", job, job.name, said, { title: text("failed_rows"), lines }, isLive(job.state) ? [cancel] : []);
}

function showExport(job) {
  const lines = job.problems.map((problem) => `${problem.item_id}: ${sentence(problem.reason)}`);
  const name = [...(element("format")?.options ?? [])].find((option) => option.value === job.format)?.text ?? job.format;
  const end = () => call("DELETE", `/projects/${page.slug}/exports/${job.id}`);
  const buttons = page.may_manage ? [button("end", isLive(job.state) ? text("cancel") : text("remove_export"), end)] : [];
  if (job.file) buttons.unshift(make("a", { role: "button", href: job.file, download: "", "data-does": "download" }, text("download")));
  const said = text("items_are", { items: job.items, refused: job.refused });
  showJob("exports", job, name, said, { title: text("cannot_carry"), lines }, buttons);
}

// A row that is gone gives its focus to the one beside it, else to the heading of the list.
function leave(row) {
  const next = row.nextElementSibling ?? row.previousElementSibling;
  const hadFocus = row.contains(document.activeElement);
  row.remove();
  shown.delete(row.id);
  if (hadFocus) (next?.querySelector("button, a") ?? element("main")).focus({ preventScroll: true });
}

let timer = 0;
let failed = "";
async function watch() {
  clearTimeout(timer);
  try {
    const [{ imports }, { exports }] = await Promise.all([call("GET", `/projects/${page.slug}/imports`), call("GET", `/projects/${page.slug}/exports`)]);
    if (element("imports")) for (const job of [...imports].reverse()) showImport(job);
    for (const job of [...exports].reverse()) showExport(job);
    const known = new Set(exports.map((job) => `exports-${job.id}`));
    for (const row of [...element("exports").children]) if (!known.has(row.id)) leave(row);
    if (failed && element("problem").textContent === failed) complain("");
    failed = "";
    timer = setTimeout(watch, [...imports, ...exports].some((job) => isLive(job.state)) ? 400 : 5000);
  } catch (error) {
    complain((failed = error.message)); // a failed look is taken back by a good one
    timer = setTimeout(watch, 5000);
  }
}

// Show the fields of the chosen format alone; those of another one are not sent.
function showFields() {
  const chosen = element("kind").selectedOptions[0];
  const kind = chosen.value;
  const isSource = chosen.dataset.source === "yes";
  for (const part of form.querySelectorAll("[data-for]")) {
    const names = part.dataset.for.split(" ");
    part.hidden = !(names.includes(kind) || (names[0] === "upload" ? !isSource : !kind));
    if (["server-folder", "listing", "sql"].includes(part.dataset.for)) part.hidden = part.dataset.for !== kind;
    for (const field of part.querySelectorAll("input")) field.disabled = part.hidden;
  }
}

const showTags = () => (document.querySelector("[data-format]").hidden = element("format").value !== "conll");

async function queueSource() {
  const given = Object.fromEntries([...new FormData(form)].filter(([name, value]) => name !== "file" && value !== ""));
  for (const field of form.querySelectorAll("input[type=checkbox]:enabled")) given[field.name] = field.checked;
  for (const name of ["base_link", "empty_is_none"]) delete given[name];
  await call("POST", `/projects/${page.slug}/imports/source`, given);
}

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const isSource = element("kind").selectedOptions[0].dataset.source === "yes";
  const bar = element("upload-bar");
  const said = element("upload-said");
  bar.hidden = element("upload-cancel").hidden = isSource;
  said.textContent = isSource ? "" : text("uploading");
  try {
    if (isSource) await queueSource();
    else await send(new FormData(form), (share) => (bar.value = share));
    watch();
    said.textContent = isSource ? text("queued") : text("uploaded");
    form.reset();
    showFields();
  } catch (error) {
    said.textContent = error.message;
  }
  announce(said.textContent);
  bar.hidden = element("upload-cancel").hidden = true;
});
element("kind")?.addEventListener("change", showFields);
if (form) showFields();

element("format")?.addEventListener("change", showTags);
element("export")?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const own = event.target;
  complain("");
  const given = Object.fromEntries(["format", "which", "scheme"].map((name) => [name, element(name).value]));
  for (const field of own.querySelectorAll("input[type=checkbox]")) given[field.name] = field.checked;
  try {
    await call("POST", `/projects/${page.slug}/exports`, given);
    announce(text("queued"));
    watch();
  } catch (error) {
    complain(error.message);
  }
});
if (element("format")) showTags();
watch();
