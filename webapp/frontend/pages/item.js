// One item with everything that was ever said of it, newest first; nothing can be changed here.
import "../parts/help.js";
import { call, make, page, text } from "../parts/page.js";
import { inWords } from "../parts/times.js";
import { valueOf } from "../parts/value.js";
import { showValue } from "../parts/view.js";

const holder = document.getElementById("history");
const said = document.getElementById("problem");

function nameOf(revision) {
  return revision.source === "rules" ? text("by_rules") : (page.names[revision.user_id] ?? `#${revision.user_id}`);
}

function revisionOf(item, revision) {
  const box = make("div", {});
  const notes = [
    revision.is_corrected ? text("corrected_draft") : "",
    revision.seconds == null ? "" : text("seconds_spent", { n: revision.seconds }),
    revision.draft_version ? `${text("draft")} ${revision.draft_version}` : "",
  ];
  const heading = make("h2", {}, text("revision_is", { n: revision.revision }));
  if (revision.is_deleted) box.append(make("p", { class: "value-by" }, [text("withdrawn"), nameOf(revision), inWords(revision.created_at)].join(" · ")));
  else showValue(box, item, valueOf(revision), { labels: page.labels, kind: page.kind, by: nameOf(revision), at: revision.created_at, notes, isWithItem: false });
  return make("li", { class: revision.is_deleted ? "withdrawn" : "" }, heading, box);
}

try {
  const item = await call("GET", `/projects/${page.slug}/items/${page.item_id.split("/").map(encodeURIComponent).join("/")}`);
  const history = item.history.sort((a, b) => b.revision - a.revision);
  const newest = history.find((revision) => !revision.is_deleted);
  showValue(document.getElementById("item"), item, history[0] === newest && newest ? valueOf(newest) : { labels: [] }, { labels: page.labels, kind: page.kind });
  if (!history.length || history[0].is_deleted) document.querySelector("#item .value-said").remove();
  holder.replaceChildren(...(history.length ? history.map((revision) => revisionOf(item, revision)) : [make("li", {}, text("no_history"))]));
} catch (error) {
  said.textContent = error.message;
  holder.replaceChildren();
}
