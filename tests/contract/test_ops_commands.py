"""The ops command line against a real registry: what it prints, as text and as JSON, and how it fails."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from rich.console import Console

from cluster.commands_status import rich_table
from cluster.tables import FORM_COLUMNS, LIVE_COLUMNS, TextTable, draw, form_row, live_row, status_tables
from labelloop import messages as m
from scripts import cli
from scripts.commands_page import PAGE, page
from tests.support_registry import World, open_world, until
from tests.support_signals import INTERRUPTIBLE

NODES = (
    m.NodeView(
        status=m.NodeStatus(
            hostname="gpu-1",
            ip="10.0.0.1",
            port=1,
            role="train",
            is_master=True,
            epoch=4,
            processes=(
                m.ProcessView(name="train-rpc", pid=11, state="running", restarts=2),
                m.ProcessView(
                    name="train-worker", pid=0, state="backing-off", restarts=5, reason="exited with 1", activity="run 7"
                ),
            ),
            memory_bytes=64 * 2**30,
            memory_free_bytes=16 * 2**30,
            gpus=("H100", "H100"),
            broker=m.BrokerView(
                kind="rabbitmq", state="paused", members=("a", "b", "c"), running=("a",), queues={"bulk": 40, "dead": 0, "data": 3}
            ),
            last_reason="waits for [the] cookie",
        ),
        age_s=0.4,
        is_alive=True,
        is_draining=True,
    ),
    m.NodeView(status=m.NodeStatus(hostname="gpu-2", ip="10.0.0.2", port=1, epoch=3), age_s=12.0, is_alive=False),
)
REPLY = m.NodesReply(nodes=NODES, epoch=4, cluster_id="c0ffee", last_reason="gpu-2 is dead")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setenv("LABELLOOP_STATE_DIR", str(tmp_path / "state"))
    with open_world(tmp_path / "registry") as opened:
        yield opened


class Shell:
    """Runs `labelloop` in this process, on the registry's machine."""

    def __init__(self, world: World, capsys: pytest.CaptureFixture[str]) -> None:
        self._world, self._capsys = world, capsys

    def __call__(self, *words: str, status: int = 0) -> str:
        """Return what it printed, on stderr where it must fail with `status`."""
        found = cli.main([words[0], "--state", str(self._world.folder), *words[1:]])
        printed = self._capsys.readouterr()
        assert found == status, printed
        return printed.err if status else printed.out

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "--json"))


@pytest.fixture
def shell(world: World, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(world, capsys)


# ------------------------------------------------------------ tables


def test_the_status_tables_hold_what_ops_look_for() -> None:
    nodes, machines, processes, actions = status_tables(REPLY, [m.Action(at="2026", what="order", reason="epoch 4: gpu-2 is dead")])
    assert nodes.title == "cluster c0ffee, epoch 4, running: gpu-2 is dead"
    row = dict(zip(nodes.columns, nodes.rows[0], strict=True))
    assert row == {
        "node": "gpu-1",
        "role": "train master",
        "state": "draining",
        "broker": "paused, 1 of 3 run",
        "queues": "bulk 40, data 3",
        "workers": "1 of 2",
        "restarts": "7",
        "at work on": "run 7",
        "last reason": "waits for [the] cookie",
    }
    assert nodes.rows[1][:6] == ("gpu-2", "-", "silent 12 s", "-", "-", "-")
    assert machines.rows[0][3:5] == ("16.0 of 64.0 GiB free", "H100; H100")
    assert processes.rows[1] == ("gpu-1", "train-worker", "-", "backing-off", "5", "run 7", "exited with 1")
    assert actions.rows == (("2026", "order", "epoch 4: gpu-2 is dead"),)


def test_a_dead_node_is_at_work_on_nothing_whatever_it_said_last() -> None:
    dead = msgspec.structs.replace(NODES[0], is_alive=False)
    assert dict(zip(LIVE_COLUMNS, live_row(dead), strict=True))["at work on"] == "-"


def test_a_silent_node_leads_nobody_and_what_it_last_said_of_its_processes_is_not_shown() -> None:
    silent = msgspec.structs.replace(NODES[0], is_alive=False, age_s=7.0)
    nodes, _, processes, _ = status_tables(msgspec.structs.replace(REPLY, nodes=(silent,)), [])
    assert nodes.rows[0] == ("gpu-1", "train", "silent 7 s, draining", "-", "-", "-", "7", "-", "waits for [the] cookie")
    assert processes.rows == ()
    assert live_row(msgspec.structs.replace(NODES[0], is_drained=True))[2] == "drained"


def test_the_live_table_shows_all_of_it_and_takes_no_cell_for_markup() -> None:
    screen = Console(file=io.StringIO(), width=240)
    screen.print(rich_table(TextTable("t", LIVE_COLUMNS, tuple(map(live_row, NODES)))))
    text = screen.file.getvalue()  # type: ignore[attr-defined]
    for word in ("gpu-1", "train master", "draining", "2 GPU, 16.0 of 64.0 GiB free", "paused, 1 of 3 run", "bulk 40", "run 7"):
        assert word in text
    assert "waits for [the] cookie" in text


def test_forming_tells_of_each_node_what_it_waits_for() -> None:
    rows = [dict(zip(FORM_COLUMNS, form_row(node, 4), strict=True))["waits for"] for node in NODES]
    assert rows == ["train-worker", "its heartbeat"]
    late = m.NodeView(status=m.NodeStatus(hostname="c", ip="10.0.0.3", port=1, epoch=3), age_s=0.0, is_alive=True)
    assert form_row(late, 4)[-1] == "the order of epoch 4: at work on it"


def test_plain_tables_are_aligned_and_end_without_blanks() -> None:
    text = draw(TextTable("title", ("a", "bb"), (("xxx", ""), ("y", "z"))))
    assert text.splitlines() == ["title", "a    bb", "---  --", "xxx", "y    z"]


# ------------------------------------------------------------ commands


def test_every_command_of_ops_does_its_work_and_speaks_json(world: World, shell: Shell) -> None:
    t1, i1, _ = world.boot("t1", "i1", "i2")
    task = ("--task", "birds", "--category", "tables", "--labels", "a, b")
    formed = shell.json("form", "--train", "1", "--inference", "2", *task)
    assert formed["task"]["revision"] == 1
    assert t1.tasks == ["birds"]
    assert [n["status"]["role"] for n in formed["nodes"]["nodes"]] == ["train", "inference", "inference"]
    assert len(shell.json("assign", "i2=none")["nodes"]) == 3
    drained = shell.json("drain", "i1", "--wait", "60")
    assert [(n["is_draining"], n["is_drained"]) for n in drained["nodes"]] == [(False, False), (True, True), (False, False)]
    assert i1.status().processes == ()
    assert not any(n["is_draining"] for n in shell.json("drain", "i1", "--undo")["nodes"])
    world.settled("2 of 2 nodes as wanted")
    assert [n["status"]["hostname"] for n in shell.json("remove", "i1")["nodes"]] == ["t1", "i2"]
    shell.json("add", "i1", "--role", "train")
    world.settled("2 of 2 nodes as wanted")
    assert i1.assignment.role == "train"
    assert shell.json("confirm")["state"] == "running"
    assert shell.json("logs", "t1", "--lines", "2") == {"node": "t1", "process": "", "text": "two\nthree"}
    assert shell.json("revoke", "i2") == {"revoked": ["i2"]}
    actions = shell.json("actions", "--last", "400")["actions"]
    assert {"admit", "form", "open-task", "order", "assign", "drain", "remove", "add", "revoke"} <= {a["what"] for a in actions}
    assert all(action["reason"] and action["at"] for action in actions)
    assert len(shell.json("actions", "--last", "2")["actions"]) == 2
    assert set(shell.json("status")) == {"nodes", "topology", "actions"}
    assert shell.json("nodes")["epoch"] == world.ops.nodes().epoch


def test_text_is_for_people_one_node_a_line(world: World, shell: Shell) -> None:
    world.boot("t1", "i1")
    lines = shell("form", "--role", "t1=train", "--role", "i1=inference").splitlines()
    assert lines[0].split("\t")[:4] == ["t1", "127.0.3.1", "train master", "alive"]
    assert lines[-1].startswith("running, epoch 1: 2 of 2 nodes as wanted")
    words = ("machines", "processes", "last actions", "train-worker", "inference master", "epoch 1: ")
    until(lambda: all(word in shell("status") for word in words), "all of it in a status of fresh heartbeats")
    assert "2 of 2 nodes as wanted" in shell("actions")
    assert shell("logs", "t1") == "one\ntwo\nthree\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("assign", "ghost=train"), "no node 'ghost' has registered"),
        (("assign", "t1=data"), "use NAME=train"),
        (("form", "--train", "9"), "asked for 9 train"),
        (("form", "--train", "1", "--task", "birds"), "needs --category and --labels"),
        (("form", "--train", "1", "--labels", "a"), "name it with --task"),
        (("form", "--train", "1", "--task", "birds", "--category", "poems", "--labels", "a,b"), "poems"),
        (("remove", "ghost"), "no node 'ghost' has registered"),
        (("add", "ghost"), "no node 'ghost' has registered"),
        (("revoke", "ghost"), "no certificate was issued to 'ghost'"),
        (("logs", "ghost"), "no node 'ghost'"),
        (("actions", "--last", "0"), "at least one"),
        (("assign", "t1=train", "t1=inference"), "'t1' is named twice"),
        (("form", "--role", "t1=train", "--role", "t1=inference"), "'t1' is named twice"),
        (("form", "--train", "1", "--role", "t1=train"), "how many nodes train and infer, or which, but not both"),
        (("drain", "t1", "--wait", "-1"), "--wait -1: 0 or more seconds"),
        (("drain", "t1", "ghost"), "no node 'ghost' has registered; there are: t1 (done: t1)"),
        (("token",), "say one of"),
        (("token", "node", "--life", "0"), "--life 0: a token is good for more than 0 seconds"),
        (("token", "--revoke", "nope"), "no join token has the id 'nope'"),
    ],
)
def test_a_failure_is_one_sentence_on_stderr_and_status_1(
    world: World, shell: Shell, words: tuple[str, ...], sentence: str
) -> None:
    world.boot("t1")
    err = shell(*words, status=1)
    assert sentence in err
    assert err.startswith(f"labelloop {words[0]}: ")
    assert len(err.splitlines()) == 1


def test_a_reader_that_goes_away_is_no_traceback(world: World) -> None:
    world.boot("t1")
    ear, mouth = os.pipe()
    os.close(ear)
    argv = [sys.executable, "-m", "scripts.cli", "nodes", "--state", str(world.folder)]
    done = subprocess.run(argv, stdout=mouth, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
    os.close(mouth)
    assert (done.returncode, done.stderr) == (141, "")


def test_draining_that_takes_longer_than_one_waits_is_said_and_goes_on(world: World, shell: Shell) -> None:
    t1, _ = world.boot("t1", "t2")
    shell("form", "--train", "2")
    t1.work = "run 7"
    until(lambda: any(p.activity for n in world.ops.nodes().nodes for p in n.status.processes))
    assert "t1 still at work after 0 s" in shell("drain", "t1", "--wait", "0.3", status=1)
    assert world.ops.nodes().nodes[0].is_draining


def test_who_interrupts_an_order_hears_that_it_goes_on(world: World) -> None:
    (t1,) = world.boot("t1")
    t1.may_answer.clear()
    argv = [*INTERRUPTIBLE, sys.executable, "-m", "scripts.cli", "form", "--role", "t1=train", "--state", str(world.folder)]
    forming = subprocess.Popen(argv, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    until(lambda: t1.orders, "the order is out")
    forming.send_signal(signal.SIGINT)
    _, said = forming.communicate(timeout=60)
    assert (forming.returncode, said) == (130, "interrupted; what the registry was asked for goes on: see `labelloop status`\n")
    t1.may_answer.set()
    world.settled("1 of 1 nodes as wanted")


def test_ops_of_another_machine_join_once_with_a_token(world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world.boot("t1")
    token_file = tmp_path / "token"
    token_file.write_text(world.authority.create_token("ops"))
    elsewhere = ["--registry", world.address, "--state", str(tmp_path / "nothing-here")]
    assert cli.main(["nodes", *elsewhere]) == 1
    assert "labelloop token" in capsys.readouterr().err
    assert cli.main(["nodes", *elsewhere, "--token-file", str(token_file)]) == 0
    world.authority.revoke_token(token_file.read_text())
    assert cli.main(["nodes", *elsewhere, "--token-file", str(token_file)]) == 0, "it is known by now"
    assert cli.main(["nodes", *elsewhere]) == 0
    assert capsys.readouterr().out.count("t1\t") == 3


def test_ops_who_were_revoked_and_a_token_of_another_cluster(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(world.authority.create_token("ops"))
    elsewhere = ["--registry", world.address, "--state", str(tmp_path / "nothing-here"), "--token-file", str(token_file)]
    assert cli.main(["nodes", *elsewhere]) == 0
    cli.main(["revoke", "ops", "--state", str(world.folder)])
    assert cli.main(["nodes", *elsewhere]) == 1
    assert "was revoked" in capsys.readouterr().err
    token_file.write_text(f"{'x' * 43}.{'0' * 64}")
    assert cli.main(["nodes", *elsewhere]) == 1
    assert "not the cluster of this join token" in capsys.readouterr().err


def test_tokens_are_listed_without_their_secret_and_revoked_by_id(world: World, shell: Shell) -> None:
    secret = shell("token", "client").strip()
    listed = shell.json("token", "--list")["tokens"]
    token = next(view for view in listed if view["kind"] == "client")
    assert secret.partition(".")[0] not in json.dumps(listed)
    assert token["token_id"] in shell("token", "--list")
    assert shell("token", "--revoke", token["token_id"]) == "revoked\n"
    assert token["token_id"] not in shell("token", "--list")


def test_following_the_logs_of_a_node_prints_what_comes_of_each_process_until_it_is_interrupted(world: World) -> None:
    (t1,) = world.boot("t1")
    world.form(t1="train")
    t1.second_log = ["a"]
    expected = ["==> train-worker <==", "two", "three", "==> second <==", "a"]
    with _following(world, "t1", "--lines", "2") as seen:
        until(lambda: seen == expected, "the last two lines of each")
        t1.log += ["four", "five"]
        expected += ["==> train-worker <==", "four", "five"]
        until(lambda: seen == expected, "what came")
        t1.second_log += ["b"]
        until(lambda: seen == [*expected, "==> second <==", "b"], "what came of the other one")


def test_following_one_process_prints_its_lines_alone(world: World) -> None:
    (t1,) = world.boot("t1")
    with _following(world, "t1", "train-worker") as seen:
        until(lambda: seen == ["one", "two", "three"], "all lines")
        t1.log += ["four"]
        until(lambda: seen == ["one", "two", "three", "four"], "what came")


@contextlib.contextmanager
def _following(world: World, *words: str) -> Iterator[list[str]]:
    """Yield the lines that `labelloop logs --follow` has printed; it is interrupted at the end, as Ctrl-C does."""
    argv = [*INTERRUPTIBLE, sys.executable, "-m", "scripts.cli", "logs", *words, "--follow", "--state", str(world.folder)]
    follower = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    seen: list[str] = []
    assert follower.stdout is not None and follower.stderr is not None
    lines = iter(follower.stdout.readline, "")
    reader = threading.Thread(target=lambda: seen.extend(line.rstrip("\n") for line in lines))
    reader.start()
    try:
        yield seen
    finally:
        follower.send_signal(signal.SIGINT)
        status = follower.wait(timeout=60)
        reader.join()
        said = follower.stderr.read()
        follower.stdout.close()
        follower.stderr.close()
    assert (status, said) == (130, "")


# ------------------------------------------------------------ help and weight


def test_the_page_of_commands_is_what_the_parsers_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run python -m scripts.commands_page"


@pytest.mark.parametrize(
    "command", ["status", "form", "assign", "drain", "add", "remove", "revoke", "actions", "logs", "registry", "token"]
)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for part in (f"usage: {Path(sys.argv[0]).name}", f"\nexamples:\n  labelloop {command}", "\nexit codes:\n  0 "):
        assert part in text or part.startswith("usage")


def test_wrong_arguments_end_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["status", "--nope"], ["no-such-command"], []):
        with pytest.raises(SystemExit) as ended:
            cli.main(words)
        assert ended.value.code == 2
    capsys.readouterr()


def test_looking_loads_nothing_heavy() -> None:
    heavy = (
        "torch",
        "tensorflow",
        "numpy",
        "cryptography",
        "rich",
        "prometheus_client",
        "paramiko",
        "celery",
        "flask",
        "sqlalchemy",
    )
    code = (
        "import sys; from scripts import cli; args = cli.build_parser('status').parse_args(['status']); "
        "import cluster.commands_status; "
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PAGE.parent.parent)
    assert done.stdout.strip() == "[]"
