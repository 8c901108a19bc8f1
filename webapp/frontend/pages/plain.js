// Pages that are forms: htmx, and moments in the reader's time zone.
import "htmx.org";
import "../parts/help.js";
import { retell } from "../parts/times.js";

retell();
document.addEventListener("htmx:afterSwap", retell);
