"""Weak supervision beside Snorkel in the same run: label models on 100,000 x 20 votes, and rules over texts.

Owns the synthetic votes, of which accuracies and truth are known, and the comparison. Snorkel takes part where it can be imported;
it is no dependency: `pip install --target DIR --no-deps snorkel munkres tensorboard`, then PYTHONPATH=DIR. Must never report a
time without the accuracy that it bought. Called by `scripts.bench_learning` and by hand: `python -m scripts.bench_learning_weak`.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from learning.weak import Items, Posterior, apply_rules, fit, summarise
from learning.weak.rules import Condition, Keywords, NumberRange, Pattern, Rule

N_ITEMS = 100_000
N_RULES = 20
N_TEXTS = 20_000
EPOCHS = 500  # of Snorkel's training, as its tutorials have it
T = TypeVar("T")


class Task(NamedTuple):
    """Votes (n, m), the truth (n,) behind them and the class balance they were drawn with."""

    votes: NDArray[np.int16]
    truth: NDArray[np.int64]
    balance: NDArray[np.float64]


def draw_votes(n: int, m: int, balance: Sequence[float], seed: int) -> Task:
    """Return votes of independent rules of coverage 0.1 to 0.6 and accuracy 0.5 to 0.9, wrong votes spread evenly."""
    rng = np.random.default_rng(seed)
    k = len(balance)
    truth = rng.choice(k, n, p=balance)
    votes = np.full((n, m), -1, dtype=np.int16)
    for rule in range(m):
        coverage, accuracy = rng.uniform(0.1, 0.6), rng.uniform(0.5, 0.9)
        said = np.where(rng.random(n) < accuracy, truth, (truth + rng.integers(1, k, n)) % k)
        votes[:, rule] = np.where(rng.random(n) < coverage, said, -1)
    return Task(votes, truth, np.array(balance))


def draw_one_label_votes(n: int, m: int, balance: Sequence[float], seed: int) -> Task:
    """Return votes of rules that each say one label only, as keywords do: coverage 0.05 to 0.4, precision 0.55 to 0.95."""
    rng = np.random.default_rng(seed)
    k = len(balance)
    truth = rng.choice(k, n, p=balance)
    votes = np.full((n, m), -1, dtype=np.int16)
    for rule in range(m):
        label, coverage, precision = rule % k, rng.uniform(0.05, 0.4), rng.uniform(0.55, 0.95)
        fires = np.full(k, coverage * (1 - precision) / (1 - balance[label]))
        fires[label] = min(1.0, coverage * precision / balance[label])
        votes[rng.random(n) < fires[truth], rule] = label
    return Task(votes, truth, np.array(balance))


TASKS: dict[str, Callable[[], Task]] = {
    "k2": lambda: draw_votes(N_ITEMS, N_RULES, (0.6, 0.4), 1),
    "k5": lambda: draw_votes(N_ITEMS, N_RULES, (0.3, 0.25, 0.2, 0.15, 0.1), 2),
    "k2_one_label_rules": lambda: draw_one_label_votes(N_ITEMS, N_RULES, (0.6, 0.4), 3),
    "k5_one_label_rules": lambda: draw_one_label_votes(N_ITEMS, N_RULES, (0.3, 0.25, 0.2, 0.15, 0.1), 4),
}


def figures(rounds: int = 3) -> dict[str, Any]:
    """Return all figures: each label model's seconds (fit and predict, best of `rounds`), accuracy and log loss, and ratios.

    `cpu_s` is the processor time of a round: it tells more than `seconds` where other work shares the machine.
    """
    return {
        "label_model": {name: _compare(make(), rounds) for name, make in TASKS.items()},
        "rules": _rules(rounds),
        "rival": "snorkel" if _snorkel() is not None else None,
    }


def _compare(task: Task, rounds: int) -> dict[str, Any]:
    """Own methods beside Snorkel's, both told the balance and both not told."""
    found: dict[str, Any] = {}
    k = len(task.balance)
    for method in ("majority", "dawid-skene", "matrix-completion"):
        for suffix, balance in (("", task.balance), ("_balance_unknown", None)):

            def run(method: str = method, balance: Any = balance) -> Posterior:
                return fit(task.votes, k, method=method, balance=balance).predict(task.votes)

            found[method.replace("-", "_") + suffix] = _judge(task, rounds, lambda run=run: run().proba)  # type: ignore[misc]
    if _snorkel() is not None:
        for suffix, balance in (("", task.balance), ("_balance_unknown", None)):
            found["snorkel" + suffix] = _judge(task, min(rounds, 2), lambda balance=balance: _fit_snorkel(task, balance))  # type: ignore[misc]
        found["ratios"] = _ratios(found)
    found["summary_s"] = round(_time(rounds, lambda: summarise(tuple(map(str, range(N_RULES))), task.votes, k, task.truth))[0], 4)
    return found


def _ratios(found: dict[str, Any]) -> dict[str, Any]:
    """Return by how much Snorkel takes longer and what accuracy we have more, method by method on the same knowledge."""
    out: dict[str, Any] = {}
    for suffix in ("", "_balance_unknown"):
        rival = found["snorkel" + suffix]
        for method in ("dawid_skene", "matrix_completion"):
            mine = found[method + suffix]
            out[method + suffix] = {
                "times_faster": round(rival["seconds"] / mine["seconds"], 1),
                "times_less_processor": round(rival["cpu_s"] / mine["cpu_s"], 1),
                "accuracy_gained": round(mine["accuracy"] - rival["accuracy"], 4),
            }
    return out


def _judge(task: Task, rounds: int, run: Callable[[], NDArray[Any]]) -> dict[str, float]:
    begin_s = time.process_time()
    seconds, proba = _time(rounds, run)
    cpu_s = (time.process_time() - begin_s) / max(rounds, 1)
    is_covered = (task.votes >= 0).any(axis=1)
    said = proba[np.arange(len(proba)), task.truth][is_covered]
    return {
        "seconds": round(seconds, 4),
        "cpu_s": round(cpu_s, 4),
        "accuracy": round(float((proba.argmax(axis=1) == task.truth)[is_covered].mean()), 4),
        "log_loss": round(float(-np.log(np.maximum(said, 1e-9)).mean()), 4),
    }


def _time(rounds: int, run: Callable[[], T]) -> tuple[float, T]:
    best = float("inf")
    for _ in range(max(rounds, 1)):
        begin_s = time.perf_counter()
        answer = run()
        best = min(best, time.perf_counter() - begin_s)
    return best, answer


def _snorkel() -> Any:
    try:
        from snorkel.labeling.model import LabelModel
    except ImportError:
        return None
    return LabelModel


def _fit_snorkel(task: Task, balance: NDArray[np.float64] | None) -> NDArray[Any]:
    votes = task.votes.astype(np.int64)
    model = _snorkel()(cardinality=len(task.balance), verbose=False)
    known = None if balance is None else balance.tolist()
    model.fit(votes, n_epochs=EPOCHS, log_freq=10**6, seed=0, class_balance=known, progress_bar=False)
    proba: NDArray[Any] = model.predict_proba(votes)
    return proba


WORDS = ["free", "money", "offer", "report", "meeting", "invoice", "team", "game", "score", "doctor", "patient", "train", "window"]


def _make_items(n: int) -> tuple[list[str], list[float]]:
    rng = np.random.default_rng(0)
    vocabulary = np.array(WORDS + [f"word{number}" for number in range(3000)])
    rank = rng.zipf(1.3, (n, 30)) % len(vocabulary)
    texts = [" ".join(row) + f" {price} $" for row, price in zip(vocabulary[rank], rng.integers(1, 999, n), strict=True)]
    return texts, rng.uniform(0, 1000, n).tolist()


def _rule_pairs() -> list[tuple[Rule, Callable[[str, float], bool]]]:
    """Return 20 rules as data with the Python function that a person would have written for each."""
    pairs: list[tuple[Rule, Callable[[str, float], bool]]] = []
    for word in WORDS[:10]:
        whole = re.compile(rf"\b{word}\b", re.IGNORECASE)
        rule = Keywords(name=f"keyword {word}", label=0, field="text", words=(word,))
        pairs.append((rule, lambda text, price, whole=whole: whole.search(text) is not None))  # type: ignore[misc]
    for digits in range(1, 5):
        pattern = rf"\b[0-9]{{{digits}}} \$"
        compiled = re.compile(pattern)
        found = Pattern(name=f"pattern {digits}", label=1, field="text", pattern=pattern)
        pairs.append((found, lambda text, price, compiled=compiled: compiled.search(text) is not None))  # type: ignore[misc]
    for low in (100.0, 500.0, 900.0):
        number = NumberRange(name=f"number {low}", label=1, field="price", at_least=low)
        pairs.append((number, lambda text, price, low=low: price >= low))  # type: ignore[misc]
        both = Condition(name=f"both {low}", label=0, when=f"price < {low} and not text contains 'money'")
        pairs.append((both, lambda text, price, low=low: price < low and "money" not in text.casefold()))  # type: ignore[misc]
    return pairs


def _rules(rounds: int) -> dict[str, Any]:
    """20 rules over texts: by columns, against a loop over items that calls one Python function a rule."""
    texts, prices = _make_items(N_TEXTS)
    pairs = _rule_pairs()
    rules = [rule for rule, _ in pairs]

    def by_loop() -> NDArray[np.bool_]:
        rows = [[test(text, price) for _, test in pairs] for text, price in zip(texts, prices, strict=True)]
        return np.array(rows)

    begin_s = time.process_time()
    seconds, votes = _time(rounds, lambda: apply_rules(rules, Items({"text": texts, "price": prices}), 2))
    middle_s = time.process_time()
    loop_s, fires = _time(rounds, by_loop)
    cpu_s, loop_cpu_s = middle_s - begin_s, time.process_time() - middle_s
    if not np.array_equal(votes >= 0, fires):
        raise AssertionError("rules as data and as Python functions disagree")
    return {
        "texts": N_TEXTS,
        "rules": len(rules),
        "seconds": round(seconds, 4),
        "python_loop_s": round(loop_s, 4),
        "cpu_s": round(cpu_s / rounds, 4),
        "times_faster": round(loop_s / seconds, 2),
        "times_less_processor": round(loop_cpu_s / cpu_s, 2),
    }


def main(argv: Sequence[str]) -> dict[str, Any]:
    """Run the benchmark and return its figures."""
    parser = argparse.ArgumentParser(prog="bench learning-weak")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(list(argv))
    found = figures(args.rounds)
    if args.json is not None:
        args.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:]), indent=2))
