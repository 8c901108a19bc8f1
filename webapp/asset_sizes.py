"""How many bytes of script and style each page loads, and how many it may: the budget kept in webapp/frontend/budget.json.

Owns the reading of the built files. Called by a test and by `scripts/bench page`.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

HERE = Path(__file__).resolve().parent
DIST = HERE / "static" / "dist"
EARLY = "early.js"
_IMPORT = re.compile(r"""(?:\bfrom|\bimport)\s*["']\./([\w.-]+\.js)["']""")


class Budget(msgspec.Struct, frozen=True):
    """Most bytes of script by page ('*' = every other) and of style."""

    js: dict[str, int]
    css: int


class PageBytes(msgspec.Struct, frozen=True):
    """What one page loads at once, and what it may."""

    page: str
    js: int
    css: int
    most_js: int
    most_css: int

    @property
    def is_within(self) -> bool:
        """Return whether the budget is kept."""
        return self.js <= self.most_js and self.css <= self.most_css


def measure(dist: Path = DIST, budget_file: Path = HERE / "frontend" / "budget.json") -> tuple[PageBytes, ...]:
    """Return every page's bytes, with all of `early.js`; what is imported only when it is needed (`import()`) does not."""
    budget = msgspec.json.decode(budget_file.read_bytes(), type=Budget)
    css = (dist / "app.css").stat().st_size
    early = (dist / EARLY).stat().st_size
    pages = sorted(path.stem for path in dist.glob("*.js") if not path.stem.startswith("part-") and path.name != EARLY)
    return tuple(
        PageBytes(page, early + _script_bytes(dist, f"{page}.js", set()), css, budget.js.get(page, budget.js["*"]), budget.css)
        for page in pages
    )


def _script_bytes(dist: Path, name: str, seen: set[str]) -> int:
    if name in seen:
        return 0
    seen.add(name)
    text = (dist / name).read_text(encoding="utf-8")
    return len(text.encode()) + sum(_script_bytes(dist, found, seen) for found in _IMPORT.findall(text))
