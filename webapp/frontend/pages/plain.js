// Pages that are forms: htmx alone.
import "htmx.org";
