"""Nothing escapes a task's folder; a missing or foreign mount is named; specs are numbered and never changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from datastore_layout.files import create_exclusive
from datastore_layout.habits import check_habits
from datastore_layout.intake_files import read_intake, write_intake
from datastore_layout.jobs import ChunkSpec, JobRecord, create_job, read_job, record_attempt, write_result
from datastore_layout.labels import LabelLog, write_segment
from datastore_layout.models import Manifest, advance, publish_model, read_manifest, verified_model_dir, write_verdict
from datastore_layout.ops import FileOps, swapped_ops
from datastore_layout.root import MARKER, TaskFolder, create_root, list_tasks, open_root, task_folder
from datastore_layout.runs import Attempt, RunSpec, claim_attempt, create_run, read_run
from datastore_layout.shards import ShardSet
from datastore_layout.tasks import read_spec, save_spec
from labelloop.errors import ConflictError, IntegrityError, InvalidInputError, LabelloopError, NotFoundError, NotReadyError
from labelloop.messages import ChunkResult, Sample
from tests.support_datastore import batch_of, items_of, new_folder, row_of, shard_args, spec_of, without_waiting_for_the_disk  # noqa: F401

HOSTILE = [
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "/etc",
    "a\\..\\b",
    "a\x00b",
    "A",
    "-a",
    ".labelloop-root",
    "a" * 64,
    "ä",
    "a b",
    "a\n",
    "a..b/",
]
HOSTILE_TOKENS = [
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "/etc/passwd",
    "a\x00b",
    ".beside-1",
    "_merged-1",
    "a" * 129,
    "ü",
    "a b",
    "a\n",
    "a..b",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_task_name_is_refused(tmp_path: Path, name: str) -> None:
    root = create_root(tmp_path / "datastore", "c")
    with pytest.raises(InvalidInputError, match="task"):
        task_folder(root, name)


def _result(chunk: int) -> ChunkResult:
    return ChunkResult(chunk=chunk, shard="", version="v", item_ids=(), n_items=0)


CALLS: dict[str, Callable[[TaskFolder, str], object]] = {
    "write_intake": lambda f, t: write_intake(f, batch_of(t)),
    "read_intake": read_intake,
    "write_segment": lambda f, t: write_segment(f, t, [row_of("i1")]),
    "shard set": ShardSet,
    "shard ids": lambda f, t: ShardSet(f, "e").ids(t),
    "shard features": lambda f, t: ShardSet(f, "e").features(t),
    "read_manifest": read_manifest,
    "verified_model_dir": verified_model_dir,
    "advance": lambda f, t: advance(f, 0, t, ""),
    "write_verdict": lambda f, t: write_verdict(f, t, True, ""),
    "create_job": lambda f, t: create_job(f, JobRecord(job_id=t, version="", chunks=(ChunkSpec(items=items_of("i")),))),
    "job over a shard": lambda f, t: create_job(f, JobRecord(job_id="j", version="", chunks=(ChunkSpec(shard=t),))),
    "read_job": read_job,
    "write_result": lambda f, t: write_result(f, t, 0, _result(0)),
    "record_attempt": lambda f, t: record_attempt(f, "known", t, 1),
    "save_checkpoint": lambda f, t: Attempt(f, 1, 1).save_checkpoint(1, {t: b"x"}),
}


@pytest.mark.parametrize("token", HOSTILE_TOKENS)
@pytest.mark.parametrize("call", CALLS, ids=str)
def test_no_hostile_name_reaches_a_path(tmp_path: Path, call: str, token: str) -> None:
    folder = new_folder(tmp_path)
    create_job(folder, JobRecord(job_id="known", version="", chunks=(ChunkSpec(items=items_of("i")),)))
    create_run(folder, RunSpec(algorithm="a", encoder="e"))
    claim_attempt(folder, 1, 1)
    before = sorted(p for p in tmp_path.rglob("*") if p.is_file())
    with pytest.raises((InvalidInputError, NotFoundError)):
        CALLS[call](folder, token)
    assert sorted(p for p in tmp_path.rglob("*") if p.is_file()) == before


@pytest.mark.parametrize("item", ["", "a\nb", "x" * 257, "\x00"])
def test_a_malformed_item_id_is_refused_before_anything_is_written(tmp_path: Path, item: str) -> None:
    folder = new_folder(tmp_path)
    for write in (
        lambda: write_intake(folder, batch_of("b", Sample(item_id=item, link="l", labels=()))),
        lambda: write_segment(folder, "b", [row_of(item)]),
        lambda: ShardSet(folder, "e").write([item], ["l"], ["h"], shard_args("i", 1)[3]),
    ):
        with pytest.raises(InvalidInputError, match="item id"):
            write()
    assert not folder.path.exists()


@pytest.mark.parametrize("below", ["", "Inference", "Preprocess", "Snapshot", "Preprocess/labels", "Inference/current"])
def test_a_task_folder_that_leads_elsewhere_by_a_link_is_refused(tmp_path: Path, below: str) -> None:
    root = create_root(tmp_path / "datastore", "c")
    (tmp_path / "elsewhere").mkdir()
    link = root.path / "evil" / below if below else root.path / "evil"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidInputError, match="symbolic link"):
        task_folder(root, "evil")
    assert list_tasks(root) == ()


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path) -> None:
    folder, other = new_folder(tmp_path), task_folder(open_root(tmp_path / "datastore"), "other")
    write_segment(other, "b1", [row_of("secret")])
    folder.ready("Preprocess", "labels")
    folder.below("Preprocess", "labels", "b1").symlink_to(other.below("Preprocess", "labels", "b1"))
    with pytest.raises(IntegrityError, match="symbolic link"):
        LabelLog(folder).refresh()
    assert not write_segment(folder, "b1", [row_of("i1")])
    assert not create_exclusive(folder.below("Preprocess", "labels", "b1"), b"x")


def test_a_model_folder_that_is_a_link_or_holds_one_is_refused(tmp_path: Path) -> None:
    folder, other = new_folder(tmp_path), task_folder(open_root(tmp_path / "datastore"), "other")
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "weights").write_bytes(b"w")
    manifest = Manifest(task="other", category="tables", labels=("a",), algorithm="a", encoder="e")
    version = publish_model(other, manifest, tmp_path / "source")
    folder.ready("Inference")
    folder.below("Inference", version).symlink_to(other.below("Inference", version))
    with pytest.raises(NotFoundError):
        verified_model_dir(folder, version)
    weights = other.below("Inference", version, "weights")
    weights.unlink()
    weights.symlink_to(tmp_path / "source" / "weights")
    with pytest.raises(IntegrityError, match="link"):
        verified_model_dir(other, version)
    (tmp_path / "source" / "passwd").symlink_to("/etc/passwd")
    with pytest.raises(InvalidInputError, match="link"):
        publish_model(other, manifest, tmp_path / "source")


def test_two_tasks_with_equal_items_share_nothing(tmp_path: Path) -> None:
    one, two = new_folder(tmp_path), task_folder(open_root(tmp_path / "datastore"), "two")
    name = ShardSet(one, "e").write(*shard_args("i", 2))
    write_segment(one, "b1", [row_of("i0", shard=name, row=0)])
    (tmp_path / "source").mkdir()
    manifest = Manifest(task="digits", category="tables", labels=("a",), algorithm="a", encoder="e")
    version = publish_model(one, manifest, tmp_path / "source")
    shards, log = ShardSet(two, "e"), LabelLog(two)
    shards.refresh()
    assert log.refresh() == ()
    assert shards.find("i0", "http://i0") is shards.find_content("hash-i0") is None
    for read in (lambda: shards.features(name), lambda: read_manifest(two, version), lambda: read_run(two, 1)):
        with pytest.raises(NotFoundError):
            read()
    with pytest.raises(InvalidInputError, match="does not belong"):
        write_intake(two, batch_of("b1"))
    with pytest.raises(InvalidInputError, match="does not belong"):
        publish_model(two, manifest, tmp_path / "source")
    with pytest.raises(InvalidInputError, match="does not belong"):
        save_spec(two, spec_of("digits"))


def test_a_model_copied_from_another_task_is_refused(tmp_path: Path) -> None:
    one, two = new_folder(tmp_path), task_folder(open_root(tmp_path / "datastore"), "two")
    (tmp_path / "source").mkdir()
    version = publish_model(
        one, Manifest(task="digits", category="tables", labels=(), algorithm="a", encoder="e"), tmp_path / "source"
    )
    one.below("Inference", version).rename(two.ready("Inference") / version)
    with pytest.raises(IntegrityError, match="model of task 'digits'"):
        read_manifest(two, version)


def test_a_root_is_never_created_by_opening_it(tmp_path: Path) -> None:
    with pytest.raises(NotReadyError, match="mount the datastore"):
        open_root(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_root_of_another_cluster_is_refused(tmp_path: Path) -> None:
    root = create_root(tmp_path, "c1")
    create_root(tmp_path, "c1")
    assert open_root(tmp_path).cluster_id == "c1"
    with pytest.raises(ConflictError, match="belongs to cluster 'c1', not 'c2'"):
        open_root(tmp_path, "c2")
    with pytest.raises(ConflictError):
        create_root(tmp_path, "c2")
    (tmp_path / MARKER).write_text("c3\n")
    with pytest.raises(ConflictError):
        write_intake(task_folder(root, "digits"), batch_of("b"))


def test_a_spec_is_saved_once_for_each_revision_and_the_highest_holds(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    with pytest.raises(NotFoundError, match="open it first"):
        read_spec(folder)
    save_spec(folder, spec_of())
    save_spec(folder, spec_of())
    with pytest.raises(ConflictError, match="other settings"):
        save_spec(folder, spec_of(budget=5))
    save_spec(folder, spec_of(revision=10, budget=5))
    assert read_spec(folder).extra.budget == 5
    with pytest.raises(ConflictError, match="is at revision 10, 9 is older"):
        save_spec(folder, spec_of(revision=9))
    with pytest.raises(InvalidInputError, match="below 1"):
        save_spec(folder, spec_of(revision=0))
    assert list_tasks(folder.root) == ("digits",)


def test_strangers_in_the_root_are_no_tasks(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    (folder.root.path / "lost+found").mkdir()
    (folder.root.path / "empty").mkdir()
    (folder.root.path / "file").write_text("x")
    assert list_tasks(folder.root) == ()


def test_a_good_mount_has_the_habits_and_is_left_as_it_was(tmp_path: Path) -> None:
    root = create_root(tmp_path, "c")
    assert check_habits(root) == ()
    assert os.listdir(tmp_path) == [MARKER]  # noqa: PTH208


class _Replacing(FileOps):
    def link(self, source: Path, target: Path) -> None:
        target.write_bytes(source.read_bytes())


class _Copying(FileOps):
    def rename(self, source: Path, target: Path) -> None:
        if source.is_file():
            target.write_bytes(source.read_bytes())
        else:
            super().rename(source, target)


class _Lenient(FileOps):
    def mkdir(self, path: Path) -> None:
        path.mkdir(exist_ok=True)


class _Linkless(FileOps):
    def link(self, source: Path, target: Path) -> None:
        raise PermissionError(1, "no links here")


class _LinklessAndNesting(_Linkless):
    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target / source.name if target.is_dir() else target)


@pytest.mark.parametrize(
    ("ops", "problem"),
    [
        (_Replacing(), "exclusive create"),
        (_Copying(), "publish"),
        (_Lenient(), "mkdir"),
        (_LinklessAndNesting(), "rename of a folder"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_mount_without_a_habit_is_named(tmp_path: Path, ops: FileOps, problem: str) -> None:
    root = create_root(tmp_path, "c")
    with swapped_ops(ops):
        assert any(sentence.startswith(problem) for sentence in check_habits(root))


def test_a_mount_without_hard_links_has_the_habits_by_renaming_folders(tmp_path: Path) -> None:
    with swapped_ops(_Linkless()):
        root = create_root(tmp_path, "c")
        assert check_habits(root) == ()
        assert open_root(tmp_path).cluster_id == "c"


def test_errors_of_the_file_system_are_named(tmp_path: Path) -> None:
    folder = new_folder(tmp_path)
    for code, word in ((5, "does not answer"), (107, "does not answer"), (30, "refuses"), (122, "no room")):

        class Failing(FileOps):
            def create(self, path: Path, code: int = code) -> int:
                raise OSError(code, os.strerror(code))

        with swapped_ops(Failing()), pytest.raises(LabelloopError, match=word) as caught:
            write_intake(folder, batch_of("b1"))
        assert caught.value.is_retryable, "an accepted label must not be given up for it"


def test_what_is_missing_while_the_mount_is_away_is_not_missing_for_good(tmp_path: Path) -> None:
    root = create_root(tmp_path / "mount", "c")
    save_spec(task_folder(root, "birds"), spec_of("birds"))
    aside = tmp_path / "aside"
    (tmp_path / "mount").rename(aside)
    (tmp_path / "mount").mkdir()  # what is left of a mount point
    with pytest.raises(NotReadyError, match="mount the datastore"):
        root.surely(lambda: read_spec(task_folder(root, "birds")))
    (tmp_path / "mount").rmdir()
    aside.rename(tmp_path / "mount")
    assert root.surely(lambda: read_spec(task_folder(root, "birds"))).task == "birds"
    with pytest.raises(NotFoundError):
        root.surely(lambda: read_spec(task_folder(root, "fish")))


def test_a_mount_that_comes_back_between_two_looks_is_looked_at_again(tmp_path: Path) -> None:
    root = create_root(tmp_path, "c")
    answers: list[Exception | str] = [NotFoundError("gone"), "here"]

    def call() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert root.surely(call) == "here"
