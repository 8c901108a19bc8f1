"""A FUSE mount whose daemon died: whatever is asked of the datastore then, the answer is to try again, never "there is none"."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import pytest

from datastore_layout.attempts import claim_attempt
from datastore_layout.intake_progress import has_segment
from datastore_layout.job_progress import JobDesk, has_result, is_finished
from datastore_layout.jobs import attempts_of, list_jobs, read_job, write_result
from datastore_layout.labels import LabelLog
from datastore_layout.models import advance, current, list_versions, read_manifest
from datastore_layout.root import TaskFolder, create_root, list_tasks, open_root, task_folder
from datastore_layout.runs import list_runs, read_run
from datastore_layout.tasks import read_spec
from labelloop.errors import RetryableError, UnreachableError
from labelloop.messages import ChunkResult

CALLS: dict[str, Callable[[TaskFolder], object]] = {
    "open_root": lambda f: open_root(f.root.path, "c1"),
    "task_folder": lambda f: task_folder(f.root, "birds"),
    "list_tasks": lambda f: list_tasks(f.root),
    "read_spec": read_spec,
    "labels": lambda f: LabelLog(f).refresh(),
    "has_segment": lambda f: has_segment(f, "b-1"),
    "list_runs": list_runs,
    "read_run": lambda f: read_run(f, 1),
    "claim_attempt": lambda f: claim_attempt(f, 1, 1),
    "list_versions": list_versions,
    "current": current,
    "read_manifest": lambda f: read_manifest(f, "model-1"),
    "advance": lambda f: advance(f, 0, "model-1", ""),
    "list_jobs": list_jobs,
    "read_job": lambda f: read_job(f, "j-1"),
    "has_result": lambda f: has_result(f, "j-1", 0),
    "is_finished": lambda f: is_finished(f, "j-1"),
    "JobDesk": lambda f: JobDesk(f, "j-1"),
    "attempts_of": lambda f: attempts_of(f, "j-1", "0"),
    "write_result": lambda f: write_result(f, "j-1", 0, ChunkResult(chunk=0, shard="", version="v", item_ids=(), n_items=0)),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TaskFolder]:
    """A task on a mount that was alive when it was opened."""
    where = tmp_path_factory.mktemp("dead")
    store, mount = where / "store", where / "mount"
    create_root(store, "c1")
    mount.mkdir()
    daemon = subprocess.Popen(["bindfs", "-f", store, mount])
    try:
        while not (mount / ".labelloop-root").exists():
            assert daemon.poll() is None, "bindfs ended"
        opened = task_folder(open_root(mount, "c1"), "birds")
        opened.ready("Preprocess")
        daemon.kill()
        daemon.wait()
        yield opened
    finally:
        daemon.kill()
        daemon.wait()
        subprocess.run(["umount", "--lazy", mount], check=True)


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_a_dead_mount_is_no_answer(folder: TaskFolder, call: str) -> None:
    with pytest.raises(RetryableError) as caught:
        folder.root.surely(lambda: CALLS[call](folder))
    assert isinstance(caught.value, UnreachableError)
