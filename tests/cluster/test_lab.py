"""The lab's dockers and their faults, on bare ones: everything that a test of the cluster relies on, without a cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.lab.lab import Lab, running_lab, take_down
from cluster.lab.plan import mark_of
from cluster.process import find_marked
from labelloop.errors import ConflictError, InvalidInputError, NotFoundError, NotReadyError

pytestmark = pytest.mark.slow
CHECKOUT = Path(__file__).resolve().parents[2]


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"never came true: {what}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(3, tmp_path_factory.mktemp("bare") / "lab", is_shell_only=True) as made:
        yield made


def reaches(lab: Lab, source: str, address: str) -> bool:
    """Whether a connection from one docker to the sshd of another (or a ping of the machine) comes about within 2 s."""
    return lab.run(source, ["ping", "-c", "1", "-W", "2", address]).returncode == 0


def state_of(pid: int) -> str:
    """Return the letter of a process's state; Z also for one that is gone by now."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def test_a_docker_has_its_own_name_address_processes_and_disk(lab: Lab) -> None:
    assert lab.run("node-2", ["hostname"]).stdout == "node-2\n"
    assert lab.address("node-2") in lab.run("node-2", ["ip", "-brief", "address"]).stdout
    seen = lab.run("node-2", ["ps", "-e", "-o", "pid="]).stdout.split()
    assert seen[0] == "1" and len(seen) < 10
    lab.run("node-1", ["sh", "-c", "for f in /etc/hosts /tmp/x /var/lib/rabbitmq/x /var/lib/labelloop/x; do echo mine >>$f; done"])
    assert "mine" in (lab.disk("node-1") / "etc/hosts").read_text()
    assert "mine" not in lab.run("node-2", ["cat", "/etc/hosts"]).stdout + Path("/etc/hosts").read_text()
    assert lab.run("node-2", ["ls", "/tmp", "/var/lib/rabbitmq", "/var/lib/labelloop"]).stdout.count("x") == 0


def test_addresses_of_the_first_nodes_tell_numbers_from_strings(lab: Lab) -> None:
    assert [lab.address(name).rpartition(".")[2] for name in lab.nodes] == ["9", "10", "11"]


def test_all_dockers_see_one_shared_disk_through_fuse(lab: Lab) -> None:
    for name in ("node-1", "node-2"):
        assert lab.run(name, ["sh", "-c", "mkdir -p /home/d && bindfs /run/lab/disk /home/d"]).returncode == 0
    lab.run("node-1", ["sh", "-c", "echo hello >/home/d/greeting"])
    assert lab.run("node-2", ["cat", "/home/d/greeting"]).stdout == "hello\n"
    assert (lab.datastore / "greeting").read_text() == "hello\n"


def test_a_partition_cuts_both_ways_and_spares_who_is_in_no_group(lab: Lab) -> None:
    one, two = lab.address("node-1"), lab.address("node-2")
    assert reaches(lab, "node-1", two)
    lab.partition(["node-1"], ["node-2"])
    try:
        assert not reaches(lab, "node-1", two) and not reaches(lab, "node-2", one)
        assert reaches(lab, "node-3", one) and reaches(lab, "node-3", two)
        assert reaches(lab, "node-1", lab.host) and reaches(lab, "node-2", lab.host)
        lab.partition(["node-1", "node-2"], ["node-3"])  # replaces the first
        assert reaches(lab, "node-1", two) and not reaches(lab, "node-3", one)
    finally:
        lab.heal()
    assert reaches(lab, "node-3", one)


def test_a_frozen_docker_runs_nothing_until_it_is_thawed(lab: Lab) -> None:
    argv, env = lab.command("node-2", [sys.executable, "-c", "while True: pass"])
    with subprocess.Popen(argv, env=env) as busy:
        until(lambda: len(lab.pids("node-2", "while True")) == 1, "the busy process runs")
        lab.freeze("node-2")
        assert {state_of(pid) for pid in lab.pids("node-2")} == {"T"}
        lab.thaw("node-2")
        until(lambda: state_of(lab.pids("node-2", "while True")[0]) == "R", "the busy process runs again")
        os.kill(lab.pids("node-2", "while True")[0], signal.SIGKILL)
        busy.wait()


def test_a_slow_docker_answers_later_but_answers_all(lab: Lab) -> None:
    def ping_ms() -> float:
        out = lab.run("node-1", ["ping", "-c", "3", "-i", "0.2", "-W", "5", lab.address("node-3")]).stdout
        assert "3 received" in out
        return float(out.rpartition("=")[2].split("/")[0])  # the quickest of three

    lab.slow("node-3", 40)
    assert ping_ms() >= 80  # there and back
    lab.slow("node-3", 10)
    until(lambda: 20 <= ping_ms() < 80, "the delay is the new one")
    lab.heal()
    until(lambda: ping_ms() < 20, "the delay is gone")


RECEIVE = """
import hashlib, socket
listening = socket.create_server(("0.0.0.0", 5555))
print("up", flush=True)
link, _ = listening.accept()
digest = hashlib.sha256()
while data := link.recv(65536):
    digest.update(data)
print(digest.hexdigest())
"""
SEND = """
import hashlib, socket, sys
data = bytes(range(256)) * 20_000
socket.create_connection((sys.argv[1], 5555)).sendall(data)
print(hashlib.sha256(data).hexdigest())
"""


def test_a_slow_wire_carries_bulk_whole(lab: Lab) -> None:
    lab.slow("node-3", 3)
    argv, env = lab.command("node-3", [sys.executable, "-c", RECEIVE])
    with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None and server.stdout.readline() == "up\n"
        sent = lab.run("node-1", [sys.executable, "-c", SEND, lab.address("node-3")]).stdout
        assert server.stdout.read() == sent != ""
    lab.heal()


def test_killing_a_docker_kills_all_of_it_and_its_disk_outlives_it(lab: Lab) -> None:
    argv, env = lab.command("node-3", ["setsid", "sleep", "1000"])
    with subprocess.Popen(argv, env=env) as inside:
        until(lambda: lab.pids("node-3", "sleep 1000"), "a process runs inside")
        lab.run("node-3", ["sh", "-c", "echo kept >/var/lib/labelloop/thing"])
        pids = lab.pids("node-3")
        lab.kill("node-3")
        inside.wait()
    assert lab.pid("node-3") == 0 and lab.pids("node-3") == ()
    assert not [pid for pid in pids if Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_bytes()]
    with pytest.raises(NotReadyError, match="node-3 is down"):
        lab.run("node-3", ["true"])
    lab.boot("node-3")
    assert lab.run("node-3", ["cat", "/var/lib/labelloop/thing"]).stdout == "kept\n"
    assert reaches(lab, "node-1", lab.address("node-3"))
    with pytest.raises(ConflictError, match="is up"):
        lab.boot("node-3")
    lab.kill("node-3")
    lab.boot("node-3", is_wiped=True)
    assert lab.run("node-3", ["ls", "/var/lib/labelloop"]).stdout == ""


def test_a_docker_with_a_lower_address_can_be_added(lab: Lab) -> None:
    assert lab.add("newcomer", 5) == lab.address("newcomer")
    assert reaches(lab, "node-1", lab.address("newcomer"))
    with pytest.raises(ConflictError):
        lab.add("newcomer", 6)
    with pytest.raises(NotFoundError, match="no docker 'nobody'"):
        lab.address("nobody")


def test_its_memory_is_measured_for_each_docker(lab: Lab) -> None:
    memory = lab.memory()
    assert set(memory.dockers) == {"registry", *lab.nodes}
    assert 0 < memory.dockers["node-1"] < memory.now <= memory.peak <= lab.memory_bytes()


def test_two_labs_live_side_by_side(lab: Lab, tmp_path: Path) -> None:
    with running_lab(1, tmp_path / "other", is_shell_only=True) as other:
        assert other.address("node-1") != lab.address("node-1")
        assert reaches(other, "node-1", other.host)
        assert not reaches(other, "node-1", lab.address("node-1"))
    assert reaches(lab, "node-1", lab.host)


def links() -> str:
    return subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout


def left_of(folder: Path, link: str) -> list[str]:
    """What there still is of a lab."""
    found = [f"process {pid}" for pid in find_marked(mark_of(folder)) if state_of(pid) != "Z"]
    found += [f"mount {line}" for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(folder) in line]
    found += [f"device {link}"] if f"{link}@" in links() else []
    return found + ([f"folder {folder}"] if folder.exists() else [])


def test_down_leaves_nothing_and_may_be_called_twice(tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    made = Lab.up(2, folder, is_shell_only=True, datastore_bytes=16 * 2**20)
    link = made._plan.link
    assert len(left_of(folder, link)) > 4
    made.slow("node-1", 5)
    made.partition(["node-1"], ["node-2"])
    made.freeze("node-2")
    made.down()
    assert left_of(folder, link) == []
    made.down()
    take_down(folder)


MAKER = """
import os, signal, sys
from pathlib import Path
from cluster.lab.lab import Lab
lab = Lab.up(1, Path(sys.argv[1]), is_shell_only=True, until_pid=os.getpid() if sys.argv[2] == "tied" else 0)
print(lab._plan.link, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def killed_maker(folder: Path, how: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", MAKER, str(folder), how], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    return done.stdout.strip()


def test_a_lab_tied_to_a_process_goes_with_it(tmp_path: Path) -> None:
    link = killed_maker(tmp_path / "lab", "tied")
    until(lambda: left_of(tmp_path / "lab", link) == [], "the keeper has taken the lab down")


def test_down_after_a_crash_leaves_nothing_either(tmp_path: Path) -> None:
    folder = tmp_path / "lab"
    link = killed_maker(folder, "loose")
    os.kill(int((folder / "keeper.pid").read_text()), signal.SIGKILL)
    (folder / "node-1" / "pid").unlink()  # as if it had died before it wrote that
    take_down(folder)
    assert left_of(folder, link) == []


def test_a_lab_that_cannot_come_up_leaves_nothing(tmp_path: Path) -> None:
    before = links()
    with pytest.raises(InvalidInputError, match="1 to 40"):
        Lab.up(0, tmp_path / "lab")
    with pytest.raises(InvalidInputError, match="2 different names"):
        Lab.up(2, tmp_path / "lab", names=("a", "a"), is_shell_only=True)
    assert not (tmp_path / "lab").exists() and links() == before
