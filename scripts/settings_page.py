"""Writes docs/settings.md from labelloop.settings, so that the page cannot lie.

Called as `python -m scripts.settings_page`; a test compares its text with the page.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from labelloop.settings import AREAS, Settings

PAGE = Path(__file__).parent.parent / "docs" / "settings.md"
HEAD = """# Settings

Read once at start: a TOML file (`--settings FILE`), then the environment, which wins: `LABELLOOP_<AREA>_<FIELD>`, for example
`LABELLOOP_WEB_PORT=9000`. Lists are separated by commas in the environment. An unknown name or a value out of range stops the
start with a sentence that names it. This page is generated from `labelloop/settings.py`.

`state_dir` (`LABELLOOP_STATE_DIR`, default `state`): folder of this machine's own state: keys, logs, embedded broker, SQLite.
"""


def _row(name: str, default: Any, hint: Any) -> str:
    meta = next(m for m in hint.__metadata__ if isinstance(m, msgspec.Meta))
    shown = ", ".join(default) if isinstance(default, tuple) else str(default)
    return f"| `{name}` | `{shown or '-'}` | {meta.description} |"


def settings_page() -> str:
    """Return the page as Markdown."""
    parts = [HEAD]
    for area in AREAS:
        kind = type(getattr(Settings(), area))
        hints = get_type_hints(kind, include_extras=True)
        rows = [_row(f.name, getattr(kind(), f.name), hints[f.name]) for f in msgspec.structs.fields(kind)]
        parts.append(
            f"\n## {area}\n\n{kind.__doc__}\n\n| setting | default | meaning |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n"
        )
    return "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(settings_page(), encoding="utf-8")
