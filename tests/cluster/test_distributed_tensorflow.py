"""TensorFlow on two train nodes: fresh processes a generation; a lost node restarts the rest from the newest checkpoint."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from datastore_layout.ranks import Generation, read_generations
from datastore_layout.runs import newest_checkpoint, read_finish
from tests.support_train import digit_files, running_node, until

pytestmark = pytest.mark.slow

PATIENCE_S = 240.0  # TensorFlow takes seconds to import, on two busy cores many
EPOCHS = 200
SETTINGS = {
    "requeue_after_s": 1.0,
    "lease_s": 10.0,
    "checkpoint_s": 0.3,
    "distribute_from_s": 0.0,
    "gather_s": 2.0,
    "rank_timeout_s": 60.0,
}


def test_a_lost_node_restarts_the_rest_from_the_newest_checkpoint_and_the_run_finishes(tmp_path: Path) -> None:
    items = digit_files(tmp_path / "digits", 60)
    with running_node(tmp_path / "node", tmp_path / "digits", **SETTINGS) as first:
        second = first.sibling("n2", "127.0.0.2")
        nodes = {"n1": first, "n2": second}
        for node in nodes.values():
            node.say_good(list(nodes.values()))
        try:
            first.start("data", "rpc", "train")
            second.start("train")
            folder = first.open_task("keras", algorithm="keras-cnn", parameters={"width": 8, "batch": 16}, epoch=EPOCHS)
            first.submit("keras", items, "b1")

            def both() -> Generation | None:
                found = [one for _, one in read_generations(folder, 1)]
                checkpoint = newest_checkpoint(folder, 1)
                is_on = found and len(found[-1].ranks) == 2 and checkpoint is not None and checkpoint.step > found[-1].begin
                return found[-1] if is_on else None

            two = until(both, "steps of two processes", PATIENCE_S)
            owner, lost = (rank.node for rank in two.ranks)
            before = newest_checkpoint(folder, 1)
            nodes[lost].kill("train", signal.SIGKILL)
            for node in nodes.values():
                node.say_good([nodes[owner]])
            until(lambda: read_finish(folder, 1), "the end of the run", PATIENCE_S)
            view = until(lambda: (run := first.progress("keras").run) and run.state == "done" and run, "its view")
            scratch = Path(nodes[owner].config.state_dir) / "scratch"
            until(lambda: not list(scratch.iterdir()), "the end of its temporary files")
        finally:
            for node in nodes.values():
                node.end_processes()
    assert view.attempt == 1
    generations = [one for _, one in read_generations(folder, 1)]
    after = next(one for one in generations if one.number > two.number)
    assert [rank.node for rank in after.ranks] == [owner]
    assert f"{lost} left" in after.reason
    assert before is not None
    assert before.step <= after.begin < view.steps
    last = generations[-1]
    assert (last.ranks[0].steps, last.step) == (view.steps - last.begin, view.steps)
    assert last.ranks[0].items > 0
    assert view.metrics["accuracy"] > 0.5
