// The keys of the labelling page. Digits and letters choose labels; letters that are commands choose none.

const LABEL_KEYS = [..."1234567890qwertyiopghjklazxcvbnmd"];

const COMMANDS = {
  enter: (act) => act.accept(),
  " ": (act) => act.accept(),
  u: (act) => act.undo(),
  backspace: (act) => act.undo(),
  s: (act) => act.skip(),
  ".": (act) => act.none(),
  f: (act) => act.fit(),
  "+": (act) => act["zoom-in"](),
  "=": (act) => act["zoom-in"](),
  "-": (act) => act["zoom-out"](),
};
const MAY_REPEAT = new Set(["+", "=", "-"]);

/** The key of each label, "" for those behind the last key: a label that is one digit or letter has itself as key. */
export function keysOf(labels) {
  const own = labels.map((label) => (LABEL_KEYS.includes(label.toLowerCase()) ? label.toLowerCase() : ""));
  const free = LABEL_KEYS.filter((key) => !own.includes(key));
  return own.map((key, at) => (key && own.indexOf(key) === at ? key : (free.shift() ?? "")));
}

/**
 * Call `act` for every key pressed outside a form field; nothing happens while `isPaused()`. `editorKey(event)` takes keys first where
 * the event comes from the editor's own parts (`[data-editor]`), and last elsewhere; true = taken.
 */
export function installKeys(act, labelKeys, isPaused, editorKey = () => false) {
  document.addEventListener("keydown", (event) => {
    const key = event.key.toLowerCase();
    if (event.isComposing || isPaused() || event.target.matches("input, select, textarea")) return;
    const isInside = Boolean(event.target.closest("[data-editor]"));
    if (isInside && editorKey(event)) {
      event.preventDefault();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) {
      const isRedo = key === "y" || (key === "z" && event.shiftKey);
      if (event.altKey || (key !== "z" && !isRedo)) return;
      event.preventDefault();
      event.stopImmediatePropagation(); // a widget on the page may have an undo of its own
      if (isRedo) act.redo?.();
      else act.undo();
      return;
    }
    if ((key === "enter" || key === " ") && event.target.matches("a, button, summary")) return;
    const at = labelKeys.indexOf(key);
    const isLabel = at >= 0;
    if (!isLabel && !COMMANDS[key]) {
      if (!isInside && editorKey(event)) event.preventDefault();
      return;
    }
    event.preventDefault();
    if (event.repeat && !MAY_REPEAT.has(key)) return;
    if (isLabel) act.choose(at);
    else COMMANDS[key](act);
  });
}
