"""One lab, for tests and for `labelloop lab`: up, faults by docker name, down.

Owns the order in which things are made and removed. Must never assume that the process which made the lab still lives: all it
needs lies in the lab's folder, so `Lab(folder)` goes on where another one stopped. A `Lab` is for one thread.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Self

import msgspec

from cluster.authority import Authority
from cluster.lab import boot, bridge, dockers, faults, keeper
from cluster.lab.plan import FIRST_NODE, REGISTRY, STATE, DockerPlan, LabPlan, mark_of, read_plan, write_plan
from cluster.lab.shell import call, find_program, succeeds
from cluster.process import MARK
from labelloop.clients import RegistryClient
from labelloop.errors import ConflictError, DeadlineError, InvalidInputError, NotReadyError
from labelloop.messages import PeerKind
from labelloop.settings import Settings, environment_of
from labelloop.tls import Identity, write_file

_READY_S = 120.0
_MOST_NODES = 40


class Lab:
    """The lab in `folder`; `Lab.up` makes one. Every method names dockers by host name, `registry` among them."""

    def __init__(self, folder: Path) -> None:
        """Go on with the lab in `folder`. Raises NotFoundError when there is none."""
        self.folder = folder.absolute()
        self._plan = read_plan(self.folder)

    @classmethod
    def up(
        cls,
        n: int,
        folder: Path,
        *,
        settings: Settings | None = None,
        broker: str = "rabbitmq",
        names: Sequence[str] = (),
        is_shell_only: bool = False,
        has_bare_nodes: bool = False,
        datastore_bytes: int = 0,
        until_pid: int = 0,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> Self:
        """Make a lab of `n` node dockers and a registry in the new or empty `folder`, and return when all are up.

        `settings`: of registry and nodes (default: `boot.lab_settings()`). `is_shell_only`: dockers that boot nothing, for tests
        that bring their own processes; `has_bare_nodes`: only the registry boots. `datastore_bytes`: the shared disk is a tmpfs
        of that size. `until_pid`: take all down when that process is gone, however it ends. `environment`: more variables for
        everything in the dockers, a plug-in's PYTHONPATH for instance. Raises ConflictError when there is a lab already,
        SettingsError when a program or root is missing; what was made until then is removed.
        """
        if os.geteuid():
            raise InvalidInputError("the lab makes network namespaces and mounts: run it as root")
        if not 1 <= n <= _MOST_NODES:
            raise InvalidInputError(f"a lab has 1 to {_MOST_NODES} nodes, not {n}")
        folder = folder.absolute()
        if (folder / "lab.json").exists():
            raise ConflictError(f"{folder} holds a lab: `labelloop lab down` ends it")
        for program in ("ip", "nft", "unshare", "nsenter", "mount", "umount", "bindfs", "sshd", "ssh-keygen"):
            find_program(program)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            variables = {**environment_of(settings or boot.lab_settings()), **environment}
            wanted = LabPlan(
                dockers=_dockers(n, names),
                settings=variables,
                broker=broker,
                is_shell_only=is_shell_only,
                has_bare_nodes=has_bare_nodes,
            )
            plan = _make(folder, wanted, datastore_bytes, until_pid)
            lab = cls(folder)
            if plan.is_shell_only:
                lab._start(plan.dockers)
            else:
                lab._boot_all()
        except BaseException:
            take_down(folder)
            raise
        return lab

    # ------------------------------------------------------------ what there is

    @property
    def nodes(self) -> tuple[str, ...]:
        """Return the host names of the node dockers, in the order of their addresses."""
        return self._plan.nodes

    @property
    def datastore(self) -> Path:
        """Return the shared disk as the machine sees it; dockers mount it with bindfs at /home/datastore."""
        return self.folder / "datastore"

    @property
    def registry_address(self) -> str:
        """Return host:port of the registry, reachable from the machine and every docker."""
        return boot.registry_address(self._plan)

    @property
    def host(self) -> str:
        """Return the machine's own address on the lab's network."""
        return self._plan.host

    def address(self, name: str) -> str:
        """Return the address of a docker."""
        return self._plan.address(name)

    def disk(self, name: str) -> Path:
        """Return what a docker keeps over a reboot, as the machine sees it: `disk(n) / "var/lib/labelloop"`."""
        self._plan.docker(name)
        return self.folder / name / "disk"

    def pid(self, name: str) -> int:
        """Return process 1 of a docker in the machine's numbers, 0 when it is down."""
        self._plan.docker(name)
        return dockers.pid_of(self.folder, name)

    def pids(self, name: str, text: str = "") -> tuple[int, ...]:
        """Return the processes of a docker in the machine's numbers: all, or those with `text` in their command line."""
        found = dockers.pids_in(self.pid(name))
        return tuple(pid for pid in found if text in dockers.command_of(pid)) if text else found

    def log(self, name: str) -> str:
        """Return what booting and running the docker has said."""
        path = self.folder / name / "boot.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def memory(self) -> keeper.Memory:
        """Return the memory of the dockers now, and the most they had together."""
        return keeper.measure(self.folder)

    def memory_bytes(self) -> int:
        """Return the highest memory of all dockers together, shared pages counted once, measured every 3 s and now."""
        return self.memory().peak

    # ------------------------------------------------------------ inside a docker

    def command(self, name: str, argv: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        """Return (argv, environment) that run a command inside a docker, for a Popen of your own; the working folder is /."""
        env = dockers.environment(self.folder, self._plan.settings)
        return [*dockers.enter(self.pid(name), name), *argv], env

    def run(self, name: str, argv: Sequence[str], timeout_s: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a command inside a docker to its end; its exit status is yours to look at. Raises NotReadyError, DeadlineError."""
        full, env = self.command(name, argv)
        try:
            return subprocess.run(full, env=env, cwd="/", capture_output=True, text=True, check=False, timeout=timeout_s)
        except subprocess.TimeoutExpired as exc:
            raise DeadlineError(f"`{' '.join(argv)}` in {name} took over {timeout_s:.0f} s") from exc

    # ------------------------------------------------------------ life and death

    def kill(self, name: str) -> None:
        """Kill a whole docker at once, as a power cut does; its disk stays."""
        dockers.kill_docker(self.folder, self._plan.docker(name).name)

    def boot(self, name: str, is_wiped: bool = False) -> None:
        """Start a docker that is down, as its machine would: the same command without a token; `is_wiped`: with an empty disk."""
        docker = self._plan.docker(name)
        if self.pid(name):
            raise ConflictError(f"docker {name} is up")
        if is_wiped:
            call(["rm", "-rf", str(self.folder / name / "disk")])
        self._start((docker,))

    def add(self, name: str, number: int = 0) -> str:
        """Add a docker with the last number of its address (0 = the next free one), boot it, and return its address."""
        if any(name == docker.name or number == docker.number for docker in self._plan.dockers):
            raise ConflictError(f"this lab has a docker {name!r} or the address {self._plan.numbered(number)}")
        docker = DockerPlan(name=name, number=number or max(d.number for d in self._plan.dockers) + 1)
        self._change(dockers=(*self._plan.dockers, docker))
        self._start((docker,))
        return self.address(name)

    def down(self) -> None:
        """Remove the lab: processes, namespaces, wires, mounts, and its folder. May be called again."""
        take_down(self.folder)

    # ------------------------------------------------------------ faults

    def freeze(self, name: str) -> None:
        """Stop every process of a docker in its tracks; its connections stay open and silent."""
        faults.freeze(self._first(name))

    def thaw(self, name: str) -> None:
        """Let a frozen docker go on."""
        faults.thaw(self.folder, self._first(name))

    def partition(self, *groups: Sequence[str]) -> None:
        """Cut the wires between dockers of different groups, both ways; one in no group, and the machine, reach everybody."""
        faults.partition(self._keeper(), [[self._plan.docker(name).number for name in group] for group in groups])

    def slow(self, name: str, delay_ms: float) -> None:
        """Let every frame to and from a docker arrive `delay_ms` later; 0 = at once again."""
        faults.slow(self.folder, self._keeper(), self._first(name), self._plan.docker(name).number, delay_ms)

    def heal(self) -> None:
        """Join what `partition` cut and end every `slow`."""
        faults.heal(self._keeper())
        for docker in self._plan.dockers:
            if first := self.pid(docker.name):
                faults.slow(self.folder, self._keeper(), first, docker.number, 0)

    # ------------------------------------------------------------ the cluster in it

    def ops_identity(self) -> Identity:
        """Return an identity of kind ops for calls from the machine."""
        return self._authority().own_identity("ops", self.host, "ops", self.folder / "ops")

    def client_identity(self) -> Identity:
        """Return an identity of kind client, a platform's backend, for calls from the machine."""
        return self._authority().own_identity("platform", self.host, "client", self.folder / "client")

    def ops_client(self) -> RegistryClient:
        """Return a client of the registry under the ops identity; close it."""
        return RegistryClient(self.registry_address, self.ops_identity(), self.settings.wire)

    @property
    def settings(self) -> Settings:
        """Return the settings of registry and nodes."""
        return boot.settings_of(self._plan)

    def create_token(self, kind: PeerKind = "node") -> str:
        """Return a new join token of the lab's registry."""
        return self._authority().create_token(kind)

    @property
    def ssh_key(self) -> Path:
        """Return the private key that opens root's account on every docker's sshd."""
        return self.folder / "ssh" / boot.SSH_KEY

    def host_key(self, name: str) -> str:
        """Return the public key of a docker's sshd, as a known_hosts file holds it: 'ssh-ed25519 AAAA...'."""
        self._plan.docker(name)
        return " ".join((self.folder / name / "ssh" / "host_key.pub").read_text().split()[:2])

    @property
    def registry_state(self) -> Path:
        """Return the registry's folder as the machine sees it."""
        return self.disk(REGISTRY) / STATE.lstrip("/") / "registry"

    def _authority(self) -> Authority:
        folder = self.registry_state / "authority"
        if not folder.exists():
            raise NotReadyError("the registry of this lab has not started yet")
        return Authority(folder, self.settings.cluster)

    # ------------------------------------------------------------ parts

    def _first(self, name: str) -> int:
        first = self.pid(name)
        if not first:
            raise NotReadyError(f"docker {name} is down: boot it first")
        return first

    def _keeper(self) -> int:
        return _keeper_of(self.folder)

    def _change(self, **values: object) -> None:
        self._plan = msgspec.structs.replace(self._plan, **values)
        write_plan(self.folder, self._plan)

    def _boot_all(self) -> None:
        registry = [docker for docker in self._plan.dockers if docker.name == REGISTRY]
        self._start(registry)
        boot.await_registry(self.folder, self._plan)
        write_file(self.folder / "token" / "node.token", f"{self.create_token()}\n".encode(), 0o600)
        self._start([docker for docker in self._plan.dockers if docker.name != REGISTRY])
        if self._plan.has_bare_nodes:
            return
        with self.ops_client() as client:
            boot.await_nodes(client, self.folder, self.nodes)

    def _start(self, wanted: Sequence[DockerPlan]) -> None:
        """Start dockers side by side and return when each has its wire, mounts and first processes."""
        started = []
        for docker in wanted:
            commands = boot.commands_of(self.folder, self._plan, docker.name)
            address = self._plan.numbered(docker.number)
            one = dockers.start_docker(self.folder, docker.name, address, self.host, commands, self._plan.settings)
            bridge.plug_in(self._keeper(), one.pid, docker.number)
            started.append(one)
        for one in started:
            one.wait_ready()


def _dockers(n: int, names: Sequence[str]) -> tuple[DockerPlan, ...]:
    chosen = tuple(names) or tuple(f"node-{number}" for number in range(1, n + 1))
    if len(set(chosen)) != n or REGISTRY in chosen:
        raise InvalidInputError(f"{n} different names other than {REGISTRY!r} are needed, not {', '.join(chosen)}")
    nodes = (DockerPlan(name=name, number=FIRST_NODE + index) for index, name in enumerate(chosen))
    return (DockerPlan(name=REGISTRY, number=2), *nodes)


def _make(folder: Path, wanted: LabPlan, size: int, until_pid: int) -> LabPlan:
    """Make folders, keeper and bridge; return the plan with the network that was free."""
    for name in ("datastore", "token"):
        (folder / name).mkdir(exist_ok=True)
    boot.make_keys(folder)
    if size:
        call(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder / "datastore")])
    pid = _start_keeper(folder, until_pid)
    network, link = bridge.make_bridge(pid)
    plan = msgspec.structs.replace(wanted, network=network, link=link)
    write_plan(folder, plan)
    return plan


def _start_keeper(folder: Path, until_pid: int) -> int:
    argv = [find_program("unshare"), "--net", sys.executable, "-m", "cluster.lab.keeper", str(folder)]
    argv += ["--until", str(until_pid)] if until_pid else []
    with (folder / "keeper.log").open("ab") as log:
        popen = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            cwd=dockers.CHECKOUT,
            env={"PATH": os.environ.get("PATH", os.defpath), MARK: mark_of(folder)},
            start_new_session=True,
        )
    dockers.watch(popen)
    assert popen.stdout is not None
    with popen.stdout as pipe:
        if pipe.readline() != b"ready\n":
            raise ConflictError(f"the lab's keeper did not start: {(folder / 'keeper.log').read_text()[-400:]}")
    return popen.pid


def _keeper_of(folder: Path) -> int:
    try:
        pid = int((folder / keeper.PID_FILE).read_text())
        os.kill(pid, 0)
    except (OSError, ValueError) as exc:
        raise NotReadyError(f"the keeper of the lab in {folder} is gone: `labelloop lab down`, then up again") from exc
    return pid


def take_down(folder: Path) -> None:
    """Remove whatever there is of a lab in `folder`, the folder included; harmless when there is nothing."""
    folder = folder.absolute()
    dockers.kill_marked(folder)
    if (folder / "lab.json").exists():
        bridge.remove_link(read_plan(folder).link)
    until_s = time.monotonic() + _READY_S
    while (folder / "datastore").is_mount() and time.monotonic() < until_s:
        succeeds(["umount", "--lazy", str(folder / "datastore")])
    if folder.exists():
        call(["rm", "-rf", "--one-file-system", str(folder)])


@contextlib.contextmanager
def running_lab(n: int, folder: Path, **options: object) -> Iterator[Lab]:
    """Yield `Lab.up(n, folder, ...)`, tied to this process; it is taken down at the end."""
    lab = Lab.up(n, folder, until_pid=os.getpid(), **options)  # type: ignore[arg-type]
    try:
        yield lab
    finally:
        lab.down()
