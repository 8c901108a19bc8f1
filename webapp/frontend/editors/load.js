// Which module edits which kind of value. What most projects need comes with the page, the others when a project asks for them.
import { Editor as Choices } from "./choices.js";

const OTHERS = {
  shapes: () => import("./shapes.js"),
  sound: () => import("./sound.js"),
  spans: () => import("./spans.js"),
  number: () => import("./number.js"),
  words: () => import("./words.js"),
};

/** The class of the editor called `name`. Rejects when there is none. */
export async function loadEditor(name) {
  if (name === "choices") return Choices;
  if (!OTHERS[name]) throw new Error(`no editor is called ${name}`);
  return (await OTHERS[name]()).Editor;
}
