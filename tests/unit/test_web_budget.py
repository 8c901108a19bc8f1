"""The bytes of script and style that a page loads stay within the budget kept in the repository."""

from __future__ import annotations

from pathlib import Path

from webapp import asset_sizes


def test_every_page_keeps_its_budget() -> None:
    found = asset_sizes.measure()
    assert {"label", "project"} <= {one.page for one in found}
    assert [one for one in found if not one.is_within] == []


def test_a_page_counts_what_it_imports_at_once_and_each_chunk_once(tmp_path: Path) -> None:
    (tmp_path / "app.css").write_text("x" * 7)
    (tmp_path / "early.js").write_text("e" * 30)
    (tmp_path / "label.js").write_text('import{a}from"./part-A.js";import"./part-B.js";import("./part-C.js");')
    (tmp_path / "part-A.js").write_text('import"./part-B.js";export{a};' + "y" * 100)
    (tmp_path / "part-B.js").write_text("z" * 50)
    (tmp_path / "part-C.js").write_text("z" * 5000)
    (tmp_path / "budget.json").write_text('{"js": {"*": 200}, "css": 10}')
    [one] = asset_sizes.measure(tmp_path, tmp_path / "budget.json")
    sizes = {name: (tmp_path / name).stat().st_size for name in ("early.js", "label.js", "part-A.js", "part-B.js")}
    assert (one.js, one.css) == (sum(sizes.values()), 7) and not one.is_within
