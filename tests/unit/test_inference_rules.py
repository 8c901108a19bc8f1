"""Rules over items: what is asked of a worker, what a worker keeps, and what votes amount to."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from datastore_layout.labels import LabelRow, write_segment
from datastore_layout.root import Root, TaskFolder, create_root, task_folder
from datastore_layout.tasks import save_spec
from intake.loading import Loader
from labelloop.errors import InvalidInputError, LabelloopError, NotFoundError, NotReadyError, TooLargeError, UnreachableError
from labelloop.messages import Array, Item, RulesRequest, TaskExtraInfo, TaskSpec, VotesRequest, encode
from labelloop.settings import Settings
from learning.weak import ABSTAIN, Knowledge, Rule, write_rules
from learning.weak.rules import CrowdOpinion, Hypernym, Keywords, ModelOpinion, NumberRange
from roles.inference import rule_desk as desk_module
from roles.inference.calls import Reply, RulesWork
from roles.inference.predictor import Predictor
from roles.inference.rule_desk import RuleDesk
from roles.inference.voting import MOST_ITEMS, Voting
from roles.inference.weighing import NONE, weigh
from tests.support_inference import LABELS, matrix, publish_version, text_spec

ENCODER = "hash-ngram"


def texts(*said: str) -> tuple[Item, ...]:
    return tuple(Item(item_id=f"i{place}", link=f"data:text/plain,{urllib.parse.quote(text)}") for place, text in enumerate(said))


def says(word: str, label: int, name: str = "") -> Keywords:
    return Keywords(name=name or word, label=label, field="text", words=(word,))


@pytest.fixture
def root(tmp_path: Path) -> Root:
    return create_root(tmp_path / "root", "c1")


@pytest.fixture
def folder(root: Root) -> TaskFolder:
    folder = task_folder(root, "t1")
    save_spec(folder, text_spec("t1", ENCODER))
    return folder


@pytest.fixture
def desk(root: Root, folder: TaskFolder) -> RuleDesk:
    settings = Settings()
    return RuleDesk(Predictor(root, settings), settings.intake)


def votes_of(desk: RuleDesk, rules: Sequence[Rule], items: tuple[Item, ...], version: str = "") -> np.ndarray:
    work = RulesWork(call="", reply_to="", task="t1", version=version, rules=write_rules(rules), items=items)
    answer = desk.votes(work)
    return np.frombuffer(answer.data, np.int16).reshape(len(items), len(rules))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many links each reading of items asked for."""
    found: list[int] = []
    real = Loader.read

    def counted(self: Loader, links: Sequence[str], deadline: float | None = None) -> Any:
        found.append(len(links))
        return real(self, links, deadline)

    monkeypatch.setattr(Loader, "read", counted)
    yield found


# ---------------------------------------------------------------- a worker


def test_a_bad_link_fails_alone_and_has_no_vote(desk: RuleDesk) -> None:
    items = (*texts("good news", "bad news"), Item(item_id="no", link="http://169.254.169.254/x"))
    rules = (says("good", 1), says("news", 2))
    work = RulesWork(call="", reply_to="", task="t1", version="", rules=write_rules(rules), items=items)
    answer = desk.votes(work)
    assert [(error.item_id, error.code) for error in answer.failed] == [("no", "unsafe_link")]
    assert np.frombuffer(answer.data, np.int16).reshape(3, 2).tolist() == [[1, 2], [ABSTAIN, 2], [ABSTAIN, ABSTAIN]]


def test_items_are_read_once_while_a_person_changes_a_rule(desk: RuleDesk, reads: list[int]) -> None:
    items = texts("good news", "bad news")
    votes_of(desk, (says("good", 1), says("news", 2)), items)
    applied = []
    real = desk_module.apply_rules
    desk_module.apply_rules = lambda rules, *rest: applied.extend(rule.name for rule in rules) or real(rules, *rest)  # type: ignore[assignment]
    try:
        votes = votes_of(desk, (says("good", 1), says("bad", 2)), items)
    finally:
        desk_module.apply_rules = real
    assert votes.tolist() == [[1, ABSTAIN], [ABSTAIN, 2]]
    assert reads == [2]
    assert applied == ["bad"]  # the other rule has its votes


def test_a_rule_of_one_name_and_other_content_is_another_rule(desk: RuleDesk) -> None:
    items = texts("good news", "bad news")
    assert votes_of(desk, (says("good", 1, "r"),), items)[:, 0].tolist() == [1, ABSTAIN]
    assert votes_of(desk, (says("bad", 1, "r"),), items)[:, 0].tolist() == [ABSTAIN, 1]


def test_an_item_whose_link_did_not_answer_is_asked_for_again(
    desk: RuleDesk, monkeypatch: pytest.MonkeyPatch, reads: list[int]
) -> None:
    real, is_down = Loader._fetch, [True]

    def fetch(self: Loader, link: str) -> Any:
        if is_down[0]:
            raise UnreachableError("down")
        return real(self, link)

    monkeypatch.setattr(Loader, "_fetch", fetch)
    items = texts("good news")
    assert votes_of(desk, (says("good", 1),), items).tolist() == [[ABSTAIN]]
    is_down[0] = False
    assert votes_of(desk, (says("good", 1),), items).tolist() == [[1]]
    assert reads == [1, 1]


def test_what_is_kept_is_bounded_by_bytes(desk: RuleDesk, monkeypatch: pytest.MonkeyPatch, reads: list[int]) -> None:
    monkeypatch.setattr(desk_module, "CACHE_BYTES", 600)  # one of the two blocks
    for text in ("first text", "second text", "second text", "first text"):
        votes_of(desk, (says("text", 0),), texts(text, text + " again"))
    assert len(reads) == 3


def test_rows_of_a_table_keep_the_kinds_of_their_columns(root: Root) -> None:
    folder = task_folder(root, "t1")
    extra = TaskExtraInfo(labels=("no", "yes"), encoder="auto")
    save_spec(folder, TaskSpec(task="t1", category="tables", extra=extra))
    settings = Settings()
    desk = RuleDesk(Predictor(root, settings), settings.intake)
    rows = [{"price": 3, "zip": "A1"}, {"price": "12.5", "zip": 1010}, {"price": None, "zip": "B2"}]
    items = tuple(
        Item(item_id=f"r{i}", link="data:application/json," + urllib.parse.quote(msgspec.json.encode(row)))
        for i, row in enumerate(rows)
    )
    cheap = NumberRange(name="cheap", label=1, field="price", at_most=5.0)
    vienna = Keywords(name="vienna", label=0, field="zip", words=("1010",))
    assert votes_of(desk, (cheap, vienna), items).tolist() == [[1, -1], [-1, 0], [-1, -1]]
    alone = votes_of(desk, (cheap, vienna), items[:1])  # a row whose zip looks like another kind by itself
    assert alone.tolist() == [[1, -1]]


def test_a_rule_of_kind_model_says_what_the_version_finds_likely(desk: RuleDesk, folder: TaskFolder) -> None:
    from intake.encoders.hash_ngram import DIM

    version = publish_version(folder, ENCODER, DIM, 3.0)  # label 0 in 0.83 of all
    sure, surer = (ModelOpinion(name=f"m{share}", source="serving", at_least=share) for share in (0.8, 0.9))
    votes = votes_of(desk, (sure, surer, says("news", 2)), texts("good news", "x"), version)
    assert votes.tolist() == [[0, ABSTAIN, 2], [0, ABSTAIN, ABSTAIN]]


def label(folder: TaskFolder, name: str, *rows: tuple[str, int, str, str], proba: tuple[float, ...] = ()) -> None:
    made = [LabelRow(i, revision, "data:,x", (said,), annotator=who, proba=proba) for i, revision, said, who in rows]
    write_segment(folder, name, made)


def test_a_rule_of_kind_crowd_says_what_people_said_and_never_what_rules_said(desk: RuleDesk, folder: TaskFolder) -> None:
    crowd = CrowdOpinion(name="people", source="crowd", at_least=0.7)
    items = texts("a", "b", "c", "d")
    label(folder, "b1", ("i0", 1, "label-1", "ann"), ("i1", 1, "label-2", "bob"))
    label(folder, "b2", ("i2", 1, "label-3", ""), proba=(0.0, 0.0, 0.1, 0.9, 0.0))
    assert votes_of(desk, (crowd,), items)[:, 0].tolist() == [1, 2, ABSTAIN, ABSTAIN]
    label(folder, "b3", ("i2", 2, "label-4", "ann"), ("i0", 2, "label-3", "ann"))  # she changes her mind
    assert votes_of(desk, (crowd,), items)[:, 0].tolist() == [3, 2, 4, ABSTAIN]


def test_of_two_people_who_differ_the_better_one_is_believed(desk: RuleDesk, folder: TaskFolder) -> None:
    rng = np.random.default_rng(0)
    rows: list[tuple[str, int, str, str]] = []
    for item in range(60):
        truth = item % 5
        for revision, (who, share) in enumerate((("ann", 1.0), ("bob", 1.0), ("eve", 0.2)), start=1):
            said = truth if rng.random() < share else int(rng.integers(5))
            rows.append((f"i{item}", revision, f"label-{said}", who))
    rows += [("i60", 1, "label-2", "ann"), ("i60", 2, "label-4", "eve")]
    label(folder, "b1", *rows)
    votes = votes_of(desk, (CrowdOpinion(name="people", source="crowd", at_least=0.7),), texts(*"x" * 61))
    assert votes[:60, 0].tolist() == [item % 5 for item in range(60)]
    assert votes[60, 0] == 2


def test_a_node_without_wordnet_says_what_to_install(desk: RuleDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> Knowledge:
        raise NotFoundError("index.noun is missing: apt-get install wordnet-base")

    monkeypatch.setattr(desk_module, "_read_base", missing)
    animals = Hypernym(name="animals", label=0, field="text", base="wordnet", terms=("animal",))
    with pytest.raises(NotReadyError, match=r"rule 'animals'.*apt-get install wordnet-base"):
        votes_of(desk, (animals,), texts("a dog"))


def test_an_item_that_cannot_be_read_has_no_vote_though_people_labelled_it(desk: RuleDesk, folder: TaskFolder) -> None:
    label(folder, "b1", ("no", 1, "label-1", "ann"), ("i0", 1, "label-1", "ann"))
    items = (*texts("good news"), Item(item_id="no", link="http://169.254.169.254/x"))
    assert votes_of(desk, (CrowdOpinion(name="people", source="crowd"),), items).tolist() == [[1], [ABSTAIN]]


def test_a_rule_of_kind_hypernym_asks_wordnet(desk: RuleDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    base = Knowledge({"n": {"animal": (1,), "dog": (2,)}}, {"hyponym": {1: (2,)}}, {}, {"n": (("s", ""),)})
    monkeypatch.setattr(desk_module, "_read_base", lambda: base)
    animals = Hypernym(name="animals", label=0, field="text", base="wordnet", terms=("animal",))
    assert votes_of(desk, (animals,), texts("two dogs", "a car"))[:, 0].tolist() == [0, ABSTAIN]


def test_rules_that_take_too_long_end_with_the_rule_not_reached(desk: RuleDesk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_module, "RULES_S", -1.0)
    with pytest.raises(TooLargeError, match="rule 'good' was not reached"):
        votes_of(desk, (says("good", 1),), texts("good"))


# ---------------------------------------------------------------- a call


class DeskAsker:
    """Stands for the queue and its workers: one desk, which text 'poison' ends."""

    def __init__(self, desk: RuleDesk) -> None:
        self.desk = desk
        self.sizes: list[int] = []

    def require_worker(self, queue_name: str) -> None:
        pass

    def ask_all(self, task_name: str, queue_name: str, works: Sequence[RulesWork], timeout_s: float) -> list[Reply]:
        return [self._ask(work) for work in works]

    def _ask(self, work: RulesWork) -> Reply:
        self.sizes.append(len(work.items))
        if any("poison" in item.link for item in work.items):
            return Reply(call="", kind="lost")
        return Reply(call="", kind="done", body=encode(self.desk.votes(work)))


@pytest.fixture
def asker(desk: RuleDesk) -> DeskAsker:
    return DeskAsker(desk)


@pytest.fixture
def voting(root: Root, asker: DeskAsker) -> Voting:
    return Voting(root, asker, "queue", 5.0, lambda task: "")  # type: ignore[arg-type]


RULES = (says("good", 1), says("fine", 1), says("bad", 3), says("awful", 3), says("never", 0))
SAID = ("good fine", "bad awful", "fine", "awful", "good", "nothing") * 20


def test_a_call_says_what_each_rule_covers_and_labels_what_is_covered(voting: Voting) -> None:
    known = [ABSTAIN] * len(SAID)
    known[0] = 1
    request = RulesRequest(task="t1", rules=write_rules(RULES), items=texts(*SAID), known=tuple(known))
    reply = voting.apply_rules(request)
    by_name = {rule.name: rule for rule in reply.rules}
    assert (by_name["good"].labels, by_name["good"].n_votes, by_name["good"].accuracy) == (("label-1",), 40, 1.0)
    assert by_name["never"].note.startswith("never fires")
    assert by_name["never"].weight is None
    assert (by_name["good"].weight or 0) > 0.9
    assert reply.method == "dawid-skene"
    proba, is_covered = matrix(reply.proba), matrix(reply.is_covered)
    assert proba.shape == (len(SAID), len(LABELS))
    assert proba.dtype == np.float32
    assert is_covered.tolist() == [text != "nothing" for text in SAID]
    assert set(proba[is_covered].argmax(axis=1)) == {1, 3}
    again = voting.weigh_votes(
        VotesRequest(task="t1", names=tuple(rule.name for rule in RULES), votes=reply.votes, known=int16(known))
    )
    assert again == reply


def int16(values: Sequence[int]) -> Array:
    return Array(dtype="int16", shape=(len(values),), data=np.array(values, np.int16).tobytes())


def test_a_first_rule_is_answered_with_its_row_and_no_label(voting: Voting) -> None:
    reply = voting.apply_rules(RulesRequest(task="t1", rules=write_rules(RULES[:1]), items=texts(*SAID)))
    assert (reply.method, reply.rules[0].coverage) == (NONE, pytest.approx(1 / 3))
    assert "write at least one rule for another label" in reply.reason
    assert not matrix(reply.is_covered).any()


def test_known_labels_check_matrix_completion_and_do_not_teach_it(voting: Voting) -> None:
    request = RulesRequest(
        task="t1", rules=write_rules(RULES), items=texts(*SAID), known=(1, *[-1] * (len(SAID) - 1)), method="matrix-completion"
    )
    reply = voting.apply_rules(request)
    assert (reply.method, reply.rules[0].n_known) == ("matrix-completion", 1)


def test_an_item_that_ends_its_workers_fails_alone(voting: Voting, asker: DeskAsker) -> None:
    said = ["good", "bad", "fine", "poison", "awful", "good bad"]
    reply = voting.apply_rules(RulesRequest(task="t1", rules=write_rules(RULES), items=texts(*said)))
    assert [(error.item_id, error.code) for error in reply.failed] == [("i3", "internal")]
    assert matrix(reply.votes)[3].tolist() == [ABSTAIN] * 5
    assert matrix(reply.votes)[5].tolist() == [1, ABSTAIN, 3, ABSTAIN, ABSTAIN]
    assert asker.sizes == [6, 3, 3, 1, 2]


ONE = texts("good")
BAD_CALLS: list[tuple[dict[str, Any], type[LabelloopError], str]] = [
    ({"items": ()}, TooLargeError, "1 to 10000 items, got 0"),
    ({"items": ONE * (MOST_ITEMS + 1)}, TooLargeError, "got 10001.*weigh_votes"),
    ({"rules": b" " * (2 * 2**20 + 1)}, TooLargeError, "bytes are over"),
    ({"rules": write_rules([says("x", 0, f"r{i}") for i in range(201)])}, TooLargeError, "up to 200 rules, got 201"),
    ({"rules": b"[]"}, InvalidInputError, "got 0"),
    ({"rules": b'[{"kind":"keywords"'}, InvalidInputError, "not a list of rules"),
    ({"rules": write_rules([says("x", 7)])}, InvalidInputError, "rule 'x': label 7"),
    ({"rules": b'[{"kind":"pattern","name":"p","label":0,"field":"text","pattern":"(a"}]'}, InvalidInputError, "rule 'p': regular"),
    (
        {"rules": write_rules([NumberRange(name="n", label=0, field="text", at_least=1)])},
        InvalidInputError,
        "rule 'n'.*holds texts",
    ),
    ({"rules": write_rules([Keywords(name="k", label=0, field="titel", words=("x",))])}, InvalidInputError, "'k'.*'titel'.*'text'"),
    ({"rules": write_rules([ModelOpinion(name="m", source="serving")])}, NotReadyError, "rule 'm' asks the serving model"),
    ({"rules": write_rules([ModelOpinion(name="m", source="v1")])}, InvalidInputError, "rule 'm': there is no model 'v1'"),
    ({"rules": write_rules([CrowdOpinion(name="c", source="x")])}, InvalidInputError, "rule 'c': there is no crowd 'x'"),
    (
        {"rules": write_rules([Hypernym(name="h", label=0, field="text", base="b", terms=("t",))])},
        InvalidInputError,
        "'h'.*no knowledge base 'b'",
    ),
    ({"known": (1, 2)}, InvalidInputError, "2 known labels for 1 items"),
    ({"known": (9,)}, InvalidInputError, "known labels are 0 to 4"),
    ({"method": "magic"}, InvalidInputError, "label model 'magic'"),
    ({"task": "other"}, NotFoundError, "other"),
]


@pytest.mark.parametrize(("change", "error", "sentence"), BAD_CALLS)
def test_a_bad_call_names_its_fault(voting: Voting, change: dict[str, Any], error: type[LabelloopError], sentence: str) -> None:
    request = RulesRequest(**{"task": "t1", "rules": write_rules([says("good", 1)]), "items": ONE, **change})
    with pytest.raises(error, match=sentence):
        voting.apply_rules(request)


def spec_of(category: str, kind: str = "multiclass") -> TaskSpec:
    extra = TaskExtraInfo(kind=kind, labels=("a", "b"))  # type: ignore[arg-type]
    return TaskSpec(task="t1", category=category, extra=extra)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        (spec_of("image-classification"), "rule 'good': a picture has no text"),
        (spec_of("text-classification", "multilabel"), "several labels an item"),
    ],
)
def test_a_task_that_rules_cannot_label_says_so(voting: Voting, folder: TaskFolder, spec: TaskSpec, sentence: str) -> None:
    save_spec(folder, msgspec.structs.replace(spec, revision=2))
    with pytest.raises(InvalidInputError, match=sentence):
        voting.apply_rules(RulesRequest(task="t1", rules=write_rules([says("good", 1)]), items=ONE))


def test_pictures_take_rules_of_people(voting: Voting, folder: TaskFolder) -> None:
    save_spec(folder, msgspec.structs.replace(spec_of("image-classification"), revision=2))
    label(folder, "b1", ("i0", 1, "b", "ann"))
    rules = write_rules([CrowdOpinion(name="people", source="crowd")])
    reply = voting.apply_rules(RulesRequest(task="t1", rules=rules, items=texts("not read", "nor this")))
    assert matrix(reply.votes).tolist() == [[1], [ABSTAIN]]


VOTES = Array(dtype="int16", shape=(2, 3), data=np.array([[0, 1, -1], [1, 1, -1]], np.int16).tobytes())
BAD_VOTES: list[tuple[dict[str, Any], str]] = [
    ({"names": ("a",)}, r"votes must be int16 of shape \(any, 1\)"),
    ({"votes": msgspec.structs.replace(VOTES, dtype="object")}, "got object"),
    ({"votes": msgspec.structs.replace(VOTES, shape=(-2, 3))}, "has 12 bytes"),
    ({"votes": msgspec.structs.replace(VOTES, data=b"123")}, "has 3 bytes: send the whole buffer"),
    ({"votes": msgspec.structs.replace(VOTES, data=b"\7\0" * 6)}, "rule 0 says 7 of item 0"),
    ({"known": int16([1])}, "known must be int16 of shape"),
]


@pytest.mark.parametrize(("change", "sentence"), BAD_VOTES)
def test_bad_votes_name_their_fault(voting: Voting, change: dict[str, Any], sentence: str) -> None:
    request = VotesRequest(**{"task": "t1", "names": ("a", "b", "c"), "votes": VOTES, **change})
    with pytest.raises(InvalidInputError, match=sentence):
        voting.weigh_votes(request)


def test_a_label_model_asked_for_by_name_says_what_it_lacks() -> None:
    votes = np.array([[0, -1], [-1, 1]], np.int16)
    with pytest.raises(InvalidInputError, match="dawid-skene cannot be fitted"):
        weigh(spec_of("tables"), ("a", "b"), votes, None, "dawid-skene")
