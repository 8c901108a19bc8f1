"""Small dockers for broker tests: namespaces of their own for network, host name, mounts and processes, on one bridge.

Owns what it starts: killing process 1 of a docker kills all in it, and the bridge lives in a namespace of its own, so nothing of
the machine's network is touched and two runs never meet. Inside each docker an agent evaluates Python on its `RabbitBroker`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cluster.authority import Authority
from labelloop.errors import from_code
from labelloop.settings import Settings
from labelloop.tls import Identity

NETWORK = "10.213.7"
_CHECKOUT = Path(__file__).resolve().parent.parent
_INSIDE = """
set -e
hostname "$1"
mount --bind "$2/hosts" /etc/hosts
mount --bind "$2/lib" /var/lib/rabbitmq
mount --bind "$2/log" /var/log/rabbitmq
ip link set lo up
echo ready
trap '' CHLD
exec sleep infinity
"""
_HUB = "ip link set lo up; ip link add br0 type bridge forward_delay 0; ip link set br0 up; echo ready; exec sleep infinity"


def _start(argv: Sequence[str]) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    assert process.stdout is not None
    if process.stdout.readline() != b"ready\n":
        process.kill()
        process.wait()
        process.stdout.close()
        raise RuntimeError(f"{argv[0]} did not get ready")
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def _run(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def _is_in(entry: Path, namespace: Path, word: str) -> bool:
    try:
        is_here = (entry / "ns/pid").readlink() == namespace
        return is_here and word in (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:  # it ended meanwhile
        return False


class Docker:
    """One docker. Its disk (`folder`) stays over `kill` and `boot`."""

    def __init__(self, dockers: Dockers, name: str, number: int, folder: Path, identity: Identity) -> None:
        self.name = name
        self.ip = f"{NETWORK}.{number}"
        self.folder = folder
        self.identity = identity
        self._dockers = dockers
        self._port = f"p{number}"
        self._process: subprocess.Popen[bytes] | None = None
        self._agent: subprocess.Popen[bytes] | None = None
        self._first = 0
        for part in ("lib", "log", "state"):
            (folder / part).mkdir(parents=True)
        shutil.chown(folder / "lib", "rabbitmq", "rabbitmq")
        shutil.chown(folder / "log", "rabbitmq", "rabbitmq")
        self.lib, self.log, self.state = folder / "lib", folder / "log", folder / "state"

    def boot(self) -> None:
        """Start the docker, without any process in it but its first."""
        self.write_hosts(self.name)
        namespaces = ("--net", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
        self._process = _start(["unshare", *namespaces, "sh", "-c", _INSIDE, "docker", self.name, str(self.folder)])
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self._first = int(children[0])
        hub = str(self._dockers.hub)
        with contextlib.suppress(subprocess.CalledProcessError):  # a wire of its earlier life
            _run("nsenter", "-t", hub, "-n", "ip", "link", "del", self._port)
        wire = ("ip", "link", "add", "name", self._port, "netns", hub, "type", "veth")
        _run(*wire, "peer", "name", "eth0", "netns", str(self._first))
        _run("nsenter", "-t", hub, "-n", "ip", "link", "set", self._port, "master", "br0", "up")
        self.run("ip", "addr", "add", f"{self.ip}/24", "dev", "eth0")
        self.run("ip", "link", "set", "eth0", "up")

    def write_hosts(self, own_name: str) -> None:
        """Write the hosts file as Debian does, with the names of all dockers after it."""
        lines = ["127.0.0.1 localhost", f"127.0.1.1 {own_name}", *(f"{ip} {name}" for name, ip in self._dockers.addresses)]
        (self.folder / "hosts").write_text("\n".join(lines) + "\n")

    def rename(self, name: str) -> None:
        """Give the docker another host name, as after a reboot with other settings; its agent starts anew."""
        self._stop_agent()
        self.name = name
        self.run("hostname", name)
        self.identity = self._dockers.identity_of(name, self.ip)

    def renew(self) -> None:
        """Give the docker a new certificate for the key that it has."""
        self.identity = self._dockers.identity_of(self.name, self.ip)

    def run(self, *argv: str) -> str:
        """Run a program inside and return what it prints."""
        return _run("nsenter", "-t", str(self._first), "-n", "-u", "-m", "-p", "--", *argv)

    def do(self, expression: str, **values: Any) -> Any:
        """Evaluate Python inside, where `broker` is the node's; see `tests.docker_agent`. Raises the errors of labelloop."""
        if self._agent is None or self._agent.poll() is not None:
            self._stop_agent()
            self._agent = self._start_agent()
        assert self._agent.stdin is not None and self._agent.stdout is not None
        self._agent.stdin.write(json.dumps({"expression": expression, "values": values}).encode() + b"\n")
        self._agent.stdin.flush()
        line = self._agent.stdout.readline()
        if not line:
            raise RuntimeError(f"the agent in {self.name} died")
        answer = json.loads(line)
        if "code" in answer:
            raise from_code(answer["code"], answer["reason"])
        if "failure" in answer:
            raise AssertionError(answer["failure"])
        return answer["value"]

    def kill_agent(self) -> None:
        """SIGKILL what stands for the manager; the broker goes on."""
        self._stop_agent()

    def kill(self) -> None:
        """SIGKILL everything in the docker at once, as a power cut would."""
        self._stop_agent()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._first, signal.SIGKILL)
            _end(self._process)
            self._process = None

    def wipe(self) -> None:
        """Replace the disk of the docker, which must not run, by an empty one."""
        for part in (self.lib, self.log, self.state):
            for path in part.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def pids(self, word: str = "") -> list[int]:
        """Return the machine's numbers of the docker's processes whose command line contains `word`, the first one left out."""
        namespace = Path(f"/proc/{self._first}/ns/pid").readlink()
        entries = (entry for entry in Path("/proc").iterdir() if entry.name.isdigit() and int(entry.name) != self._first)
        return [int(entry.name) for entry in entries if _is_in(entry, namespace, word)]

    def signal(self, number: int, word: str) -> None:
        """Send a signal to the docker's processes whose command line contains `word`; there must be one."""
        found = self.pids(word)
        assert found, f"no {word} in {self.name}"
        for pid in found:
            os.kill(pid, number)

    def part_from(self, others: Sequence[Docker]) -> None:
        """Cut the network to `others`, in both directions."""
        for one, other in [(self, each) for each in others] + [(each, self) for each in others]:
            one.run("ip", "route", "add", "blackhole", f"{other.ip}/32")

    def meet(self, others: Sequence[Docker]) -> None:
        """Take back `part_from`."""
        for one, other in [(self, each) for each in others] + [(each, self) for each in others]:
            one.run("ip", "route", "del", "blackhole", f"{other.ip}/32")

    def _start_agent(self) -> subprocess.Popen[bytes]:
        config = {
            "hostname": self.name,
            "ip": self.ip,
            "state": str(self.state),
            "identity": [str(path) for path in (self.identity.certificate_file, self.identity.key_file, self.identity.ca_file)],
            "settings": self._dockers.settings,
        }
        inside = ["nsenter", "-t", str(self._first), "-n", "-u", "-m", "-p", "--"]
        argv = [*inside, sys.executable, "-m", "tests.docker_agent", json.dumps(config)]
        environment = {**os.environ, "PYTHONPATH": str(_CHECKOUT)}  # entering the mounts leaves the working folder behind
        return subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)

    def _stop_agent(self) -> None:
        if self._agent is None:
            return
        # nsenter forks into the pid namespace: its child is the agent
        with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError, IndexError):
            children = Path(f"/proc/{self._agent.pid}/task/{self._agent.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGKILL)
        _end(self._agent)
        self._agent = None


class Dockers:
    """The dockers of one test module; `settings` are areas and fields that differ from the defaults."""

    def __init__(self, folder: Path, settings: dict[str, dict[str, Any]]) -> None:
        self.folder = folder
        self.settings = settings
        self.authority = Authority(folder / "authority", Settings().cluster)
        self.dockers: list[Docker] = []
        self._hub = _start(["unshare", "--net", "--kill-child", "sh", "-c", _HUB])

    @property
    def hub(self) -> int:
        return self._hub.pid

    @property
    def addresses(self) -> list[tuple[str, str]]:
        return [(docker.name, docker.ip) for docker in self.dockers]

    def add(self, name: str) -> Docker:
        """Boot one more docker; all know its name."""
        number = len(self.dockers) + 2
        docker = Docker(self, name, number, self.folder / name, self.identity_of(name, f"{NETWORK}.{number}"))
        self.dockers.append(docker)
        for each in self.dockers:
            each.write_hosts(each.name)
        docker.boot()
        return docker

    def identity_of(self, name: str, ip: str, kind: Any = "node") -> Identity:
        """Return a certificate of the cluster's CA."""
        folder = self.folder / f"identity-{name}"
        folder.mkdir(exist_ok=True)
        return self.authority.own_identity(name, ip, kind, folder)

    def close(self) -> None:
        """End all dockers and the bridge."""
        for docker in self.dockers:
            docker.kill()
        _end(self._hub)


@contextlib.contextmanager
def running_dockers(folder: Path, names: Sequence[str], **settings: dict[str, Any]) -> Iterator[list[Docker]]:
    """Yield booted dockers, which are ended whatever happens."""
    dockers = Dockers(folder, dict(settings))
    try:
        yield [dockers.add(name) for name in names]
    finally:
        dockers.close()


def wait_for(what: Any, timeout_s: float = 60.0, why: str = "") -> Any:
    """Return the first true value of `what()`, asked again and again. Raises AssertionError with the last value."""
    deadline_s = time.monotonic() + timeout_s
    while True:
        value = what()
        if value:
            return value
        assert time.monotonic() < deadline_s, f"{why or 'it'} did not come about in {timeout_s:g} s: {value!r}"
        time.sleep(0.1)
