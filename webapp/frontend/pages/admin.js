// The admin's live pages: each asks the app for its one reading every few seconds and draws it; no worker is asked.
import "../parts/help.js";
import { act, element, fill, moment, repeat, say, showTroubles, size, span } from "../parts/live_table.js";
import { announce, call, figure, make, page, sentence, text } from "../parts/page.js";

async function change(method, path, body, after) {
  try {
    const answer = await call(method, path, body);
    say("");
    announce(text("done"));
    await after?.(answer);
  } catch (error) {
    say(error.message);
  }
}

const list = (lines) => make("ul", { class: "plain" }, ...lines.map((line) => make("li", {}, line)));

// ---- cluster

function nodeCells(node, masters) {
  const told = node.status;
  const state = node.is_alive ? (node.is_draining ? text(node.is_drained ? "drained" : "draining") : text("alive")) : text("silent");
  const isMaster = masters[told.role] === told.hostname;
  const role = told.role ? `${text(told.role)}${isMaster ? ` (${text("master")})` : ""}` : null;
  const known = (value) => (node.is_alive ? value : null);
  const processes = told.processes.map((one) => `${one.name}: ${text(one.state)}${one.activity ? ` (${one.activity})` : ""}${one.restarts ? `, ${text("restarts", { n: one.restarts })}` : ""}`);
  const versions = Object.entries(told.versions).map(([name, version]) => `${name} ${version}`);
  return [
    make("span", {}, make("strong", {}, told.hostname), ` ${told.ip}`),
    make("span", node.is_alive ? {} : { class: "error-text" }, state),
    role,
    text("ago", { span: span(node.age_s) }),
    known(`${told.load.toFixed(1)} / ${told.cores}`),
    known(`${size(told.memory_free_bytes)} / ${size(told.memory_bytes)}`),
    known(told.disk_free_bytes ? size(told.disk_free_bytes) : null),
    told.gpus.length ? list(told.gpus) : null,
    known(`${told.broker.kind}: ${text(told.broker.state)}`),
    known(processes.length ? list(processes) : null),
    versions.length ? make("details", {}, make("summary", {}, versions[0]), list(versions)) : null,
  ];
}

async function drawCluster() {
  const found = await call("GET", "/admin/cluster");
  showTroubles(found.troubles);
  element("fine").hidden = found.troubles.length > 0;
  element("reading").textContent = found.age_s == null ? "" : text("reading", { span: span(found.age_s), epoch: found.epoch });
  const open = [...document.querySelectorAll("#nodes details[open]")].map((one) => one.closest("tr").id);
  fill("nodes", found.nodes, (node) => node.status.hostname, (node) => nodeCells(node, found.masters));
  for (const id of open) element(id)?.querySelector("details")?.setAttribute("open", "");
  fill("queues", found.queues, (queue) => queue.name, (queue) => [queue.name, queue.messages, queue.consumers, queue.node]);
  fill("actions", found.actions, (one) => `${one.at}-${one.what}`, (one) => [moment(one.at), one.what, sentence(one.reason)]);
}

// ---- trainings

let opened = null;

const nameOf = (one) => `${one.project} ${one.run.run}`;

async function drawLog() {
  if (!opened) return;
  const { text: said } = await call("GET", `/admin/runs/${opened.project}/${opened.run.run}/log`);
  const box = element("log-text");
  const isAtEnd = box.scrollTop + box.clientHeight >= box.scrollHeight - 4;
  if (box.textContent !== said) box.textContent = said || text("log_empty");
  if (isAtEnd) box.scrollTop = box.scrollHeight;
}

function openLog(one) {
  opened = one;
  element("log").hidden = false;
  element("log-name").textContent = nameOf(one);
  element("log-text").textContent = "";
  drawLog().catch((error) => say(error.message));
}

const logButton = (one) => act(`log-${nameOf(one)}`, text("log"), nameOf(one), () => openLog(one));
const projectLink = (slug, title) => make("a", { href: `/projects/${slug}` }, title || slug);

function liveCells(one) {
  const { run } = one;
  const cancel = act(`cancel-${nameOf(one)}`, text("cancel"), nameOf(one), () => change("POST", `/projects/${one.project}/cancel`, { run: run.run }, drawRuns));
  const bar = run.steps ? make("progress", { max: run.steps, value: run.step, "aria-label": nameOf(one) }) : null;
  return [
    projectLink(one.project, one.title),
    `${run.run}: ${run.algorithm}`,
    text(run.state),
    make("span", {}, run.steps ? `${run.step} / ${run.steps}` : "–", bar),
    run.loss == null ? null : run.loss.toFixed(3),
    one.eta_s == null ? null : span(one.eta_s),
    run.labels,
    make("span", { class: "row" }, logButton(one), cancel),
  ];
}

async function drawRuns() {
  const { live, past } = await call("GET", "/admin/runs");
  fill("live", live, (one) => `${one.project}-${one.run.run}`, liveCells);
  fill("past", past, (one) => `${one.project}-${one.run.run}`, (one) => [
    projectLink(one.project, one.title),
    `${one.run.run}: ${one.run.algorithm}`,
    make("span", one.run.state === "failed" ? { class: "error-text" } : {}, text(one.run.state)),
    sentence(one.run.reason),
    one.run.version || null,
    one.run.labels,
    span(one.run.seconds),
    logButton(one),
  ]);
}

// ---- what was given up

function letterCard(one) {
  const resend = () => change("POST", `/projects/${one.project}/resend`, {}, drawLetters);
  const parts = [make("div", { class: "row spread" }, make("h2", {}, projectLink(one.project, one.title)))];
  if (one.waiting) parts.push(make("p", {}, text("on_their_way", { n: one.waiting, span: span(one.age_s) }), " ", make("span", { class: "error-text" }, sentence(one.why_waiting))));
  if (one.n_refused) {
    parts[0].append(act(`resend-${one.project}`, text("resend"), one.project, resend));
    parts.push(make("p", {}, text("refused", { n: one.n_refused })), list(one.refused.map((label) => `${label.item_id} (${label.revision}): ${sentence(label.reason)}`)));
  }
  if (one.unreadable.length) {
    const retry = () => change("POST", `/projects/${one.project}/items/retry`, {}, drawLetters);
    parts[0].append(act(`retry-${one.project}`, text("retry"), one.project, retry));
    parts.push(make("p", {}, text("unreadable")), list(one.unreadable.map((item) => `${item.item_id}: ${sentence(item.reason)}`)));
  }
  return make("article", { id: `letters-${one.project}` }, ...parts);
}

async function drawLetters() {
  const { projects } = await call("GET", "/admin/letters");
  const focus = document.activeElement?.dataset?.key;
  element("letters").replaceChildren(...projects.map(letterCard));
  element("letters-empty").hidden = projects.length > 0;
  if (focus?.match(/^(resend|retry)-/)) (document.querySelector(`[data-key="${CSS.escape(focus)}"]`) ?? document.getElementById("main")).focus({ preventScroll: true });
}

// ---- projects

/** What can be done with a project: each button is known by its place, so that the focus stays when its words change. */
function lifeOf(one) {
  const key = `life-${one.slug}`;
  const about = one.title || one.slug;
  if (one.state === "deleted") return act(key, text("restore"), about, () => change("POST", `/projects/${one.slug}/restore`, {}, drawProjects));
  const isArchived = one.state === "archived";
  const turn = act(key, text(isArchived ? "bring_back" : "archive"), about, () => change(isArchived ? "DELETE" : "POST", `/projects/${one.slug}/archive`, isArchived ? undefined : {}, drawProjects));
  if (isArchived) return turn;
  const pause = act(`pause-${one.slug}`, text(one.is_paused ? "go_on" : "pause"), about, () => change("PATCH", `/projects/${one.slug}`, { is_paused: !one.is_paused }, drawProjects));
  return make("span", { class: "row" }, pause, turn);
}

async function drawProjects() {
  const { projects } = await call("GET", "/admin/projects");
  fill("projects", projects, (one) => one.slug, (one) => [
    one.state === "deleted" ? one.title || one.slug : projectLink(one.slug, one.title),
    one.owners.join(", ") || null,
    figure(one.items),
    figure(one.labels),
    size(one.media_bytes),
    moment(one.last_at),
    text(`is_${one.state}`),
    lifeOf(one),
  ]);
}

// ---- disk and backups

function backupCells(one) {
  const isDone = one.state === "done";
  const state = one.state === "running" ? make("progress", { max: 1, value: one.share, "aria-label": text("running") }) : `${text(`backup_${one.state}`)}${one.reason && one.state === "failed" ? `: ${one.reason}` : ""}`;
  const load = isDone ? make("a", { href: `/api/v1/admin/backups/${one.id}/file`, download: "", "data-key": `load-${one.id}` }, text("download"), make("span", { class: "visually-hidden" }, ` ${one.name}`)) : null;
  const drop = isDone || one.state === "failed" ? act(`drop-${one.id}`, text("delete"), one.name, () => change("DELETE", `/admin/backups/${one.id}`, undefined, drawDisk)) : null;
  return [moment(one.created_at), one.made_by, state, isDone ? size(one.size_bytes) : null, make("span", { class: "row" }, load, drop)];
}

async function drawDisk() {
  const [disk, { backups }] = await Promise.all([call("GET", "/admin/disk"), call("GET", "/admin/backups")]);
  showTroubles(disk.troubles);
  element("measured").replaceChildren(...(disk.at ? [text("measured"), " ", moment(disk.at)] : []));
  const rooms = disk.at ? [...disk.rooms, { name: "database", path: "", size_bytes: disk.database_bytes }] : [];
  fill("rooms", rooms, (one) => one.name, (one) => [
    text(`room_${one.name}`),
    one.path || null,
    size(one.size_bytes),
    one.disk_total_bytes ? text("of", { free: size(one.disk_free_bytes), total: size(one.disk_total_bytes) }) : null,
  ]);
  fill("disks", disk.nodes, (one) => one.node, (one) => [one.node, size(one.free_bytes)]);
  fill("backups", backups, (one) => one.id, backupCells);
  element("backup-now").disabled = backups.some((one) => one.state === "waiting" || one.state === "running");
}

element("log-close")?.addEventListener("click", () => {
  opened = null;
  element("log").hidden = true;
});
element("backup-now")?.addEventListener("click", () => change("POST", "/admin/backups", {}, drawDisk));
const views = { cluster: [drawCluster, 2000], runs: [async () => (await drawRuns(), await drawLog()), 2000], letters: [drawLetters, 4000], projects: [drawProjects, 10000], disk: [drawDisk, 2000] };
repeat(...views[page.view]);
