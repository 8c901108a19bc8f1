"""What hurts a lab: processes killed, dockers killed, frozen and cut off, queues emptied, a disk filled, a mount lost.

Owns the doing. Must never judge: `trial` does, by the same rules after each. Each is a function of (ground, flow) that returns when
its damage is over, with what it saw, or makes one. Called by the table in `faults`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cluster.lab.plan import DATASTORE, REGISTRY
from cluster.lab.shell import call
from labelloop import messages as m
from labelloop import queues
from labelloop.errors import LabelloopError, RetryableError
from scripts.chaos.flow import Flow
from scripts.chaos.ground import LabGround
from scripts.chaos.items import item_of
from scripts.chaos.streams import CALL_S
from scripts.chaos.trial import NeverCameTrueError, await_whole, until

AT_ONCE_S = 5.0
PURGE_S = 6.0
Which = Callable[[LabGround], str]
Hurt = Callable[[LabGround, Flow], str]


# ---------------------------------------------------------------- who


def train_master(ground: LabGround) -> str:
    return ground.master("train")


def train_other(ground: LabGround) -> str:
    return ground.other("train")


def inference_master(ground: LabGround) -> str:
    return ground.master("inference")


def inference_other(ground: LabGround) -> str:
    return ground.other("inference")


# ---------------------------------------------------------------- processes


def kill_process(which: Which, kind: str) -> Hurt:
    """kill -9 of one process of a docker."""

    def hurt(ground: LabGround, flow: Flow) -> str:
        node = which(ground)
        pid = await_pid(ground, node, kind)
        os.kill(pid, signal.SIGKILL)
        return f"{kind} of {node}"

    return hurt


def await_pid(ground: LabGround, node: str, kind: str, but: int = 0) -> int:
    """Return a process of a kind, other than `but`, once there is one."""
    found: list[int] = []

    def why_not() -> str:
        found[:] = [pid for pid in ground.processes(node).get(kind, ()) if pid != but]
        return "" if found else f"{node} runs {', '.join(ground.processes(node))}"

    until(why_not, f"a {kind} on {node}")
    return found[0]


def kill_managers_in_turn(ground: LabGround, flow: Flow) -> str:
    """kill -9 of every manager, one after the other, each back before the next."""
    for node in ground.wanted:
        pid = await_pid(ground, node, "manager")
        os.kill(pid, signal.SIGKILL)
        await_pid(ground, node, "manager", but=pid)
        _await_whole(ground)
    return f"{len(ground.wanted)} managers"


# ---------------------------------------------------------------- dockers


def kill_docker(which: Which) -> Hurt:
    """A whole docker at once; it boots again when the rest answers without it."""

    def hurt(ground: LabGround, flow: Flow) -> str:
        node = which(ground)
        ground.lab.kill(node)
        answers_s = _await_answers(ground, flow)
        ground.lab.boot(node)
        return f"{node}; both RPCs answered after {answers_s:.1f} s, then it booted"

    return hurt


def freeze_docker(which: Which, seconds: float) -> Hurt:
    """Every process of a docker stops for a while and goes on as if nothing had been."""

    def hurt(ground: LabGround, flow: Flow) -> str:
        node = which(ground)
        ground.lab.freeze(node)
        end_s = time.monotonic() + seconds
        try:
            answers_s = _await_answers(ground, flow)
            time.sleep(max(0.0, end_s - time.monotonic()))
        finally:
            ground.lab.thaw(node)
        return f"{node} for {seconds:.0f} s; both RPCs answered after {answers_s:.1f} s"

    return hurt


def lose_train_master(ground: LabGround, flow: Flow) -> str:
    """Destroy the train master and its disk in the very moment in which a client without an outbox has its answer."""
    node = ground.master("train")
    had = flow.raw.n_done
    until(lambda: "" if flow.raw.n_done > had or flow.raw.is_finished else "no answer yet", "an answer for the raw client")
    ground.lab.kill(node)
    answers_s = _await_answers(ground, flow)
    ground.lab.boot(node, is_wiped=True)
    return f"{node} after {flow.raw.n_done} answers; both RPCs answered after {answers_s:.1f} s, then it booted with an empty disk"


def restart_all(ground: LabGround, flow: Flow) -> str:
    """Every docker, the registry's first, goes down and boots; the next one goes when the cluster is whole."""
    times = []
    for node in (REGISTRY, *ground.wanted):
        began_s = time.monotonic()
        ground.lab.kill(node)
        ground.lab.boot(node)
        _await_whole(ground)
        times.append(time.monotonic() - began_s)
    return f"{len(times)} dockers, {', '.join(f'{s:.0f}' for s in times)} s"


# ---------------------------------------------------------------- wires


def cut_one_off(seconds: float) -> Hurt:
    """One inference node loses its wires to all others; the rest go on."""

    def hurt(ground: LabGround, flow: Flow) -> str:
        node = ground.other("inference")
        with _cut(ground, [node], [REGISTRY, *(name for name in ground.wanted if name != node)]):
            end_s = time.monotonic() + seconds
            answers_s = _await_answers(ground, flow)
            time.sleep(max(0.0, end_s - time.monotonic()))
        return f"{node} for {seconds:.0f} s; the rest answered after {answers_s:.1f} s"

    return hurt


def cut_in_halves(seconds: float) -> Hurt:
    """The inference nodes see only their own half: no majority, so both halves answer an error at once, and heal by themselves."""

    def hurt(ground: LabGround, flow: Flow) -> str:
        names = ground.of("inference")
        middle = len(names) // 2
        clients = {name: ground.inference_at(name) for name in names}
        try:
            with _cut(ground, names[:middle], names[middle:]):
                end_s = time.monotonic() + seconds
                until(lambda: _why_not_paused(ground), "both halves pausing", seconds)
                slowest_s = max(_answer_s(client, flow.calls.task) for client in clients.values())
                time.sleep(max(0.0, end_s - time.monotonic()))
        finally:
            for client in clients.values():
                client.close()
        return f"{middle} and {len(names) - middle} for {seconds:.0f} s; the slowest error came after {slowest_s:.1f} s"

    return hurt


def _why_not_paused(ground: LabGround) -> str:
    nodes = {view.status.hostname: view for view in ground.registry.nodes(deadline_s=CALL_S).nodes}
    up = [name for name in ground.of("inference") if nodes[name].status.broker.state == "running"]
    return f"the brokers of {up} run" if up else ""


def _answer_s(client: object, task: str) -> float:
    """Return after how many seconds a call that cannot succeed was answered with a retryable error.

    Raises NeverCameTrueError when it was answered otherwise, or not at once.
    """
    began_s = time.monotonic()
    request = m.PredictRequest(task=task, items=(item_of("probe"),))
    try:
        client.predict(request, deadline_s=3 * AT_ONCE_S)  # type: ignore[attr-defined]
    except RetryableError as exc:
        took_s = time.monotonic() - began_s
        if took_s > AT_ONCE_S:
            raise NeverCameTrueError(f"without a majority a call waited {took_s:.1f} s for its error: {exc}") from exc
        return took_s
    except LabelloopError as exc:
        raise NeverCameTrueError(f"without a majority a call was answered {exc.code}: {exc}") from exc
    raise NeverCameTrueError("without a majority a call was answered")


@contextlib.contextmanager
def _cut(ground: LabGround, *groups: object) -> Iterator[None]:
    ground.lab.partition(*groups)  # type: ignore[arg-type]
    try:
        yield
    finally:
        ground.lab.heal()


# ---------------------------------------------------------------- queues


def empty_brokers(ground: LabGround, flow: Flow) -> str:
    """Throw away every message that waits in any queue, as fast as they come, for some seconds on all brokers side by side."""
    with ThreadPoolExecutor(2) as pool:
        calls = [
            pool.submit(ground.inside, node, "purge", ground.role_config(node, process), str(PURGE_S), *names)
            for node, process, names in _queues(ground)
        ]
        gone = sum(int(call.result()) for call in calls)
    return f"{gone} messages thrown away in {PURGE_S:.0f} s"


def poison_queues(ground: LabGround, flow: Flow) -> str:
    """Put messages that nobody can read into every shared queue."""
    put = 0
    for node, process, names in _queues(ground):
        put += int(ground.inside(node, "poison", ground.role_config(node, process), *names))
    return f"{put} poison messages"


def _queues(ground: LabGround) -> list[tuple[str, str, list[str]]]:
    """Return (a node at the broker, one of its role processes, the shared queues there) for both roles."""
    train, inference = ground.master("train"), ground.master("inference")
    cluster_id = ground.registry.nodes(deadline_s=CALL_S).cluster_id
    return [
        (train, "data-worker", [queues.data_queue(train), queues.run_queue(train)]),
        (inference, "inference-worker", [queues.interactive_queue(cluster_id), queues.bulk_queue(cluster_id)]),
    ]


# ---------------------------------------------------------------- the datastore


def fill_disk(seconds: float) -> Hurt:
    """The shared disk has no byte left for a while."""

    def hurt(ground: LabGround, flow: Flow) -> str:
        filler = ground.datastore / ".chaos-filler"
        end_s = time.monotonic() + seconds
        try:
            n_bytes = 0
            while time.monotonic() < end_s:  # what others free is taken too
                n_bytes += _fill(filler)
                time.sleep(0.2)
        finally:
            filler.unlink(missing_ok=True)
        return f"{n_bytes >> 20} MiB for {seconds:.0f} s; errors by then: {dict(flow.troubles())}"

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
    for node in ground.wanted:
        if node in victims:
            for pid in ground.lab.pids(node, "bindfs"):
                os.kill(pid, signal.SIGKILL)
        else:
            ground.lab.run(node, ["umount", "--lazy", DATASTORE])
    return f"killed under {', '.join(sorted(victims))}, unmounted on the others"


# ---------------------------------------------------------------- the registry


def stop_registry(seconds: float) -> Hurt:
    """The registry is gone for a while."""

    def hurt(ground: LabGround, flow: Flow) -> str:
        ground.lab.kill(REGISTRY)
        n_before = sum(stream.n_done for stream in flow.streams)
        time.sleep(seconds)
        n_meanwhile = sum(stream.n_done for stream in flow.streams) - n_before
        ground.lab.boot(REGISTRY)
        return f"{seconds:.0f} s; {n_meanwhile} items got their answer meanwhile"

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
    ground.registry.form(m.FormRequest(), deadline_s=300.0)
    after = ground.registry.nodes(deadline_s=CALL_S).epoch
    return f"it learned by itself; epoch {before} before, {after} once confirmed"


def _why_not_learning(ground: LabGround) -> str:
    reply = ground.registry.nodes(deadline_s=CALL_S)
    alive = {view.status.hostname for view in reply.nodes if view.is_alive}
    if missing := set(ground.wanted) - alive:
        return f"not heard of yet: {sorted(missing)}"
    return "" if reply.state == "learning" else f"it is {reply.state}: {reply.last_reason}"


# ---------------------------------------------------------------- shared steps


def _await_answers(ground: LabGround, flow: Flow) -> float:
    """Return after how many seconds both RPCs gave a good answer."""

    def why_not() -> str:
        ground.cluster.train().progress(m.ProgressRequest(task=flow.calls.task), deadline_s=CALL_S)
        ground.cluster.inference().predict(m.PredictRequest(task=flow.calls.task, items=(item_of("probe"),)), deadline_s=CALL_S)
        return ""

    return until(why_not, "both RPCs answering without it")


def _await_whole(ground: LabGround) -> None:
    await_whole(ground)
