"""`labelloop lab up | status | kill | freeze | thaw | boot | add | partition | heal | slow | run | down`.

Owns arguments and output. Must never hold logic of the lab. Registered by `scripts.cli`; what is heavy is imported when it is used.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from labelloop.errors import InvalidInputError, LabelloopError
from labelloop.settings import read_settings

if TYPE_CHECKING:
    from cluster.lab.lab import Lab

_MIB = 2**20


def register(subparsers: Any) -> None:
    """Add `lab` and what it can do."""
    lab = subparsers.add_parser("lab", help="a cluster of dockers on this machine, to try and to break (root)")
    verbs = lab.add_subparsers(dest="verb", required=True, metavar="VERB")
    up = _add(verbs, "up", _up, "make N dockers and a registry, and boot them with start.sh")
    up.add_argument("n", type=int, metavar="N", help="number of nodes")
    up.add_argument("--broker", choices=("rabbitmq", "embedded"), default="rabbitmq", help="default rabbitmq")
    up.add_argument("--bare", action="store_true", help="nodes with an sshd that boot nothing, as targets for `labelloop up`")
    up.add_argument("--datastore-mib", type=int, default=0, metavar="MIB", help="the shared disk is that small (default: a folder)")
    status = _add(verbs, "status", _status, "show the dockers, their memory, and how to reach the registry")
    status.add_argument("--json", action="store_true", help="as one JSON object")
    _add_docker(verbs, "kill", lambda lab, name: lab.kill(name), "kill whole dockers at once, as a power cut does")
    boot = _add(verbs, "boot", _boot, "start dockers that are down")
    boot.add_argument("nodes", nargs="+", metavar="NODE")
    boot.add_argument("--wiped", action="store_true", help="with an empty disk")
    _add_docker(verbs, "freeze", lambda lab, name: lab.freeze(name), "stop every process of dockers in its tracks")
    _add_docker(verbs, "thaw", lambda lab, name: lab.thaw(name), "let frozen dockers go on")
    add = _add(verbs, "add", _add_node, "add a docker")
    add.add_argument("node", metavar="NODE")
    add.add_argument("--number", type=int, default=0, help="last number of its address (default: the next free one)")
    cut = _add(verbs, "partition", _partition, "cut the wires between groups: NODE,NODE NODE,NODE ...; others reach everybody")
    cut.add_argument("groups", nargs="+", metavar="NODE[,NODE]")
    _add(verbs, "heal", lambda lab, args: lab.heal(), "join what was cut, end what is slow")
    slow = _add(verbs, "slow", lambda lab, args: lab.slow(args.node, args.ms), "delay every frame of a docker; 0 = no longer")
    slow.add_argument("node", metavar="NODE")
    slow.add_argument("ms", type=float, metavar="MS")
    run = _add(verbs, "run", _run, "run a command inside a docker")
    run.add_argument("node", metavar="NODE")
    run.add_argument("argv", nargs=argparse.REMAINDER, metavar="COMMAND")
    _add(verbs, "down", _down, "remove the lab: processes, namespaces, wires, mounts, its folder")


def _add(verbs: Any, name: str, work: Callable[..., object], text: str) -> Any:
    parser = verbs.add_parser(name, help=text, description=text)
    parser.add_argument("--name", default="lab", help="name of the lab; several may be up (default lab)")
    parser.set_defaults(run=lambda args: _do(args, work))
    return parser


def _add_docker(verbs: Any, name: str, work: Callable[[Lab, str], None], text: str) -> None:
    def each(lab: Lab, args: argparse.Namespace) -> None:
        for node in args.nodes:
            work(lab, node)

    _add(verbs, name, each, text).add_argument("nodes", nargs="+", metavar="NODE")


def folder_of(name: str) -> Path:
    """Return the folder of the lab called `name`. Raises InvalidInputError on a name that is no plain word."""
    if not name.replace("-", "").isalnum():
        raise InvalidInputError(f"--name {name!r}: use letters, digits and '-'")
    return (Path(read_settings(None).state_dir) / "labs" / name).absolute()


def _do(args: argparse.Namespace, work: Callable[..., object]) -> int:
    from cluster.lab.lab import Lab

    folder = folder_of(args.name)
    if work in (_up, _down):
        return int(work(folder, args) or 0)  # type: ignore[call-overload]
    return int(work(Lab(folder), args) or 0)  # type: ignore[call-overload]


def _up(folder: Path, args: argparse.Namespace) -> None:
    from cluster.lab.lab import Lab

    begun_s = time.monotonic()
    lab = Lab.up(
        args.n, folder, broker=args.broker, has_bare_nodes=args.bare, datastore_bytes=args.datastore_mib * _MIB, settings=None
    )
    _say(f"lab {args.name}: {args.n} nodes after {time.monotonic() - begun_s:.1f} s")
    _status(lab, args)


def _down(folder: Path, args: argparse.Namespace) -> None:
    from cluster.lab.keeper import peak_of
    from cluster.lab.lab import take_down

    peak = peak_of(folder)
    take_down(folder)
    _say(f"lab {args.name}: nothing of it is left" + (f"; it had {peak // _MIB} MiB at most" if peak else ""))


def _status(lab: Lab, args: argparse.Namespace) -> None:
    memory = lab.memory()
    rows = [(name, lab.address(name), lab.pid(name), memory.dockers.get(name, 0)) for name in ("registry", *lab.nodes)]
    if getattr(args, "json", False):
        dockers = [dict(zip(("name", "address", "pid", "memory_bytes"), row, strict=True)) for row in rows]
        facts = {"registry": lab.registry_address, "datastore": str(lab.datastore), "ops": str(lab.folder / "ops")}
        facts |= {"ssh_key": str(lab.ssh_key)}
        _say(
            msgspec.json.encode(
                {**facts, "memory_bytes": memory.now, "memory_peak_bytes": memory.peak, "dockers": dockers}
            ).decode()
        )
        return
    for name, address, pid, size in rows:
        _say(f"{name:<12} {address:<15} {f'process {pid}' if pid else 'down':<16} {size // _MIB:>6} MiB")
    _say(f"memory {memory.now // _MIB} MiB now, {memory.peak // _MIB} MiB at most (shared pages counted once)")
    _say(f"registry {lab.registry_address}, shared disk {lab.datastore}, ssh key {lab.ssh_key}")
    try:
        lab.ops_identity()
    except LabelloopError as exc:
        _say(str(exc))
    else:
        _say(f"ask it: labelloop status --registry {lab.registry_address} --state {lab.registry_state}")


def _boot(lab: Lab, args: argparse.Namespace) -> None:
    for node in args.nodes:
        lab.boot(node, is_wiped=args.wiped)


def _add_node(lab: Lab, args: argparse.Namespace) -> None:
    _say(f"{args.node} {lab.add(args.node, args.number)}")


def _partition(lab: Lab, args: argparse.Namespace) -> None:
    groups: Sequence[Sequence[str]] = [group.split(",") for word in args.groups if (group := word.strip("|"))]
    if len(groups) < 2:
        raise InvalidInputError("partition needs two groups or more, e.g. node-1,node-2 node-3,node-4")
    lab.partition(*groups)


def _run(lab: Lab, args: argparse.Namespace) -> None:
    words = args.argv[1:] if args.argv[:1] == ["--"] else args.argv
    argv, env = lab.command(args.node, words or ["bash"])
    os.execve(argv[0], argv, env)


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
