// The keys of the labelling page. Digits and letters choose labels; letters that are commands choose none.

const LABEL_KEYS = [..."1234567890qwertyiopghjklazxcvbnmd"];
const MOVE_PX = 40;

const COMMANDS = {
  enter: (act) => act.accept(),
  " ": (act) => act.accept(),
  u: (act) => act.undo(),
  backspace: (act) => act.undo(),
  s: (act) => act.skip(),
  f: (act) => act.fit(),
  "+": (act) => act["zoom-in"](),
  "=": (act) => act["zoom-in"](),
  "-": (act) => act["zoom-out"](),
  arrowleft: (act) => act.move(-MOVE_PX, 0),
  arrowright: (act) => act.move(MOVE_PX, 0),
  arrowup: (act) => act.move(0, -MOVE_PX),
  arrowdown: (act) => act.move(0, MOVE_PX),
  "?": (act) => act.help(),
};
const MAY_REPEAT = new Set(["+", "=", "-", "arrowleft", "arrowright", "arrowup", "arrowdown"]);

/** The key of each label, "" for those behind the last key: a label that is one digit or letter has itself as key. */
export function keysOf(labels) {
  const own = labels.map((label) => (LABEL_KEYS.includes(label.toLowerCase()) ? label.toLowerCase() : ""));
  const free = LABEL_KEYS.filter((key) => !own.includes(key));
  return own.map((key, at) => (key && own.indexOf(key) === at ? key : (free.shift() ?? "")));
}

/** Call `act` for every key pressed outside a form field; nothing happens while `isPaused()`. */
export function installKeys(act, labelKeys, isPaused) {
  document.addEventListener("keydown", (event) => {
    const key = event.key.toLowerCase();
    if (event.isComposing || isPaused() || event.target.matches("input, select, textarea")) return;
    if (event.ctrlKey || event.metaKey || event.altKey) {
      if (key === "z" && !event.altKey) event.preventDefault(), act.undo();
      return;
    }
    if ((key === "enter" || key === " ") && event.target.matches("a, button, summary")) return;
    if (key.startsWith("arrow") && event.target.closest(".words, .record")) return;
    const at = labelKeys.indexOf(key);
    const isLabel = at >= 0;
    if (!isLabel && !COMMANDS[key]) return;
    event.preventDefault();
    if (event.repeat && !MAY_REPEAT.has(key)) return;
    if (isLabel) act.choose(at);
    else COMMANDS[key](act);
  });
}
