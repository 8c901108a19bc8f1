"""The zip that grows entry by entry."""

from __future__ import annotations

import zipfile
from pathlib import Path

from webapp.transfer.writers.parts import Parts
from webapp.transfer.writers.zip_stream import ZipStream


def test_a_zip_that_grows_is_read_by_zipfile_also_above_65535_entries(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "parts", {})
    made = ZipStream(parts)
    for n in range(70_000):
        made.add(f"d/{n}.txt", b"", is_packed=False)
    made.add("ü.txt", b"abc" * 1000)
    made.finish(tmp_path / "a.zip")
    parts.drop()
    with zipfile.ZipFile(tmp_path / "a.zip") as back:
        assert len(back.namelist()) == 70_001 and back.read("ü.txt") == b"abc" * 1000
