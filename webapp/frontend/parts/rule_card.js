// One rule on the page: its form, and below it what the last answer of the cluster says of it. The form is made once, so that typing
// is never disturbed; figures and examples are replaced.
import { make, page, percent, sentence, text } from "./page.js";
import { formOf, KINDS } from "./rule_form.js";

/** Shows `rule`; `changed()` after an edit, `removed()` when it is to go. */
export class RuleCard {
  constructor(rule, changed, removed) {
    this.rule = rule;
    this.figures = make("div", { class: "rule-figures", "aria-live": "off" });
    this.examples = make("div", {});
    this.name = make("input", { type: "text", value: rule.name ?? "", "aria-label": text("rule_name"), maxlength: 100, spellcheck: "false", autocomplete: "off" });
    this.name.addEventListener("input", () => ((rule.name = this.name.value), changed()));
    this.isOn = make("input", { type: "checkbox", role: "switch", checked: rule.enabled !== false, "aria-label": text("rule_on") });
    this.isOn.addEventListener("input", () => {
      if (this.isOn.checked) delete rule.enabled;
      else rule.enabled = false;
      changed();
    });
    const remove = make("button", { type: "button", class: "outline secondary small", onclick: removed }, text("remove"));
    const more = make("details", {}, make("summary", {}, text("examples")), this.examples);
    this.more = more;
    const kind = make("span", { class: "muted kind" }, KINDS[rule.kind]?.title() ?? String(rule.kind ?? "?"));
    const form = formOf(rule, () => {
      more.open = true; // whoever works on a rule wants to see what it hits
      changed();
    });
    this.node = make("article", { class: "rule" }, make("div", { class: "row rule-head" }, this.isOn, this.name, kind, remove), form, this.figures, more);
    this.show(null, {}, null);
  }

  /** Show what an answer says: `one` of its rules, its `items`, and what people said of the rule's labels (`measured`). */
  show(one, items, measured) {
    const view = one?.view;
    this.node.classList.toggle("resting", this.rule.enabled === false);
    if (one?.error) this.name.setAttribute("aria-invalid", "true");
    else this.name.removeAttribute("aria-invalid");
    const shown = [];
    if (view) shown.push(...figuresOf(view));
    if (one?.fights?.length) shown.push(figure(text("fights_whom"), one.fights.map((fight) => `${fight.with} (${fight.n})`).join(", ")));
    if (measured) shown.push(figure(text("wrong_in_review"), `${measured.wrong} / ${measured.checked}`));
    this.figures.replaceChildren(
      ...shown,
      ...(one?.error ? [make("p", { class: "error-text rule-error" }, sentence(one.error))] : []),
      ...(view?.note ? [make("p", { class: "error-text" }, sentence(view.note))] : []),
    );
    this.more.hidden = !one?.hits?.length;
    if (one) this.examples.replaceChildren(...examplesOf(one, items));
  }
}

function figuresOf(view) {
  const right = view.accuracy == null ? "–" : `${percent(view.accuracy, 0)} (${view.n_known})`;
  return [
    figure(text("votes"), String(view.n_votes)),
    figure(text("coverage"), percent(view.coverage)),
    figure(text("overlap"), percent(view.overlap)),
    figure(text("conflict"), percent(view.conflict)),
    figure(text("right_on_known"), right),
    figure(text("weight"), view.weight == null ? "–" : percent(view.weight, 0)),
  ];
}

const figure = (name, value) => make("span", { class: "figure" }, make("span", { class: "muted" }, name), " ", make("b", {}, value));

function examplesOf(one, items) {
  const fights = one.fights.map((fight) =>
    make(
      "div",
      {},
      make("h3", {}, text("fights_with", { a: one.name, b: fight.with, n: fight.n })),
      make("ul", { class: "lines" }, ...fight.items.map((at) => exampleOf(items[at.item], `${one.name}: ${at.label} · ${fight.with}: ${at.other}`))),
    ),
  );
  const hits = make("ul", { class: "lines" }, ...one.hits.map((hit) => exampleOf(items[hit.item], hit.label)));
  return [make("h3", {}, text("hits")), hits, ...fights];
}

/** An item of the answer as a line, with what is said of it. */
export function exampleOf(item, said) {
  if (!item) return make("li", {});
  const known = item.known ? make("span", { class: "muted" }, ` · ${text("person_says", { label: item.known })}`) : null;
  return make("li", { class: "example" }, contentOf(item), said || known ? make("span", {}, said ? make("mark", {}, said) : null, known) : null);
}

function contentOf(item) {
  if (item.media) return make("img", { src: item.media, alt: item.name ?? item.item_id, loading: "lazy", height: 48 });
  if (item.row) return make("span", { class: "words" }, Object.entries(item.row).map(([name, value]) => `${name}: ${value}`).join(" · "));
  return make("span", { class: "words" }, item.text ?? item.link ?? item.item_id);
}

/** The kinds that this project's items can be labelled by. */
export const kindsHere = () => Object.keys(KINDS).filter((kind) => page.columns.length || ["model", "crowd"].includes(kind));
