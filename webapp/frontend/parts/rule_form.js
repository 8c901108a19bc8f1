// The form of one rule: which fields each kind has, and how a field's value becomes the rule's JSON. A rule is a plain object that
// the form changes in place; the cluster alone judges it.
import { make, page, text } from "./page.js";

const BASE = "wordnet";
const lines = (value) => value.split("\n").map((line) => line.trim()).filter(Boolean);
const number = (value) => (value.trim() === "" ? null : Number(value));

/** What each kind is called, and a new rule of it. */
export const KINDS = {
  keywords: { title: () => text("kind_keywords"), fields: ["label", "field", "need", "is_case_sensitive", "words"], fresh: () => ({ label: page.labels[0], field: page.columns[0], words: [] }) },
  pattern: { title: () => text("kind_pattern"), fields: ["label", "field", "pattern", "is_case_sensitive"], fresh: () => ({ label: page.labels[0], field: page.columns[0], pattern: "" }) },
  number: { title: () => text("kind_number"), fields: ["label", "field", "at_least_number", "at_most"], fresh: () => ({ label: page.labels[0], field: page.columns[0], at_least: null, at_most: null }) },
  condition: { title: () => text("kind_condition"), fields: ["label", "when"], fresh: () => ({ label: page.labels[0], when: "" }) },
  lookup: { title: () => text("kind_lookup"), fields: ["field", "whole", "is_case_sensitive", "entries"], fresh: () => ({ field: page.columns[0], entries: {} }) },
  hypernym: { title: () => text("kind_hypernym"), fields: ["label", "field", "senses", "max_steps", "with_terms", "terms"], fresh: () => ({ label: page.labels[0], field: page.columns[0], base: BASE, terms: [], senses: "first", max_steps: 50, with_terms: true }) },
  relation: { title: () => text("kind_relation"), fields: ["label", "field", "relation", "senses", "max_steps", "with_terms", "terms"], fresh: () => ({ label: page.labels[0], field: page.columns[0], base: BASE, relation: "has-part", terms: [], senses: "any", max_steps: 1, with_terms: false }) },
  model: { title: () => text("kind_model"), fields: ["at_least"], fresh: () => ({ source: "serving", at_least: 0.8 }) },
  crowd: { title: () => text("kind_crowd"), fields: ["at_least"], fresh: () => ({ source: "crowd", at_least: 0.8 }) },
};

const INPUTS = {
  label: () => ({ name: text("field_label"), options: page.labels }),
  field: () => ({ name: text("field_field"), list: "columns" }),
  words: () => ({ name: text("field_words"), rows: 3, show: (value) => (value ?? []).join("\n"), read: lines }),
  need: () => ({ name: text("field_need"), options: ["any", "all"], words: [text("need_any"), text("need_all")] }),
  is_case_sensitive: () => ({ name: text("field_case"), isSwitch: true }),
  pattern: () => ({ name: text("field_pattern"), isCode: true }),
  at_least_number: () => ({ key: "at_least", name: text("field_at_least"), type: "number", read: number }),
  at_most: () => ({ name: text("field_at_most"), type: "number", read: number }),
  when: () => ({ name: text("field_when"), rows: 2, isCode: true }),
  entries: () => ({ name: text("field_entries"), rows: 4, isCode: true, show: showEntries, read: readEntries }),
  whole: () => ({ name: text("field_whole"), isSwitch: true }),
  terms: () => ({ name: text("field_terms"), rows: 3, show: (value) => (value ?? []).join("\n"), read: lines }),
  senses: () => ({ name: text("field_senses"), options: ["first", "any"], words: [text("senses_first"), text("senses_any")] }),
  max_steps: () => ({ name: text("field_steps"), type: "number", read: number }),
  with_terms: () => ({ name: text("field_with_terms"), isSwitch: true }),
  relation: () => ({ name: text("field_relation"), list: "relations" }),
  at_least: () => ({ name: text("field_sure"), type: "number", read: number }),
};

function showEntries(entries) {
  return Object.entries(entries ?? {}).map(([phrase, label]) => `${phrase} = ${label}`).join("\n");
}

/** "phrase = label" a line; a line without a label keeps "" so that the cluster's error names it. */
function readEntries(value) {
  return Object.fromEntries(
    lines(value).map((line) => {
      const at = line.lastIndexOf("=");
      return at < 0 ? [line, ""] : [line.slice(0, at).trim(), line.slice(at + 1).trim()];
    }),
  );
}

let made = 0;

/** The inputs of `rule`; `changed()` is called whenever one has changed it. */
export function formOf(rule, changed) {
  const kind = KINDS[rule.kind];
  const inputs = (kind?.fields ?? []).map((name) => field(rule, { key: name, ...INPUTS[name]() }, changed));
  return make("div", { class: "rule-form" }, ...inputs);
}

function field(rule, given, changed) {
  const id = `f${(made += 1)}`;
  const input = control(rule, given, id);
  input.addEventListener("input", () => {
    rule[given.key] = given.isSwitch ? input.checked : (given.read ?? ((value) => value))(input.value);
    changed();
  });
  if (given.isSwitch) return make("label", { class: "switch", for: id }, input, given.name);
  return make("div", { class: given.rows ? "wide" : "" }, make("label", { for: id }, given.name), input);
}

function control(rule, given, id) {
  const value = rule[given.key];
  if (given.isSwitch) return make("input", { id, type: "checkbox", checked: value === true });
  if (given.options) {
    const known = given.options.includes(value) || value === undefined ? given.options : [...given.options, value];
    const options = known.map((one, at) => make("option", { value: one, selected: one === value }, given.words?.[at] ?? String(one)));
    return make("select", { id }, ...options);
  }
  const shown = given.show ? given.show(value) : (value ?? "");
  const attributes = { id, class: given.isCode ? "code" : null, spellcheck: "false", autocomplete: "off" };
  if (given.rows) return make("textarea", { ...attributes, rows: given.rows }, shown);
  return make("input", { ...attributes, type: given.type ?? "text", step: given.type ? "any" : null, list: given.list ?? null, value: shown });
}
