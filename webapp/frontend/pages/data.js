// Import with a live bar, cancel and a list of the rows that failed; the upload itself shows its own progress.
import { announce, call, make, page, sentence, text } from "../parts/page.js";

const element = (id) => document.getElementById(id);
const form = element("upload");
const shown = new Map();

function send(data, onprogress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `/api/v1/projects/${page.slug}/imports`);
    request.setRequestHeader("X-CSRFToken", page.csrf);
    request.setRequestHeader("Accept", "application/json");
    request.upload.onprogress = (event) => event.lengthComputable && onprogress(event.loaded / event.total);
    request.onerror = () => reject(new Error(text("offline")));
    request.onload = () => {
      const body = JSON.parse(request.responseText || "{}");
      request.status < 400 ? resolve(body) : reject(new Error(sentence(body.message) || text("failed", { status: request.status })));
    };
    request.send(data);
    element("upload-cancel").onclick = () => request.abort();
    request.onabort = () => reject(new Error(text("cancelled")));
  });
}

function showImport(job) {
  const row = make(
    "article",
    { id: `import-${job.id}` },
    make("div", { class: "row spread" }, make("strong", {}, job.name), make("span", {}, text(`import_${job.state}`))),
    make("progress", { max: 1, value: job.state === "done" ? 1 : job.share ?? 0, "aria-label": job.name }),
    make("p", { class: "muted" }, text("rows_are", { ok: job.rows_ok, failed: job.rows_failed })),
    job.reason ? make("p", { class: "error-text" }, sentence(job.reason)) : null,
    job.errors?.length ? make("details", {}, make("summary", {}, text("failed_rows")), make("ul", {}, ...job.errors.map((error) => make("li", {}, `${error.name || error.line}: ${sentence(error.reason)}`)))) : null,
  );
  const key = JSON.stringify(job);
  const before = element(`import-${job.id}`);
  if (shown.get(job.id) === key) return;
  shown.set(job.id, key);
  if (before?.querySelector("details[open]")) row.querySelector("details")?.setAttribute("open", "");
  if (before) before.replaceWith(row);
  else element("imports").prepend(row);
}

let timer = 0;
const isLive = (state) => !["done", "failed", "cancelled"].includes(state);

async function watch() {
  clearTimeout(timer);
  try {
    const { imports } = await call("GET", `/projects/${page.slug}/imports`);
    for (const job of [...imports].reverse()) showImport(job);
    timer = setTimeout(watch, imports.some((job) => isLive(job.state)) ? 400 : 5000);
  } catch (error) {
    announce(error.message);
    timer = setTimeout(watch, 5000);
  }
}

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const bar = element("upload-bar");
  const said = element("upload-said");
  bar.hidden = element("upload-cancel").hidden = false;
  said.textContent = text("uploading");
  try {
    await send(new FormData(form), (share) => (bar.value = share));
    watch();
    said.textContent = text("uploaded");
    form.reset();
  } catch (error) {
    said.textContent = error.message;
  }
  announce(said.textContent);
  bar.hidden = element("upload-cancel").hidden = true;
});
if (element("imports")) watch();
