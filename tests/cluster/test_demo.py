"""The demo under kill -9: each of its processes comes back by itself, no label is lost or doubled, and nothing outlives its end."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.demo_tree import Demo, children_of, live_processes, until

pytestmark = pytest.mark.slow

# every kind of process of the demo; /1 and /2 are children with their parent's arguments
VICTIMS = (
    "data-worker/1",
    "inference-rpc/1",
    "web/1",
    "training-spare/0",
    "pilot/0",
    "inference-worker/2",
    "demo-annotator/0",
    "train-rpc/0",
    "broker/0",
    "inference-worker/1",
    "web/0",
    "train-worker/0",
    "registry/0",
    "data-worker/0",
    "inference-rpc/0",
    "inference-worker/0",
    "manager-train-1/0",
    "demo-annotator/0",
    "manager-inference-1/0",
    "demo-supervisor/0",
)
PACE_S = 1.5
LABELS = 260  # so many that the demo does not end before the last of them was killed, on a busy machine too
BACK_LIMIT_S = 60.0


class Chaos:
    """Kills one process at a time and notes how long each kind takes to come back."""

    def __init__(self, demo: Demo) -> None:
        self.demo = demo
        self.gone: dict[str, tuple[float, set[int], int]] = {}  # kind: when, who cannot stand for it, how many there were
        self.back_s: dict[str, float] = {}
        self.labels_at: dict[str, int] = {}

    def kill(self, kind: str) -> None:
        until(lambda: bool(self.demo.pids(kind)) or self.demo.process.poll() is not None, f"a process {kind}", BACK_LIMIT_S)
        pids = self.demo.pids(kind)
        assert pids, f"the demo ended before {kind} was killed: {self.demo.text()}"
        victim = min(pids)
        self.labels_at[kind] = labels_done(self.demo.state)
        others = {seen.pid for seen in self.demo.tree()} - pids  # orphans for a moment look like their parent
        self.gone[kind] = (time.monotonic(), {victim, *others}, len(pids))
        os.kill(victim, signal.SIGKILL)

    def look(self) -> None:
        """Note who is back."""
        if not self.gone:
            return
        tree = self.demo.tree()
        for kind, (since_s, victims, count) in list(self.gone.items()):
            pids = {seen.pid for seen in tree if seen.kind == kind} - victims
            if len(pids) >= count:
                self.back_s[kind] = max(self.back_s.get(kind, 0.0), time.monotonic() - since_s)
                del self.gone[kind]

    def are_all_back(self) -> bool:
        self.look()
        return not self.gone

    def pause(self) -> None:
        until_s = time.monotonic() + PACE_S
        while time.monotonic() < until_s:
            self.look()
            time.sleep(0.1)


def labels_done(state: Path) -> int:
    journals = list(state.glob("simulations/*/journal.jsonl"))
    return sum(path.read_bytes().count(b'"kind": "label"') for path in journals)


def kill_a_training(demo: Demo) -> None:
    """Kill the process of a training while it runs: the child of a spare."""
    until(lambda: bool(demo.pids("training-spare/0")), "a spare", BACK_LIMIT_S)
    spares = demo.pids("training-spare/0")
    victims: list[int] = []

    def is_training() -> bool:
        victims[:] = [child for spare in spares for child in children_of(spare)]
        return bool(victims) or demo.process.poll() is not None

    until_s = time.monotonic() + BACK_LIMIT_S
    while not is_training():
        assert time.monotonic() < until_s, "no training began"
        time.sleep(0.002)
    assert victims, demo.text()
    os.kill(victims[0], signal.SIGKILL)


def assert_nothing_left(state: Path) -> None:
    until(lambda: not live_processes(state), f"the end of {[seen.kind for seen in live_processes(state)]}", 30.0)


def test_every_process_of_the_demo_may_be_killed_while_labels_flow(tmp_path: Path) -> None:
    state, file = tmp_path / "state", tmp_path / "report.json"
    with Demo(state, "--simulate", str(LABELS), "--json", str(file)) as demo:
        until(lambda: labels_done(state) >= 10 or demo.process.poll() is not None, "the first labels", 120.0)
        chaos = Chaos(demo)
        kill_a_training(demo)
        for kind in VICTIMS:
            chaos.kill(kind)
            chaos.pause()
        until(lambda: chaos.are_all_back() or demo.process.poll() is not None, "the return of all", BACK_LIMIT_S)
        (tmp_path / "chaos.json").write_text(json.dumps({"back_s": chaos.back_s, "labels_at": chaos.labels_at}, indent=1))
        assert not chaos.gone, f"not back: {chaos.gone}\n{demo.text()}"
        assert demo.process.wait(180) == 0, demo.text()
    assert_nothing_left(state)
    report: dict[str, Any] = json.loads(file.read_text())
    assert (report["lost"], report["doubled"], report["labels"]) == (0, 0, LABELS)
    assert report["versions"]
    assert set(chaos.back_s) == set(VICTIMS)


def test_killing_the_foreground_process_leaves_nothing_and_the_next_start_goes_on(tmp_path: Path) -> None:
    state, file = tmp_path / "state", tmp_path / "report.json"
    with Demo(state, "--simulate", "500") as demo:
        until(lambda: labels_done(state) >= 15 or demo.process.poll() is not None, "the first labels", 120.0)
        demo.process.kill()
        demo.process.wait()
        assert_nothing_left(state)
    before = labels_done(state)
    assert before >= 15
    with Demo(state, "--simulate", "25", "--json", str(file)) as demo:
        assert demo.process.wait(180) == 0, demo.text()
    assert_nothing_left(state)
    report = json.loads(file.read_text())
    assert (report["lost"], report["doubled"], report["labels"]) == (0, 0, 25)


def test_ctrl_c_stops_all_of_it(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with Demo(state, "--project", "cancer") as demo:
        demo.wait_said("Ctrl-C stops everything")
        demo.process.send_signal(signal.SIGINT)
        assert demo.process.wait(60) == 0, demo.text()
        assert "goes on from here" in demo.text()
        assert not live_processes(state)
    log = (state / "logs" / "supervisor.log").read_text()
    assert "did not stop in time" not in log, log
