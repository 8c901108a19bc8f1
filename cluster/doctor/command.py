"""`labelloop doctor [--local] [--json] [NODE ...]`: arguments, who looks, and where from.

Owns the choice between the registry's view and the local node's. Must never judge. Registered by `cluster.commands`.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from cluster.authority import Authority
from cluster.doctor.collect import Looker, look_at_registry, look_closer
from cluster.doctor.exam import Exam, NodeExam
from cluster.doctor.report import Report, judge, render
from cluster.joining import join, own_address
from cluster.noderecord import NodeRecord, manager_port, read_record
from cluster.probe import Surroundings, certificate_end_s, look_around, why_shut
from labelloop.errors import NotFoundError, SettingsError
from labelloop.nodefiles import read_machines
from labelloop.settings import Settings, read_settings
from labelloop.tls import Identity, load_identity
from labelloop.wire import parse_address

NODE_STATE = Path("/var/lib/labelloop")
_ADDRESS_FILE = "address"


def register(subparsers: Any) -> None:
    """Add `doctor`."""
    doctor = subparsers.add_parser(
        "doctor",
        help="find what is wrong, why it matters and what to do",
        description="Examine all nodes and what lies between them. Exit status: 0 nothing but notes, 1 warnings, 2 errors.",
    )
    doctor.add_argument("nodes", nargs="*", metavar="NODE", help="report on these nodes only (default: all)")
    doctor.add_argument("--settings", type=Path, help="TOML file of settings")
    doctor.add_argument("--registry", metavar="HOST:PORT", help="where it listens (default: as the registry on this machine says)")
    doctor.add_argument(
        "--state", type=Path, help="the registry's folder, if it is on this machine (default: <state_dir>/registry)"
    )
    doctor.add_argument("--token-file", type=Path, help="join token of kind ops; needed once, away from the registry's machine")
    doctor.add_argument("--local", action="store_true", help="examine from this machine's node, without the registry")
    doctor.add_argument("--node-state", type=Path, default=NODE_STATE, help=f"folder of this machine's node (default {NODE_STATE})")
    doctor.add_argument("--no-race", action="store_true", help="leave out the 1,000 races between the nodes on the datastore")
    doctor.add_argument("--json", action="store_true", help="as one JSON object")
    doctor.set_defaults(run=run_doctor)


def run_doctor(args: argparse.Namespace) -> int:
    """Examine, print, and return the exit status."""
    settings = read_settings(args.settings)
    exam = _local_exam(args, settings) if args.local else _exam(args, settings)
    for name in args.nodes:
        if name not in {node.hostname for node in exam.nodes}:
            raise NotFoundError(f"no node {name!r} is known: {', '.join(n.hostname for n in exam.nodes) or 'there are none'}")
    report = judge(exam, args.nodes)
    _print(report, args.json)
    return report.exit_status


def _print(report: Report, is_json: bool) -> None:
    text = msgspec.json.format(msgspec.json.encode(report)).decode() if is_json else render(report)
    sys.stdout.write(f"{text}\n")


# ---------------------------------------------------------------- with a registry


def _exam(args: argparse.Namespace, settings: Settings) -> Exam:
    """Look through the registry; where it does not answer and this machine is a node, through that node."""
    folder = (args.state or Path(settings.state_dir) / "registry").absolute()
    address = args.registry or _remembered(folder) or _told_to_node(args.node_state)
    if not address:
        raise SettingsError(f"no registry has run in {folder} and no node in {args.node_state}: give --registry HOST:PORT")
    trouble = why_shut(*parse_address(address))
    if trouble and read_record(args.node_state) is not None:
        exam = _local_exam(args, settings)
        return msgspec.structs.replace(exam, registry=address, registry_trouble=trouble)
    identity = _identity(args, settings, folder, address, bool(trouble))
    if identity is None:
        return Exam(now_s=time.time(), registry=address, registry_trouble=trouble)
    looker = Looker(identity=identity, settings=settings)
    exam = look_closer(look_at_registry(looker, address), looker, not args.no_race)
    return msgspec.structs.replace(exam, tokens=_tokens(folder, settings))


def _identity(args: argparse.Namespace, settings: Settings, folder: Path, address: str, is_shut: bool) -> Identity | None:
    """Return the ops identity of this machine; None when there is none yet and the registry is not there to give one."""
    ours = Path(settings.state_dir) / "ops"
    if args.token_file is None and (folder / "authority").exists():
        return Authority(folder / "authority", settings.cluster).own_identity("ops", own_address(address), "ops", folder / "ops")
    if is_shut:
        return load_identity(ours) if (ours / "key.pem").exists() else None
    return join(address, args.token_file, "ops", own_address(address), "ops", ours, settings.wire)


def _tokens(folder: Path, settings: Settings) -> tuple[tuple[str, float], ...] | None:
    if not (folder / "authority").exists():
        return None
    tokens = Authority(folder / "authority", settings.cluster).list_tokens()
    return tuple((token.kind, token.expires_s - time.time()) for token in tokens)


def _remembered(folder: Path) -> str:
    path = folder / _ADDRESS_FILE
    return path.read_text().strip() if path.exists() else ""


def _told_to_node(state: Path) -> str:
    record = read_record(state)
    return record.registry if record is not None else ""


# ---------------------------------------------------------------- from a node


def _local_exam(args: argparse.Namespace, settings: Settings) -> Exam:
    """Look from this machine's node, at itself and at the machines of its last order."""
    record = read_record(args.node_state)
    if record is None:
        raise SettingsError(f"no node has run in {args.node_state}: give --node-state, or leave out --local")
    identity = load_identity(args.node_state / "identity")
    looker = Looker(
        identity=identity,
        settings=settings,
        here=record.name,
        probe_here=lambda request: look_around(request, _surroundings(record, args.node_state, identity)),
    )
    exam = Exam(
        now_s=time.time(),
        seen_from="node",
        registry=record.registry,
        nodes=_known_nodes(record, args.node_state),
        identity_end_s=certificate_end_s(identity.certificate_file),
    )
    return look_closer(exam, looker, not args.no_race)


def _known_nodes(record: NodeRecord, state: Path) -> tuple[NodeExam, ...]:
    me = NodeExam(hostname=record.name, ip=record.ip, port=manager_port(state))
    others = [machine for machine in read_machines(state).good if machine.hostname != record.name]
    return (me, *(NodeExam(hostname=o.hostname, ip=o.ip, port=o.port) for o in others))


def _surroundings(record: NodeRecord, state: Path, identity: Identity) -> Surroundings:
    from cluster.joining import holder_of

    return Surroundings(
        name=record.name,
        cluster_id=holder_of(identity).cluster_id,
        state=state,
        datastore=Path(record.datastore),
        hosts_file=state / "hosts" if record.is_one_machine else Path("/etc/hosts"),
        certificate_file=identity.certificate_file,
    )
