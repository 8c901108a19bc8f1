// The list of this page's keys: `?` opens it on every page, unless a field is being written in; Esc closes it, as every dialog's.
// Imported for its effect by the one script that each page has; the list itself is written by the templates (base.html).

const TYPED = "textarea, select, input:not([type=checkbox], [type=radio], [type=button], [type=submit], [type=range], [type=file])";

export const help = document.getElementById("help");

const open = () => help.open || help.showModal();

/** Close it; where no part of the page had the focus, none of the list keeps it, or the next key would be lost. */
function close() {
  help.close();
  if (help.contains(document.activeElement)) document.activeElement.blur();
}

document.getElementById("help-open").addEventListener("click", open);
for (const button of help.querySelectorAll("[data-close]")) button.addEventListener("click", close);
help.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  event.preventDefault();
  event.stopPropagation();
  close();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "?" || event.defaultPrevented || event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches(TYPED) || event.target.isContentEditable || document.querySelector("dialog[open]")) return;
  event.preventDefault();
  open();
});
