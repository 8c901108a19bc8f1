// What every page shares: the page's data, texts in the reader's language, calls to the app, messages for screen readers.

/** The JSON the server put into the page: {csrf, locale, user, texts, sentences, ...}. */
export const page = JSON.parse(document.getElementById("page-data")?.textContent ?? "{}");

/** The sentence for `key` in the page's language, with {name} filled in. */
export function text(key, values = {}) {
  return fill(page.texts?.[key] ?? key, values);
}

function fill(template, values) {
  return template.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));
}

const patterns = (page.sentences ?? []).map(([english, translated]) => {
  const source = english.split(/(\{\w+\})/).map((part) => {
    const name = /^\{(\w+)\}$/.exec(part)?.[1];
    return name ? `(?<${name}>.+?)` : part.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  });
  return [new RegExp(`^${source.join("")}$`, "s"), translated];
});

/** A sentence of the cluster or the app in the reader's language, its figures kept; one that is not known stays as it is. */
export function sentence(said) {
  for (const [pattern, translated] of patterns) {
    const found = pattern.exec(said ?? "");
    if (found) return fill(translated, Object.fromEntries(Object.entries(found.groups ?? {}).map(([name, part]) => [name, sentence(part)])));
  }
  return said ?? "";
}

/** An error answer of the app: `status`, its `code` and a sentence. `status` 0 = the app did not answer. */
export class AppError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }

  /** Whether the same call may succeed later: no answer, too busy, logged out, or something broken on the other side. */
  get isRetryable() {
    return [0, 401, 403, 408, 429].includes(this.status) || this.status >= 500;
  }
}

/** Call the app's API; returns its JSON. Throws AppError. */
export async function call(method, path, body) {
  let answer;
  try {
    answer = await fetch(`/api/v1${path}`, {
      method,
      headers: { Accept: "application/json", "X-CSRFToken": page.csrf, ...(body === undefined ? {} : { "Content-Type": "application/json" }) },
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
    });
  } catch {
    throw new AppError(0, "unreachable", text("offline"));
  }
  const data = await answer.json().catch(() => ({}));
  if (answer.status === 401) throw new AppError(401, "unauthenticated", text("log_in_again"));
  if (!answer.ok) throw new AppError(answer.status, data.code ?? "internal", data.message ? sentence(data.message) : text("failed", { status: answer.status }));
  return data;
}

/** Say `words` to a screen reader without moving the focus. */
export function announce(words) {
  const region = document.getElementById("announcer");
  if (region) region.textContent = words;
}

/** Make an element: attributes by name, `on…` as listeners, children as nodes or strings. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, String(value));
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

export const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;

/** A number as people read it: thousands apart, six digits of a fraction. */
export const figure = (number) => number.toLocaleString(page.locale === "zh" ? "zh-CN" : "en-GB", Number.isInteger(number) ? {} : { maximumSignificantDigits: 6 });
