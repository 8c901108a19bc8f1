"""What spans are found without our model: a dictionary of the same labels, and CRFsuite with the usual features of words.

Owns both baselines. Must never be imported by anything but a benchmark. Called by `scripts.bench_spans`.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from learning.algorithms.tags import runs_of, tags_of
from learning.regions import Regions

Word = tuple[int, int]


class Text(NamedTuple):
    """A text, the places of its words (as our model sees them) and its true spans."""

    content: str
    words: tuple[Word, ...]
    truth: Regions


def regions_of(spans: Sequence[tuple[int, int, int]]) -> Regions:
    """Return spans (start, end, label), all with score 1."""
    where = np.array([one[:2] for one in spans], np.float32).reshape(-1, 2)
    return Regions(where, np.array([one[2] for one in spans], np.int64), np.ones(len(spans), np.float32))


def by_dictionary(labelled: Sequence[Text], asked: Sequence[Text]) -> list[Regions]:
    """Return the longest match at each word of what a person has marked before, in any case, with its most frequent label."""
    votes: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for text in labelled:
        for (start, end), label in zip(text.truth.where.astype(int), text.truth.labels, strict=True):
            votes[text.content[start:end].lower()][int(label)] += 1
    known = {name: counts.most_common(1)[0][0] for name, counts in votes.items()}
    return [_matches(text, known) for text in asked]


def _matches(text: Text, known: dict[str, int]) -> Regions:
    found: list[tuple[int, int, int]] = []
    at = 0
    while at < len(text.words):
        start = text.words[at][0]
        ends = ((last, text.words[last][1]) for last in range(len(text.words) - 1, at - 1, -1))
        match = next(((last, end) for last, end in ends if text.content[start:end].lower() in known), None)
        if match:
            found.append((start, match[1], known[text.content[start : match[1]].lower()]))
        at = match[0] + 1 if match else at + 1
    return regions_of(found)


def has_crfsuite() -> bool:
    """Return whether python-crfsuite is there to be measured."""
    return importlib.util.find_spec("pycrfsuite") is not None


def by_crfsuite(labelled: Sequence[Text], asked: Sequence[Text]) -> tuple[list[Regions], float]:
    """Return what CRFsuite finds and its processor seconds of training: L-BFGS, penalties and features as in its tutorial."""
    import pycrfsuite

    begun = time.process_time()
    trainer = pycrfsuite.Trainer(verbose=False)
    for text in labelled:
        tags = tags_of(text.truth, np.array(text.words, np.int64).reshape(-1, 2))
        trainer.append(_looks(text), [str(tag) for tag in tags])
    trainer.set_params({"c1": 0.05, "c2": 0.1, "max_iterations": 100, "feature.possible_transitions": True})
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "crf")
        trainer.train(path)
        seconds = time.process_time() - begun
        tagger = pycrfsuite.Tagger()
        tagger.open(path)
        found = [_regions(text, tagger.tag(_looks(text))) for text in asked]
        tagger.close()
    return found, seconds


def _regions(text: Text, said: Sequence[str]) -> Regions:
    tags, before = [], 0
    for tag in map(int, said):
        before = tag - 1 if tag and tag % 2 == 0 and before not in (tag, tag - 1) else tag  # an I without its B begins a span
        tags.append(before)
    return regions_of([(text.words[a][0], text.words[b][1], k) for a, b, k in runs_of(np.array(tags, np.int64))])


def _looks(text: Text) -> list[list[str]]:
    words = [text.content[a:b] for a, b in text.words]
    low = ["<address>" if word.startswith("http") else word.lower() for word in words]
    shapes = [
        "".join("X" if c.isupper() else "0" if c.isdigit() else "x" if c.isalpha() else c for c in word[:8]) for word in words
    ]
    out = []
    for at in range(len(words)):
        found = ["bias", f"p3={low[at][:3]}", f"s2={low[at][-2:]}"]
        for place in range(max(at - 2, 0), min(at + 3, len(words))):
            found += [f"{place - at}w={low[place]}", f"{place - at}shape={shapes[place]}"]
            if abs(place - at) < 2:
                found.append(f"{place - at}s3={low[place][-3:]}")
        found += ["first"] * (at == 0) + ["last"] * (at == len(words) - 1)
        out.append(found)
    return out


def _kind(char: str) -> str:
    return "X" if char.isupper() else "0" if char.isdigit() else "x" if char.isalpha() else char
