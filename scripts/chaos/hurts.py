"""What hurts the nodes of a lab: processes killed, dockers killed, frozen and cut off. `shared` hurts what all of them use.

Owns the doing. Must never judge: `trial` does, by the same rules after each. Each is a function of (ground, flow) that returns when
its damage is over, with what it saw, or makes one. Called by the table in `faults`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from cluster.lab.plan import REGISTRY
from cluster.lab.shell import call
from labelloop import messages as m
from labelloop.clients import InferenceClient
from labelloop.errors import LabelloopError
from scripts.chaos.flow import Flow
from scripts.chaos.ground import LabGround
from scripts.chaos.items import item_of
from scripts.chaos.steps import await_answers, await_leaders
from scripts.chaos.streams import CALL_S, RETRY_S
from scripts.chaos.trial import NeverCameTrueError, await_whole, until

AT_ONCE_S = 5.0
Hurt = Callable[[LabGround, Flow], str]
Which = Callable[[LabGround], str]


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
        await_whole(ground)
    return f"{len(ground.wanted)} managers"


# ---------------------------------------------------------------- dockers


def kill_docker(which: Which) -> Hurt:
    """A whole docker at once; it boots again when the rest answers without it, led by the lowest address that is left."""

    def hurt(ground: LabGround, flow: Flow) -> str:
        node = which(ground)
        ground.lab.kill(node)
        answers_s = await_answers(ground, flow)
        leaders = await_leaders(ground, but=node)
        ground.lab.boot(node)
        return f"{node}; both RPCs answered after {answers_s:.1f} s, {leaders} led, then it booted"

    return hurt


def freeze_docker(which: Which, seconds: float) -> Hurt:
    """Every process of a docker stops for a while and goes on as if nothing had been."""

    def hurt(ground: LabGround, flow: Flow) -> str:
        node = which(ground)
        ground.lab.freeze(node)
        end_s = time.monotonic() + seconds
        try:
            answers_s = await_answers(ground, flow)
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
    n_done = flow.raw.n_done
    call(["rm", "-rf", str(ground.lab.disk(node))])
    answers_s = await_answers(ground, flow)
    leaders = await_leaders(ground, but=node)
    ground.lab.boot(node, is_wiped=True)
    return f"{node} after {n_done} answers; both RPCs answered after {answers_s:.1f} s, {leaders} led, it booted with an empty disk"


def restart_all(ground: LabGround, flow: Flow) -> str:
    """Every docker, the registry's first, goes down and boots; the next one goes when the cluster is whole."""
    times = []
    for node in (REGISTRY, *ground.wanted):
        began_s = time.monotonic()
        ground.lab.kill(node)
        ground.lab.boot(node)
        await_whole(ground)
        times.append(time.monotonic() - began_s)
    return f"{len(times)} dockers, {', '.join(f'{s:.0f}' for s in times)} s"


# ---------------------------------------------------------------- wires


def cut_one_off(seconds: float) -> Hurt:
    """One inference node loses its wires to all others; the rest go on."""

    def hurt(ground: LabGround, flow: Flow) -> str:
        node = ground.other("inference")
        with (
            contextlib.closing(ground.inference_at(node)) as client,
            _cut(ground, [node], [REGISTRY, *(name for name in ground.wanted if name != node)]),
        ):
            end_s = time.monotonic() + seconds
            answers_s = await_answers(ground, flow)
            before = flow.n_answered()
            until(lambda: "" if _ask(node, client, flow.calls.task).error else "it answers", f"{node}, alone, refusing")
            refused_s = slowest_refusal([_ask(node, client, flow.calls.task)], [node])
            time.sleep(max(0.0, end_s - time.monotonic()))
            await_answers(ground, flow)
            n_meanwhile = flow.n_answered() - before
        rest = f"the rest answered after {answers_s:.1f} s and {n_meanwhile} items"
        return f"{node} for {seconds:.0f} s, alone it answered an error in {refused_s:.1f} s; {rest}"

    return hurt


def cut_in_halves(seconds: float) -> Hurt:
    """The inference nodes see only their own half: no majority, so both halves answer an error at once, and heal by themselves."""

    def hurt(ground: LabGround, flow: Flow) -> str:
        names = ground.of("inference")
        middle = len(names) // 2
        with contextlib.ExitStack() as stack:
            clients = {name: stack.enter_context(contextlib.closing(ground.inference_at(name))) for name in names}
            pool = stack.enter_context(ThreadPoolExecutor(len(names)))
            over = stack.enter_context(contextlib.closing(Bell()))
            with _cut(ground, names[:middle], names[middle:]):
                began_s = time.monotonic()
                asked = [pool.submit(_ask_until, over, name, client, flow.calls.task) for name, client in clients.items()]
                until(lambda: _why_not_paused(ground), "both halves pausing")
                paused_s = time.monotonic()
                time.sleep(max(0.0, began_s + seconds - paused_s))
                over.close()
                answers = [answer for call in asked for answer in call.result()]
        refused_s = slowest_refusal([answer for answer in answers if answer.at_s > paused_s], names)
        before_s = max((answer.took_s for answer in answers if answer.at_s <= paused_s), default=0.0)
        slowest = f"the slowest answer came in {before_s:.1f} s by then, in {refused_s:.1f} s since"
        return f"{middle} and {len(names) - middle} for {seconds:.0f} s, paused after {paused_s - began_s:.1f} s; {slowest}"

    return hurt


class Bell(threading.Event):
    """An event that rings when it is closed, however that comes."""

    close = threading.Event.set


class Answer(msgspec.Struct, frozen=True):
    """What one node answered a call that began at `at_s`: the error, or '' for a good answer; `took_s` seconds."""

    node: str
    at_s: float
    took_s: float
    error: str
    is_retryable: bool


def _ask_until(over: threading.Event, node: str, client: InferenceClient, task: str) -> list[Answer]:
    answers = []
    while not over.wait(RETRY_S):
        answers.append(_ask(node, client, task))
    return answers


def _ask(node: str, client: InferenceClient, task: str) -> Answer:
    at_s, error = time.monotonic(), None
    try:
        client.predict(m.PredictRequest(task=task, items=(item_of("probe"),)), deadline_s=4 * AT_ONCE_S)
    except LabelloopError as exc:
        error = exc
    said = f"{error.code}: {error}" if error else ""
    return Answer(node, at_s, time.monotonic() - at_s, said, error is not None and error.is_retryable)


def slowest_refusal(answers: Sequence[Answer], nodes: Sequence[str]) -> float:
    """Return the seconds of the slowest; raises NeverCameTrueError unless each node answers retryable errors only, at once."""
    for answer in answers:
        if not answer.is_retryable:
            raise NeverCameTrueError(f"without a majority {answer.node} answered {answer.error or 'as if all were well'}")
        if answer.took_s > AT_ONCE_S:
            raise NeverCameTrueError(f"without a majority {answer.node} took {answer.took_s:.1f} s for {answer.error}")
    if silent := set(nodes) - {answer.node for answer in answers}:
        raise NeverCameTrueError(f"without a majority {sorted(silent)} answered nothing")
    return max(answer.took_s for answer in answers)


def _why_not_paused(ground: LabGround) -> str:
    nodes = {view.status.hostname: view for view in ground.registry.nodes(deadline_s=CALL_S).nodes}
    up = [name for name in ground.of("inference") if nodes[name].status.broker.state == "running"]
    return f"the brokers of {up} run" if up else ""


@contextlib.contextmanager
def _cut(ground: LabGround, *groups: object) -> Iterator[None]:
    ground.lab.partition(*groups)  # type: ignore[arg-type]
    try:
        yield
    finally:
        ground.lab.heal()
