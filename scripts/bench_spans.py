"""`bench spans`: `token-head` on real texts beside a dictionary of the same labels and CRFsuite, and what its drafts cost people.

Owns the order of labelling and the tables. All learn from the same sentences and are judged on the same fixed fifth, which no pool
holds. Called by `scripts/bench spans`.

    scripts/bench spans [--sample entities|addresses] [--only labelled|loop] [--seeds N] [--cache FOLDER] [--json FILE]

Seconds of training are this process's own on a processor, which other work on the machine does not lengthen much.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray

from intake.encoders import find_encoder
from intake.encoders.words import find_words
from learning.algorithms import find_algorithm
from learning.algorithms.token_model import TokenModel
from learning.metrics_regions import corrections, least_confidence, span_f1, surer_than
from learning.regions import Regions
from learning.token_rows import MAX_WORDS
from scripts.samples import Sample, SampleItem, load_sample
from scripts.span_rivals import Text, by_crfsuite, by_dictionary, has_crfsuite, regions_of

SIZES = (50, 100, 200, 500, 1000)
ROUND = 100
ROUNDS = 8
EMBEDDED = 100


class Bench:
    """Pool and test part of one sample project, embedded once."""

    def __init__(self, sample: Sample) -> None:
        self.n_labels = len(sample.labels)
        self.pool, self.test = _texts(sample.pool(), sample.labels), _texts(sample.test(), sample.labels)
        encoder = find_encoder("minilm-tokens")
        self.x, self.x_test = (encoder.encode([text.content for text in texts]) for texts in (self.pool, self.test))

    def embedding(self) -> dict[str, float]:
        """Return texts a second and core of the words' encoder beside the texts' own encoder, which runs the same model."""
        contents, out = [text.content for text in self.test[:EMBEDDED]], {}
        for name in ("minilm-l6", "minilm-tokens"):
            encoder = find_encoder(name)
            encoder.encode(contents[:1])
            begun = time.process_time()
            encoder.encode(contents)
            out[name] = round(len(contents) / (time.process_time() - begun), 1)
        return {**out, "ratio": round(out["minilm-tokens"] / out["minilm-l6"], 2)}

    def train(self, rows: NDArray[np.int64], seed: int, served: TokenModel | None = None) -> TokenModel:
        """Return the model of the pool's `rows`."""
        truth = [self.pool[row].truth for row in rows]
        training = find_algorithm("token-head").start(self.x[rows], truth, self.n_labels, seed=seed, start_from=served)
        for _ in range(training.steps):
            training.advance()
        model = training.model()
        assert isinstance(model, TokenModel)
        return model

    def order(self, seed: int) -> NDArray[np.int64]:
        """Return the order in which this seed's sentences are labelled."""
        return np.random.default_rng(seed).permutation(len(self.pool))


def main(argv: Sequence[str]) -> dict[str, Any]:
    """Run both tables on each sample asked for."""
    parser = argparse.ArgumentParser(prog="bench spans")
    parser.add_argument("--sample", action="append", choices=("entities", "addresses"))
    parser.add_argument("--only", choices=("labelled", "loop"))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "labelloop" / "samples")
    args = parser.parse_args(list(argv))
    return {
        name: _figures(load_sample(name, args.cache), args.seeds, args.only) for name in args.sample or ("entities", "addresses")
    }


def _figures(sample: Sample, seeds: int, only: str | None = None) -> dict[str, Any]:
    bench = Bench(sample)
    n_spans = [sum(len(text.truth.labels) for text in texts) for texts in (bench.pool, bench.test)]
    found: dict[str, Any] = {
        "pool_texts": len(bench.pool),
        "pool_spans": n_spans[0],
        "test_texts": len(bench.test),
        "test_spans": n_spans[1],
        "crfsuite": "measured" if has_crfsuite() else "not installed: pip install python-crfsuite to measure it",
        "embedded_texts_per_core_s": bench.embedding(),
        "seeds": seeds,
        "labelled": {},
    }
    if only != "loop":
        for size in [size for size in SIZES if size <= len(bench.pool)]:
            found["labelled"][size] = _compared([_line(bench, size, seed) for seed in range(seeds)])
            print(f"{sample.name} {size}: {found['labelled'][size]}", file=sys.stderr, flush=True)
    if only != "labelled":
        found["corrections_per_100"] = _loops(bench, seeds)
        print(f"{sample.name} corrections per 100 spans: {found['corrections_per_100']}", file=sys.stderr, flush=True)
    return found


def _line(bench: Bench, size: int, seed: int) -> dict[str, float]:
    """Return F1 on the test part and seconds after `size` labelled texts."""
    rows, truth = bench.order(seed)[:size], [text.truth for text in bench.test]
    labelled = [bench.pool[row] for row in rows]
    begun = time.process_time()
    model = bench.train(rows, seed)
    trained = time.process_time()
    said = model.predict_regions(bench.x_test)
    asked = time.process_time()
    line = {"f1": span_f1(truth, said), "train_s": trained - begun, "predicted_texts_per_s": len(truth) / (asked - trained)}
    line["dictionary_f1"] = span_f1(truth, by_dictionary(labelled, bench.test))
    if has_crfsuite():
        theirs, line["crfsuite_train_s"] = by_crfsuite(labelled, bench.test)
        line["crfsuite_f1"] = span_f1(truth, theirs)
    return line


def _compared(lines: list[dict[str, float]]) -> dict[str, float]:
    """Return means over the seeds, the spread of the F1s, and how many times the baselines' F1 ours is."""
    out = {name: round(mean(line[name] for line in lines), 3) for name in lines[0]}
    if len(lines) > 1:
        out |= {f"{name}_sd": round(stdev([line[name] for line in lines]), 3) for name in lines[0] if name.endswith("f1")}
    for rival in ("dictionary", "crfsuite"):
        if out.get(f"{rival}_f1"):
            out[f"times_{rival}"] = round(out["f1"] / out[f"{rival}_f1"], 2)
    return out


def _loops(bench: Bench, seeds: int) -> dict[int, float]:
    """Return by number of labels the mean corrections per 100 spans that the next texts' drafts need; 0 labels = no draft."""
    rounds = [_loop(bench, seed) for seed in range(seeds)]
    return {labels: round(mean(one[labels] for one in rounds), 1) for labels in rounds[0]}


def _loop(bench: Bench, seed: int) -> dict[int, float]:
    """Label in rounds: each round's drafts are the last round's model's, shown from the confidence that served that round best."""
    order, out = bench.order(seed), {0: 100.0}
    model: TokenModel | None = None
    least = 0.5
    for labels in range(ROUND, ROUND * (ROUNDS + 1), ROUND):
        model = bench.train(order[:labels], seed, model)
        rows = order[labels : labels + ROUND]
        truth: list[Regions] = [bench.pool[row].truth for row in rows]
        drafts = model.predict_regions(bench.x[rows])
        out[labels] = corrections(truth, surer_than(drafts, least)).per_100
        print(f"seed {seed}, {labels} labels: {out[labels]:.1f} corrections per 100 spans", file=sys.stderr, flush=True)
        least = least_confidence(truth, drafts)
    return out


def _texts(items: Sequence[SampleItem], labels: Sequence[str]) -> list[Text]:
    found = []
    for item in items:
        content = item.content.decode()
        spans = [(int(one.where[0]), int(one.where[1]), labels.index(one.label)) for one in item.regions]
        found.append(Text(content, tuple(find_words(content, MAX_WORDS)), regions_of(spans)))
    return found
