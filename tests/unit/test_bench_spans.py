"""The baselines of `bench spans` do what they are said to do, and its figures are those of the models it names."""

from __future__ import annotations

import numpy as np
import pytest

from intake.encoders.words import find_words
from scripts import bench_spans, span_rivals
from scripts.samples import Sample, SampleItem
from scripts.span_texts import read_tagged_lines

LABELS = ("person", "place")
TAGGED = {
    "Ada saw New York": ["B-person", "O", "B-place", "I-place"],
    "in York Ada sat": ["O", "B-place", "B-person", "O"],
    "nobody came": ["O", "O"],
    "ada met ada": ["B-person", "O", "B-person"],
}


def sample(n: int = 60) -> Sample:
    found = [
        read_tagged_lines("\n".join(f"{w}\t{t}" for w, t in zip(text.split(), tags, strict=True)))[0]
        for text, tags in TAGGED.items()
    ]
    items = tuple(
        SampleItem(f"entity-{i:04d}", f"{found[i % 4][0]} {i}".encode(), "text/plain", "", found[i % 4][1]) for i in range(n)
    )
    return Sample("entities", "Entities", "token-classification", LABELS, 0.9, items)


def test_the_dictionary_takes_the_longest_match_in_any_case_with_its_most_frequent_label() -> None:
    texts = bench_spans._texts(sample().items, LABELS)
    (asked,) = bench_spans._texts([SampleItem("a", b"ADA left new york for York", "", "")], LABELS)
    (found,) = span_rivals.by_dictionary(texts, [asked])
    cut = [asked.content[int(a) : int(b)] for a, b in found.where]
    assert list(zip(cut, found.labels.tolist(), strict=True)) == [("ADA", 0), ("new york", 1), ("York", 1)]
    assert len(span_rivals.by_dictionary([], [asked])[0].labels) == 0


@pytest.mark.parametrize(
    ("said", "spans"),
    [
        (["1", "2", "0", "3"], [(0, 7, 0), (13, 16, 1)]),
        (["2", "2", "4", "0"], [(0, 7, 0), (8, 12, 1)]),
        (["1", "4", "4", "2"], [(0, 3, 0), (4, 12, 1), (13, 16, 0)]),
    ],
)
def test_crfsuites_tags_become_spans_however_malformed(said: list[str], spans: list[tuple[int, int, int]]) -> None:
    content = "Ada saw York now"
    text = span_rivals.Text(content, tuple(find_words(content, 64)), span_rivals.regions_of([]))
    found = span_rivals._regions(text, said)
    assert [(int(a), int(b), int(k)) for (a, b), k in zip(found.where, found.labels, strict=True)] == spans


def test_the_figures_have_every_baseline_and_corrections_fall(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_spans, "SIZES", (24, 500))
    monkeypatch.setattr(bench_spans, "ROUND", 12)
    monkeypatch.setattr(bench_spans, "ROUNDS", 2)
    monkeypatch.setattr(bench_spans, "EMBEDDED", 3)
    monkeypatch.setattr(span_rivals.importlib.util, "find_spec", lambda _: None)  # type: ignore[attr-defined]
    figures = bench_spans._figures(sample(), 1)
    assert figures["pool_texts"] + figures["test_texts"] == 60
    assert set(figures["labelled"]) == {24}, "no more labels than the pool has texts"
    line = figures["labelled"][24]
    assert line["f1"] > 0.9
    assert line["times_dictionary"] == pytest.approx(line["f1"] / line["dictionary_f1"], abs=0.01)
    assert "python-crfsuite" in figures["crfsuite"]
    needed = list(figures["corrections_per_100"].values())
    assert needed[0] == 100
    assert needed[-1] < 20
    assert np.argmin(needed) > 0
