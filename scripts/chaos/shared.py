"""What hurts that which all nodes of a lab use: queues emptied or poisoned, a disk filled, a mount lost, the registry gone or new.

Owns the doing. Must never judge: `trial` does, by the same rules after each. Each is a function of (ground, flow) that returns when
its damage is over, with what it saw, or makes one. Called by the table in `faults`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster.lab.plan import DATASTORE, REGISTRY
from cluster.lab.shell import call
from cluster.mount import is_mounted
from labelloop import messages as m
from labelloop import queues
from scripts.chaos.flow import Flow
from scripts.chaos.ground import LabGround
from scripts.chaos.hurts import Hurt
from scripts.chaos.steps import await_answers
from scripts.chaos.streams import CALL_S
from scripts.chaos.trial import STEADY_S, NeverCameTrueError, until

PURGE_S = 4.0
_WORKERS = frozenset({"data-worker", "train-worker", "inference-worker"})


# ---------------------------------------------------------------- queues


def empty_brokers(ground: LabGround, flow: Flow) -> str:
    """Throw away every message that waits in any queue, for some seconds on all brokers side by side, while no worker takes one."""
    brokers = [*_queues(ground), *_idle_queues(ground)]
    with _idle_workers(ground), ThreadPoolExecutor(len(brokers)) as pool:
        calls = [
            pool.submit(ground.inside, node, "purge", ground.role_config(node, process), str(PURGE_S), *names)
            for node, process, names in brokers
        ]
        gone = sum(int(call.result()) for call in calls)
    if not gone:
        raise NeverCameTrueError("no message waited in any queue: nothing was emptied")
    return f"{gone} messages thrown away in {PURGE_S:.0f} s on {len(brokers)} brokers"


@contextlib.contextmanager
def _idle_workers(ground: LabGround) -> Iterator[None]:
    """Stop every worker in its tracks, so that what is sent waits in the queues."""
    stopped = [
        pid
        for node in ground.wanted
        for kind, pids in ground.processes(node).items()
        for pid in pids
        if kind.partition("/")[0] in _WORKERS
    ]
    try:
        _signal(stopped, signal.SIGSTOP)
        yield
    finally:
        _signal(stopped, signal.SIGCONT)


def _signal(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def poison_queues(ground: LabGround, flow: Flow) -> str:
    """Put messages that nobody can read into every shared queue; they must not stay there."""
    put = 0
    brokers = _queues(ground)
    for node, process, names in brokers:
        put += int(ground.inside(node, "poison", ground.role_config(node, process), *names))
    wanted = {node: names for node, _, names in brokers}
    gone_s = until(lambda: _why_not_drained(ground, wanted), "queues rid of the poison", steady_s=STEADY_S)
    return f"{put} poison messages, gone after {gone_s:.1f} s"


def _why_not_drained(ground: LabGround, wanted: Mapping[str, Sequence[str]]) -> str:
    """Return which queue still holds messages by the heartbeats; a queue of which none speaks counts as full."""
    nodes = {view.status.hostname: view.status.broker.queues for view in ground.registry.nodes(deadline_s=CALL_S).nodes}
    full = [
        f"{name} holds {nodes[node].get(name, -1)}" for node, names in wanted.items() for name in names if nodes[node].get(name)
    ]
    silent = [f"{node} does not tell of {name}" for node, names in wanted.items() for name in names if name not in nodes[node]]
    return ", ".join(full + silent)


def _queues(ground: LabGround) -> list[tuple[str, str, list[str]]]:
    """Return (a node at the broker, one of its role processes, the shared queues there) for both roles."""
    train, inference = ground.master("train"), ground.master("inference")
    cluster_id = ground.registry.nodes(deadline_s=CALL_S).cluster_id
    return [
        (train, "data-worker", [queues.data_queue(train), queues.run_queue(train)]),
        (inference, "inference-worker", [queues.interactive_queue(cluster_id), queues.bulk_queue(cluster_id)]),
    ]


def _idle_queues(ground: LabGround) -> list[tuple[str, str, list[str]]]:
    """Return the same for the brokers of the train nodes that do not lead: their queues wait for the day they do."""
    master = ground.master("train")
    others = [node for node in ground.of("train") if node != master]
    return [(node, "data-worker", [queues.data_queue(node), queues.run_queue(node)]) for node in others]


# ---------------------------------------------------------------- the datastore


def fill_disk(seconds: float) -> Hurt:
    """The shared disk has no byte left for a while."""

    def hurt(ground: LabGround, flow: Flow) -> str:
        filler = ground.datastore / ".chaos-filler"
        end_s = time.monotonic() + seconds
        before = flow.troubles()
        try:
            n_bytes = 0
            while time.monotonic() < end_s:  # what others free is taken too
                n_bytes += _fill(filler)
                time.sleep(0.2)
        finally:
            filler.unlink(missing_ok=True)
        told = flow.troubles() - before
        if not told:
            raise NeverCameTrueError("nobody was told that the disk is full")
        return f"{n_bytes >> 20} MiB for {seconds:.0f} s; errors meanwhile: {dict(told)}"

    return hurt


def _fill(filler: Path) -> int:
    """Append zeros until nothing fits any more; return how many bytes went in."""
    done, portion = 0, 1 << 20
    with filler.open("ab", buffering=0) as file:
        while portion >= 1:
            try:
                done += file.write(bytes(portion))
            except OSError as exc:
                if exc.errno != errno.ENOSPC:
                    raise
                portion //= 2
    return done


def unmount(ground: LabGround, flow: Flow) -> str:
    """The mount dies on one node of each role and vanishes on the others; each node mounts it again by itself."""
    victims = {ground.master("train"), ground.other("inference")}
    before = {node: _daemons(ground, node) for node in ground.wanted}
    for node in ground.wanted:
        if node in victims:
            _signal(before[node], signal.SIGKILL)
        elif (done := ground.lab.run(node, ["umount", "--lazy", DATASTORE])).returncode:
            raise NeverCameTrueError(f"{node} cannot unmount {DATASTORE}: {done.stderr}")
    back_s = until(lambda: _why_not_mounted(ground, before), f"a new mount of {DATASTORE} on every node")
    return f"killed under {', '.join(sorted(victims))}, unmounted on the others; mounted everywhere after {back_s:.1f} s"


def _why_not_mounted(ground: LabGround, before: Mapping[str, frozenset[int]]) -> str:
    """Return where the datastore has no mount by a daemon that is not one of those `before`."""
    late = [node for node, pids in before.items() if not (_is_mounted(ground, node) and set(_daemons(ground, node)) - pids)]
    return f"not mounted anew on {', '.join(late)}" if late else ""


def _is_mounted(ground: LabGround, node: str) -> bool:
    return is_mounted(Path(DATASTORE), Path(f"/proc/{ground.lab.pid(node)}/mountinfo"))


def _daemons(ground: LabGround, node: str) -> frozenset[int]:
    return frozenset(ground.lab.pids(node, "bindfs"))


# ---------------------------------------------------------------- the registry


def stop_registry(seconds: float) -> Hurt:
    """The registry is gone for a while."""

    def hurt(ground: LabGround, flow: Flow) -> str:
        ground.lab.kill(REGISTRY)
        n_before = flow.n_answered()
        time.sleep(seconds)
        answers_s = await_answers(ground, flow)
        n_meanwhile = flow.n_answered() - n_before
        ground.lab.boot(REGISTRY)
        if not n_meanwhile:
            raise NeverCameTrueError("no item got its answer while the registry was down")
        return f"{seconds:.0f} s; {n_meanwhile} items got their answer meanwhile, and both RPCs at its end in {answers_s:.1f} s"

    return hurt


def replace_registry(ground: LabGround, flow: Flow) -> str:
    """The registry comes back with nothing but the restored key of the authority: it learns, and a person confirms."""
    before = ground.registry.nodes(deadline_s=CALL_S).epoch
    ground.lab.kill(REGISTRY)
    for path in ground.lab.registry_state.iterdir():
        if path.name != "authority":
            call(["rm", "-rf", str(path)])
    ground.lab.boot(REGISTRY)
    until(lambda: _why_not_learning(ground), "the empty registry learning")
    await_answers(ground, flow)
    if reason := _why_not_learning(ground):
        raise NeverCameTrueError(f"the empty registry gave orders before it was confirmed: {reason}")
    ground.registry.form(m.FormRequest(), deadline_s=300.0)
    after = ground.registry.nodes(deadline_s=CALL_S).epoch
    return f"it learned by itself; epoch {before} before, {after} once confirmed"


def _why_not_learning(ground: LabGround) -> str:
    reply = ground.registry.nodes(deadline_s=CALL_S)
    alive = {view.status.hostname for view in reply.nodes if view.is_alive}
    if missing := set(ground.wanted) - alive:
        return f"not heard of yet: {sorted(missing)}"
    return "" if reply.state == "learning" else f"it is {reply.state}: {reply.last_reason}"
