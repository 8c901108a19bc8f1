"""The page on membership names tests that exist: a rule whose test was renamed or removed must not look proved."""

from __future__ import annotations

import re
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
PAGE = CHECKOUT / "docs" / "developer" / "membership.md"
_NAME = re.compile(r"`([a-z0-9]+(?:_[a-z0-9]+){2,})(\.\.\.)?`")


def test_every_test_that_the_page_names_exists() -> None:
    files = (CHECKOUT / "tests").rglob("test_*.py")
    known = {name for file in files for name in re.findall(r"^def test_(\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)}
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    named = [match for line in rows for match in _NAME.findall(line.rsplit("|", 2)[1])]
    assert len(named) > 25
    for name, is_short in named:
        assert any(other.startswith(name) if is_short else other == name for other in known), name
