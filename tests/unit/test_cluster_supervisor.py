"""The supervisor: its decisions as a table, and real small processes that are killed, changed and stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.process import (
    ProcessSeen,
    ProcessSpec,
    Step,
    backoff_s,
    describe_exit,
    find_marked,
    kill_tree,
    next_step,
    rotate_log,
    tail_log,
)
from cluster.supervisor import Supervisor
from labelloop.errors import InvalidInputError, NotFoundError
from labelloop.messages import ProcessView
from labelloop.settings import ClusterSettings

SETTINGS = ClusterSettings(backoff_first_s=0.05, backoff_most_s=0.4, shutdown_grace_s=0.5)


@pytest.mark.parametrize(
    ("seen", "step", "reason"),
    [
        (ProcessSeen(is_wanted=True), Step.START, "wanted"),
        (ProcessSeen(is_wanted=True, not_before_s=11.0), Step.KEEP, "backing off"),
        (ProcessSeen(is_wanted=True, not_before_s=10.0), Step.START, "wanted"),
        (ProcessSeen(is_wanted=False), Step.FORGET, "stopped"),
        (ProcessSeen(is_wanted=False, not_before_s=11.0), Step.FORGET, "stopped"),
        (ProcessSeen(is_wanted=True, is_running=True), Step.KEEP, "running"),
        (ProcessSeen(is_wanted=True, is_running=True, is_changed=True), Step.TERMINATE, "changed"),
        (ProcessSeen(is_wanted=False, is_running=True), Step.TERMINATE, "not wanted any more"),
        (ProcessSeen(is_wanted=False, is_running=True, may_stop=False), Step.KEEP, "not wanted any more, others stop first"),
        (ProcessSeen(is_wanted=False, is_running=True, is_stopping=True, kill_at_s=10.5), Step.KEEP, "stopping"),
        (ProcessSeen(is_wanted=False, is_running=True, is_stopping=True, kill_at_s=10.0), Step.KILL, "did not stop in time"),
    ],
)
def test_next_step_of_a_process(seen: ProcessSeen, step: Step, reason: str) -> None:
    assert next_step(seen, now_s=10.0) == (step, reason)


def test_back_off_doubles_up_to_its_most() -> None:
    assert [backoff_s(n, 0.2, 1.0) for n in range(5)] == [0.0, 0.2, 0.4, 0.8, 1.0]
    assert backoff_s(10_000, 0.2, 15.0) == 15.0


def test_an_exit_is_told_in_words() -> None:
    assert describe_exit(3) == "exited with 3"
    assert describe_exit(-9) == "killed by SIGKILL"


def test_a_log_is_rotated_in_place_and_keeps_three_older_ones(tmp_path: Path) -> None:
    log = tmp_path / "a.log"
    with log.open("ab") as writer:
        for number in range(5):
            writer.write(f"line {number}\n".encode() * 10)
            writer.flush()
            assert rotate_log(log, max_bytes=20)
        writer.write(b"after\n")
    assert log.read_text() == "after\n"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.log", "a.log.1", "a.log.2", "a.log.3"]
    assert "line 4" in (tmp_path / "a.log.1").read_text()
    assert not rotate_log(log, max_bytes=20)
    assert tail_log(tmp_path / "none", 5) == ""


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "never came true"
        time.sleep(0.01)


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


def _spec(folder: Path, name: str, code: str, **extra: object) -> ProcessSpec:
    return ProcessSpec(name=name, argv=(sys.executable, "-c", code), log_file=folder / f"{name}.log", **extra)  # type: ignore[arg-type]


SLEEP = "import time; print('up', flush=True); time.sleep(600)"
FORK = (
    "import os, subprocess, sys, time\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], start_new_session=True)\n"
    "print(child.pid, flush=True)\ntime.sleep(600)"
)


@pytest.fixture
def start() -> Iterator[Callable[..., Supervisor]]:
    made: list[Supervisor] = []

    def make(*specs: ProcessSpec, settings: ClusterSettings = SETTINGS) -> Supervisor:
        made.append(Supervisor(specs, settings))
        made[-1].start()
        return made[-1]

    yield make
    for supervisor in made:
        supervisor.stop()


def _view(supervisor: Supervisor, name: str) -> ProcessView:
    return next(view for view in supervisor.views() if view.name == name)


def test_a_process_killed_with_sigkill_comes_back_with_its_reason(start: Callable[..., Supervisor], tmp_path: Path) -> None:
    supervisor = start(_spec(tmp_path, "a", SLEEP))
    first = _view(supervisor, "a").pid
    os.kill(first, signal.SIGKILL)
    _until(lambda: _view(supervisor, "a").pid not in (0, first))
    view = _view(supervisor, "a")
    assert (view.restarts, view.reason.startswith("killed by SIGKILL")) == (1, True)


def test_a_process_that_falls_at_once_backs_off_and_shows_its_last_line(start: Callable[..., Supervisor], tmp_path: Path) -> None:
    slow = ClusterSettings(backoff_first_s=600, backoff_most_s=600)
    supervisor = start(_spec(tmp_path, "a", "raise SystemExit('no datastore')"), settings=slow)
    _until(lambda: _view(supervisor, "a").state == "backing-off")
    assert _view(supervisor, "a").reason == "exited with 1 (no datastore)"


def test_a_program_that_does_not_exist_backs_off_and_says_so(start: Callable[..., Supervisor], tmp_path: Path) -> None:
    supervisor = start(ProcessSpec(name="a", argv=(str(tmp_path / "nothing"),), log_file=tmp_path / "a.log"))
    assert _view(supervisor, "a").state == "backing-off"
    assert "cannot start" in _view(supervisor, "a").reason


def test_update_leaves_equal_processes_alone_and_restarts_what_changed(start: Callable[..., Supervisor], tmp_path: Path) -> None:
    a, b, c = (_spec(tmp_path, name, SLEEP) for name in "abc")
    supervisor = start(a, b)
    pids = {view.name: view.pid for view in supervisor.views()}
    supervisor.update([a, _spec(tmp_path, "b", SLEEP, version="2"), c])
    after = {view.name: view.pid for view in supervisor.views()}
    assert after["a"] == pids["a"]
    assert after["b"] not in (0, pids["b"])
    assert after["c"] != 0
    assert not _is_alive(pids["b"])
    supervisor.update([c])
    assert [view.name for view in supervisor.views()] == ["c"]
    assert not _is_alive(after["a"])
    assert _view(supervisor, "c").pid == after["c"]


def test_the_whole_tree_goes_with_its_process_even_what_left_the_group(start: Callable[..., Supervisor], tmp_path: Path) -> None:
    supervisor = start(_spec(tmp_path, "a", FORK))
    _until(lambda: supervisor.log_text("a", 1) != "")
    grandchild = int(supervisor.log_text("a", 1))
    os.kill(_view(supervisor, "a").pid, signal.SIGKILL)
    _until(lambda: not _is_alive(grandchild))
    _until(lambda: len(find_marked(str(tmp_path / "a.log"))) == 2)
    supervisor.stop()
    assert find_marked(str(tmp_path / "a.log")) == ()


def test_a_process_deaf_to_sigterm_is_killed_after_its_grace(start: Callable[..., Supervisor], tmp_path: Path) -> None:
    deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    supervisor = start(_spec(tmp_path, "a", deaf, grace_s=0.1))
    _until(lambda: supervisor.log_text("a", 1) == "deaf")
    supervisor.stop()
    assert find_marked(str(tmp_path / "a.log")) == ()


def test_higher_stop_layers_end_before_lower_ones_are_asked(start: Callable[..., Supervisor], tmp_path: Path) -> None:
    note = (
        "import signal, sys, time, pathlib\n"
        "def end(*_):\n    open({file!r}, 'a').write({name!r}); time.sleep({pause}); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end); print('up', flush=True)\ntime.sleep(600)"
    )
    order = str(tmp_path / "order")
    low = _spec(tmp_path, "low", note.format(file=order, name="low ", pause=0), stop_layer=0)
    high = _spec(tmp_path, "high", note.format(file=order, name="high ", pause=0.1), stop_layer=1)
    supervisor = start(low, high)
    _until(lambda: supervisor.log_text("low", 1) == supervisor.log_text("high", 1) == "up")
    supervisor.stop()
    assert Path(order).read_text() == "high low "


def test_processes_die_with_a_supervisor_that_is_killed_and_leftovers_are_swept(
    start: Callable[..., Supervisor], tmp_path: Path
) -> None:
    program = (
        "import sys, time; from pathlib import Path\n"
        "from cluster.supervisor import Supervisor; from cluster.process import ProcessSpec\n"
        "from labelloop.settings import ClusterSettings\n"
        f"spec = ProcessSpec(name='a', argv=(sys.executable, '-c', {FORK!r}), log_file=Path({str(tmp_path / 'a.log')!r}))\n"
        "s = Supervisor([spec], ClusterSettings())\n"
        "s.start(); print(s.views()[0].pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        _until(lambda: tail_log(tmp_path / "a.log", 1) != "")
        orphan = int(tail_log(tmp_path / "a.log", 1))
        parent.kill()
    _until(lambda: not _is_alive(child))
    assert _is_alive(orphan)  # it left the group, and nobody was there to find it
    supervisor = start(_spec(tmp_path, "a", SLEEP))
    _until(lambda: not _is_alive(orphan))
    assert _view(supervisor, "a").pid != 0


def test_two_processes_of_one_name_and_unknown_names_are_refused(start: Callable[..., Supervisor], tmp_path: Path) -> None:
    spec = _spec(tmp_path, "a", SLEEP)
    with pytest.raises(InvalidInputError, match="two processes of one name"):
        Supervisor([spec, spec], SETTINGS)
    with pytest.raises(NotFoundError, match="no process 'b' here; there are: a"):
        start(spec).log_text("b", 1)


def test_a_tree_is_killed_until_nothing_of_it_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen = iter([(11, 12), (12, 13), (13,), ()])  # 13 was forked while 11 and 12 were being killed
    killed: list[int] = []
    monkeypatch.setattr("cluster.process.find_marked", lambda mark: next(seen))
    monkeypatch.setattr("cluster.process.os.kill", lambda pid, sign: killed.append(pid))
    assert kill_tree(0, "mark") == 2
    assert killed == [11, 12, 12, 13, 13]
    assert next(seen, None) is None
