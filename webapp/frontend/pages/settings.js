// The forms of a project: the kinds of a category, the fields of the chosen strategy and why it may not be for this project, and the
// preview of the labelling page, which the app draws anew a moment after each change.
import { keysOf } from "../parts/keys.js";

const form = document.querySelector("#strategy").form;
const withRegions = ["object-detection", "token-classification"];

function project() {
  const labels = new Set(form.elements.labels.value.split("\n").map((line) => line.trim()).filter(Boolean));
  return {
    kind: form.dataset.kind ?? form.elements.kind.value,
    category: form.dataset.category ?? form.elements.category.value,
    labels: labels.size,
  };
}

const hinders = {
  "not-kind": (now, value) => now.kind === value,
  labels: (now, value) => now.labels > 0 && now.labels !== Number(value),
  regions: (now) => !withRegions.includes(now.category),
  never: () => true,
};

/** Offer the kinds that the category has; a kind without labels needs none. */
function showKinds() {
  const radios = [...form.querySelectorAll("#kinds input")];
  if (!radios.length) return;
  for (const radio of radios) {
    const isThere = radio.dataset.categories.split(" ").includes(form.elements.category.value);
    radio.disabled = !isThere;
    radio.closest("label").hidden = !isThere;
  }
  if (!radios.some((radio) => radio.checked && !radio.disabled)) radios.find((radio) => !radio.disabled).checked = true;
  const least = Number(radios.find((radio) => radio.checked).dataset.least);
  form.elements.labels.required = least > 0;
  form.elements.labels.disabled = !least;
}

/** Show what the chosen kind asks of its values; the other parts are neither checked nor sent. */
function showLimits({ kind }) {
  for (const part of form.querySelectorAll("fieldset.limits")) part.hidden = part.disabled = part.dataset.kind !== kind;
}

/** Show the fields of the chosen strategy alone; the others are disabled, so that they are neither checked nor sent. */
function show() {
  showKinds();
  const now = project();
  showLimits(now);
  for (const part of form.querySelectorAll("fieldset.strategy")) {
    const isChosen = part.dataset.strategy === form.elements.strategy.value;
    part.hidden = !isChosen;
    part.disabled = !isChosen;
    for (const note of part.querySelectorAll("[data-hangs-on]")) note.hidden = !hinders[note.dataset.hangsOn](now, note.dataset.value);
  }
}

for (const name of ["strategy", "labels", "kind", "category"]) {
  const elements = form.elements[name];
  for (const element of elements instanceof RadioNodeList ? elements : [elements].filter(Boolean)) element.addEventListener("input", show);
}
show();

const preview = document.getElementById("preview");
let waiting = 0;
form.addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(() => preview.dispatchEvent(new Event("wanted")), 300);
});
preview.addEventListener("htmx:afterSwap", () => {
  const rows = [...preview.querySelectorAll("[data-label]")];
  const keys = keysOf(rows.map((row) => row.dataset.label));
  rows.forEach((row, at) => {
    row.querySelector("kbd").textContent = keys[at].toUpperCase();
    row.querySelector("kbd").hidden = !keys[at];
  });
});
