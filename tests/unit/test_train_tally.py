"""Counts kept row by row equal counts made from the whole log."""

from __future__ import annotations

import random

import msgspec

from datastore_layout.labels import LabelRow
from labelloop.messages import Draft
from learning.held_out import is_held_out
from roles.train.tally import Tally

ROW = LabelRow(item_id="a", revision=1, link="file:///a", labels=("x",))


class Log:
    """A stand-in for the merged view: the newest row of each item."""

    def __init__(self) -> None:
        self.latest: dict[str, LabelRow] = {}

    def add(self, *rows: LabelRow) -> tuple[LabelRow, ...]:
        for row in rows:
            self.latest[row.item_id] = max(row, self.latest.get(row.item_id, row), key=lambda r: r.revision)
        return rows


def row(**changes: object) -> LabelRow:
    return msgspec.structs.replace(ROW, **changes)


def test_counts_kept_step_by_step_equal_counts_of_the_whole() -> None:
    chance, log, tally = random.Random(3), Log(), Tally(0.3, 50)
    trained: dict[str, int] = {}
    for step in range(600):
        one = row(
            item_id=f"i{chance.randrange(60)}",
            revision=1 + step // 50,
            labels=(chance.choice("abc"),),
            is_deleted=chance.random() < 0.2,
            error_code="unsafe_link" if chance.random() < 0.1 else "",
            proba=(0.9, 0.1, 0.0) if chance.random() < 0.3 else (),
        )
        tally.take(log.add(one), log.latest.get)
        good = {i: r for i, r in log.latest.items() if not (r.is_deleted or r.error_code)}
        if step % 97 == 0:
            trained = {i: r.revision for i, r in good.items()}
            tally.begin_run(trained)
        by_rules = {i for i, r in good.items() if r.proba}
        assert (tally.labels, tally.weak_labels) == (len(good) - len(by_rules), len(by_rules))
        assert tally.held_out == sum(is_held_out(i, 0.3) for i in good.keys() - by_rules)
        assert tally.classes == len({r.labels for i, r in good.items() if not is_held_out(i, 0.3)})
        now = {i: r.revision for i, r in good.items()}
        changed = {i for i in now.keys() | trained.keys() if now.get(i) != trained.get(i)}
        assert (tally.new_labels, tally.new_weak) == (len(changed - by_rules), len(changed & by_rules))
        assert {r.item_id: r for r in tally.rows} == good


def test_a_withdrawn_or_relabelled_item_speaks_with_its_newest_label_only() -> None:
    log, tally = Log(), Tally(0.2, 5)
    draft = Draft(labels=("x",), version="v1")
    tally.take(log.add(row(draft=draft), row(item_id="b", draft=draft)), log.latest.get)
    assert [d.labels for d in tally.drafted] == [("x",), ("x",)]
    tally.take(log.add(row(draft=draft, labels=("y",), revision=2)), log.latest.get)
    assert [d.labels for d in tally.drafted] == [("x",), ("y",)]
    tally.take(log.add(row(item_id="b", revision=2, is_deleted=True)), log.latest.get)
    assert [d.labels for d in tally.drafted] == [("y",)]


def test_what_rules_say_is_never_a_judgement_of_a_draft() -> None:
    log, tally = Log(), Tally(0.2, 5)
    draft = Draft(labels=("x",), version="v1")
    tally.take(log.add(row(draft=draft, proba=(0.8, 0.2))), log.latest.get)
    assert tally.drafted == ()
    tally.take(log.add(row(draft=draft, labels=("y",), revision=2)), log.latest.get)
    assert [d.labels for d in tally.drafted] == [("y",)]
    assert (tally.labels, tally.weak_labels) == (1, 0)  # a person's label replaces the rules'


def test_an_empty_multilabel_answer_is_a_class_of_its_own() -> None:
    log, tally = Log(), Tally(0.0, 5)
    tally.take(log.add(row(labels=()), row(item_id="b")), log.latest.get)
    assert tally.classes == 2
