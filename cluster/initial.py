"""What `initial` means for one node: the order validated, the machines split, the assignment and the answer made of them.

Pure but for the check that a task path lies in the datastore. Must never change anything: `cluster.manager` applies what comes
out of here, after every machine was pinged.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec

from cluster.election import check_machines, choose_masters, ip_order, master_of, parse_ip
from cluster.taskcheck import check_category, check_extra, check_kind, task_of_path
from labelloop.errors import InvalidInputError, StaleEpochError
from labelloop.messages import BadMachine, InitialReply, InitialRequest, MachineInfo, Role, TaskSpec


class Assignment(msgspec.Struct, frozen=True, kw_only=True):
    """What a node was last told, kept on disk so that it comes back by itself. `epoch` stays when the role is taken away.

    `listed` names the inference machines of the order, good or bad.
    """

    epoch: int = 0
    role: Role | None = None
    good: tuple[MachineInfo, ...] = ()
    master_train: str = ""
    master_inference: str = ""
    master_host: str = ""
    is_master: bool = False
    has_left: bool = False
    drained: tuple[str, ...] = ()
    listed: tuple[str, ...] = ()

    @property
    def working(self) -> tuple[MachineInfo, ...]:
        """Return the good machines that are not drained: only they lead and run role processes."""
        return tuple(machine for machine in self.good if machine.hostname not in self.drained)

    @property
    def hosts(self) -> tuple[tuple[str, str], ...]:
        """Return (ip, hostname) of the good machines, lowest IP first: the block of the hosts file."""
        return tuple((m.ip, m.hostname) for m in sorted(self.good, key=lambda m: ip_order(m.ip)))


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """A validated `initial`: this node's own entry, and the task it opens besides, if any."""

    me: MachineInfo
    machines: tuple[MachineInfo, ...]
    epoch: int
    task: TaskSpec | None
    drained: tuple[str, ...] = ()


def check_order(request: InitialRequest, hostname: str, ip: str, root: Path) -> Order:
    """Return the order for the node `hostname` at `ip`; an empty task_category means: form the machines, open no task.

    Raises InvalidInputError naming the entry or field at fault; the same on every node, as it rests on the request alone.
    """
    check_machines(request.machines_info, is_loopback_allowed=parse_ip(ip, True).is_loopback)
    if request.epoch < 1:
        raise InvalidInputError(f"epoch {request.epoch} is below 1")
    task = _task_of(request, root)
    me = next((machine for machine in request.machines_info if machine.hostname == hostname), None)
    if me is None:
        raise InvalidInputError(f"machines_info does not name {hostname!r}, the node that was called")
    if me.ip != ip:
        raise InvalidInputError(f"machines_info gives {hostname!r} the ip {me.ip!r}, it is at {ip}")
    return Order(me=me, machines=request.machines_info, epoch=request.epoch, task=task, drained=request.drained)


def _task_of(request: InitialRequest, root: Path) -> TaskSpec | None:
    if not request.task_category:
        if request.task_datastore_path not in ("", ".") and Path(request.task_datastore_path) != root:
            raise InvalidInputError(f"task_datastore_path {request.task_datastore_path!r} comes without a task_category")
        return None
    check_extra(request.task_extra_info)
    category = check_category(request.task_category)
    check_kind(category, request.task_extra_info.kind)
    task = task_of_path(root, request.task_datastore_path)
    return TaskSpec(task=task, category=category, extra=request.task_extra_info)


def check_epoch(epoch: int, applied: int) -> None:
    """Raise StaleEpochError when `epoch` is older than what was applied here."""
    if epoch < applied:
        raise StaleEpochError(f"epoch {epoch} is older than {applied}, which this node has applied: ask the registry again")


def assign(order: Order, good: Sequence[MachineInfo]) -> Assignment:
    """Return what this node becomes, given who is good."""
    working = tuple(machine for machine in good if machine.hostname not in order.drained)
    master_train, master_inference, _ = choose_masters(working)
    train = master_of(working, "train")
    role: Role = "train" if order.me.type == "train" else "inference"
    return Assignment(
        epoch=order.epoch,
        role=role,
        good=tuple(good),
        master_train=master_train,
        master_inference=master_inference,
        master_host=train.hostname if train else "",
        is_master=order.me.ip == (master_train if role == "train" else master_inference),
        drained=tuple(name for name in order.drained if name in {machine.hostname for machine in good}),
        listed=tuple(machine.hostname for machine in order.machines if machine.type == "inference"),
    )


def why_not_ours(assignment: Assignment, hostname: str, ip: str) -> str:
    """Return why the assignment is not that of the node `hostname` at `ip`, '' = it is: a host may be renamed or moved."""
    if assignment.role is None or any((machine.hostname, machine.ip) == (hostname, ip) for machine in assignment.good):
        return ""
    return f"epoch {assignment.epoch} knows no {hostname} at {ip}, so this machine was renamed or moved"


def answer(
    assignment: Assignment,
    bad: Sequence[BadMachine],
    rpc: str,
    hashes: dict[str, str],
    me: str,
    extra: Sequence[str],
    sharing: Collection[str],
) -> InitialReply:
    """Return the reply; `hashes` is each good machine's erlang_hash as far as known, `extra` are further warnings.

    `sharing` names the machines that must use the same broker cluster as this node.
    """
    _, _, warnings = choose_masters(assignment.working)
    mine = hashes.get(me, "")
    others = {name: found for name, found in sorted(hashes.items()) if name in sharing and found}
    odd = [f"{name} uses another broker than {me}" for name, found in others.items() if mine and found != mine]
    return InitialReply(
        rpc=rpc,
        good_machines_info=tuple(
            msgspec.structs.replace(m, erlang_hash=hashes.get(m.hostname, m.erlang_hash)) for m in assignment.good
        ),
        bad_machines_info=tuple(bad),
        master_train=assignment.master_train,
        master_inference=assignment.master_inference,
        erlang_hash=mine,
        warnings=(*warnings, *odd, *extra),
        epoch=assignment.epoch,
    )
