// Runs before the page is there, by itself: what is pressed or sent while the page's scripts are still on their way waits for them.
// Without it a button would do nothing, and a form would leave the page as a plain one, losing what was typed.
const waiting = new Map(); // what was pressed, once each, and how to press it again

function hold(event) {
  const isClick = event.type === "click";
  const part = isClick ? event.target.closest?.("button") : event.target;
  if (!part) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  const { submitter } = event;
  waiting.set(part, () => (isClick ? part.click() : part.requestSubmit(submitter)));
}

function letGo() {
  for (const type of ["click", "submit"]) removeEventListener(type, hold, true);
  for (const press of waiting.values()) press();
}

for (const type of ["click", "submit"]) addEventListener(type, hold, true);
// module scripts have run by then; what they do at that same event comes first
addEventListener("DOMContentLoaded", () => setTimeout(letGo), { once: true });
