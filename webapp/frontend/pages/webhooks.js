// Webhooks: add (the key is shown once), try out, see how each message fared, send one again, another key, delete.
import "../parts/help.js";
import { act, element, fill, moment, repeat, say } from "../parts/live_table.js";
import { announce, call, page, text } from "../parts/page.js";

const base = page.slug ? `/projects/${page.slug}/webhooks` : "/admin/webhooks";
let opened = null;

async function change(method, path, body) {
  try {
    const answer = await call(method, path, body);
    say("");
    announce(text("done"));
    if (answer.secret) {
      element("secret-text").textContent = answer.secret;
      element("secret").hidden = false;
    }
    await draw();
    return true;
  } catch (error) {
    say(error.message);
    return false;
  }
}

function open(hook) {
  opened = hook;
  drawDeliveries().catch((error) => say(error.message));
}

function hookCells(hook) {
  const row = document.createElement("span");
  row.className = "row";
  row.append(
    act(`test-${hook.id}`, text("test"), hook.url, async () => (await change("POST", `${base}/${hook.id}/test`, {})) && open(hook)),
    act(`see-${hook.id}`, text("messages"), hook.url, () => open(hook)),
    act(`key-${hook.id}`, text("new_key"), hook.url, () => change("POST", `${base}/${hook.id}/secret`, {})),
    act(`drop-${hook.id}`, text("delete"), hook.url, () => change("DELETE", `${base}/${hook.id}`)),
  );
  return [hook.url, hook.events.join(", "), hook.made_by, row];
}

async function draw() {
  const { webhooks } = await call("GET", base);
  if (opened && !webhooks.some((hook) => hook.id === opened.id)) opened = null;
  fill("hooks", webhooks, (hook) => hook.id, hookCells);
  await drawDeliveries();
}

async function drawDeliveries() {
  element("deliveries-part").hidden = !opened;
  if (!opened) return;
  const hook = opened;
  element("deliveries-name").textContent = hook.url;
  const { deliveries } = await call("GET", `${base}/${hook.id}/deliveries`);
  fill("deliveries", deliveries, (one) => one.id, (one) => [
    moment(one.created_at),
    one.event,
    text(`state_${one.state.replace(" ", "_")}`),
    one.attempts,
    one.reason || (one.status == null ? null : String(one.status)),
    one.state === "waiting" && !one.attempts ? null : act(`again-${one.id}`, text("again"), one.uid, () => change("POST", `${base}/${hook.id}/deliveries/${one.id}/send`, {})),
  ]);
}

element("add").addEventListener("submit", async (event) => {
  event.preventDefault();
  const data = new FormData(event.target);
  if (await change("POST", base, { url: data.get("url"), events: data.getAll("event") })) event.target.reset();
});
repeat(draw, 3000);
