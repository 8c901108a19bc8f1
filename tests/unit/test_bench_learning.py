"""`bench learning` finds its sections, and says of each rival what it did."""

from __future__ import annotations

import importlib.util

import pytest

from scripts import learning_rivals
from scripts.bench_learning import sections
from scripts.bench_learning_query import _beside, _line
from scripts.benchmarks import list_benchmarks


def test_a_section_is_no_benchmark_of_its_own() -> None:
    assert "learning" in list_benchmarks()
    assert not [name for name in list_benchmarks() if name.startswith("learning-")]
    assert "infer-cluster" in list_benchmarks(), "a name of two words that no other benchmark begins"
    assert "query" in sections()


def test_a_line_has_own_seconds_beside_the_baselines_and_each_rivals() -> None:
    calls: list[str] = []

    def fails() -> None:
        raise ValueError("not for three classes")

    line = _line(("a bare pass", lambda: calls.append("bare")), lambda: calls.append("own"), at_most=2.0)
    assert calls[:4] == ["bare", "own", "bare", "own"], "in turns"
    assert {"own_s", "baseline_s", "ratio", "ratio_cpu", "ratio_wanted_at_most"} <= set(line)
    line = {**line, "own_s": 1e-9, "own_cpu_s": 1e-9}
    got = _beside(line, {"one": lambda: sum(range(10_000)), "two": fails})
    assert got["one"]["times"] > 1
    assert got["two"] == {"fails": "ValueError: not for three classes"}


def test_missing_rivals_are_named_with_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert [sentence.split()[0] for sentence in learning_rivals.missing()] == ["scikit-activeml", "alipy"]
    assert all("add the extra" in sentence for sentence in learning_rivals.missing())
