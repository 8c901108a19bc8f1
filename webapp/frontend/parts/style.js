// Style sheets that come with a script: constructed ones, which the content security policy allows where it refuses style elements.

/** Use the rules in `css` for a document or a shadow root, once. */
export function adopt(root, css) {
  const kept = root.adoptedStyleSheets.find((sheet) => sheet.source === css);
  if (kept) return;
  const sheet = new CSSStyleSheet();
  sheet.replaceSync(css);
  sheet.source = css;
  root.adoptedStyleSheets = [...root.adoptedStyleSheets, sheet];
}
