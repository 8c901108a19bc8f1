// What every page shares: the page's data, texts in the reader's language, calls to the app, messages for screen readers.

/** The JSON the server put into the page: {csrf, locale, texts, ...}. */
export const page = JSON.parse(document.getElementById("page-data")?.textContent ?? "{}");

/** The sentence for `key` in the page's language, with {name} filled in. */
export function text(key, values = {}) {
  const found = page.texts?.[key] ?? key;
  return found.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));
}

/** An error answer of the app: `status`, its `code` and a sentence. `status` 0 = the app did not answer. */
export class AppError extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }

  get isRetryable() {
    return this.status === 0 || this.status === 429 || this.status >= 502;
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
  if (!answer.ok) throw new AppError(answer.status, data.code ?? "internal", data.message ?? text("failed", { status: answer.status }));
  return data;
}

/** Say `sentence` to a screen reader without moving the focus. */
export function announce(sentence) {
  const region = document.getElementById("announcer");
  if (region) region.textContent = sentence;
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
