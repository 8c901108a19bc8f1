"""What `labelloop doctor [--local] [--json] [NODE ...]` does: who looks, where from, and the exit status.

Owns the choice between the registry's view and the local node's. Must never judge. Imported by `cluster.commands` when it runs.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import msgspec

from cluster.authority import Authority
from cluster.commands import ADDRESS_FILE
from cluster.doctor.collect import Looker, look_at_registry, look_closer
from cluster.doctor.exam import Exam, NodeExam
from cluster.doctor.report import Report, judge, render
from cluster.joining import holder_of
from cluster.noderecord import NodeRecord, manager_port, read_record
from cluster.ops_door import open_door, registry_folder
from cluster.probe import Surroundings, certificate_end_s, look_around, why_shut
from labelloop.errors import NotFoundError, SettingsError
from labelloop.nodefiles import read_machines
from labelloop.settings import Settings, read_settings
from labelloop.tls import Identity, load_identity
from labelloop.wire import parse_address


def run_doctor(args: argparse.Namespace) -> int:
    """Examine, print, and return the exit status."""
    settings = read_settings(args.settings)
    exam = _local_exam(args, settings) if args.local else _exam(args, settings)
    for name in args.node:
        if name not in {node.hostname for node in exam.nodes}:
            raise NotFoundError(f"no node {name!r} is known: {', '.join(n.hostname for n in exam.nodes) or 'there are none'}")
    report = judge(exam, args.node)
    _print(report, args.json)
    return report.exit_status


def _print(report: Report, is_json: bool) -> None:
    text = msgspec.json.format(msgspec.json.encode(report)).decode() if is_json else render(report)
    sys.stdout.write(f"{text}\n")


# ---------------------------------------------------------------- with a registry


def _exam(args: argparse.Namespace, settings: Settings) -> Exam:
    """Look through the registry; where it does not answer, through this machine's node or at nothing but its port."""
    folder = registry_folder(args, settings)
    address = args.registry or _remembered(folder) or _told_to_node(args.node_state)
    if not address:
        raise SettingsError(f"no registry has run in {folder} and no node in {args.node_state}: give --registry HOST:PORT")
    trouble = why_shut(*parse_address(address))
    if not trouble:
        args.registry = address
        with open_door(args) as door:
            looker = Looker(identity=door.identity, settings=settings)
            exam = look_closer(look_at_registry(looker, address), looker, not args.no_race)
        return msgspec.structs.replace(exam, tokens=_tokens(folder, settings))
    if read_record(args.node_state) is None:
        return Exam(now_s=time.time(), registry=address, registry_trouble=trouble)
    return msgspec.structs.replace(_local_exam(args, settings), registry=address, registry_trouble=trouble)


def _tokens(folder: Path, settings: Settings) -> tuple[tuple[str, float], ...] | None:
    if not (folder / "authority").exists():
        return None
    tokens = Authority(folder / "authority", settings.cluster).list_tokens()
    return tuple((token.kind, token.expires_s - time.time()) for token in tokens)


def _remembered(folder: Path) -> str:
    path = folder / ADDRESS_FILE
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
    return Surroundings(
        name=record.name,
        cluster_id=holder_of(identity).cluster_id,
        state=state,
        datastore=Path(record.datastore),
        hosts_file=state / "hosts" if record.is_one_machine else Path("/etc/hosts"),
        certificate_file=identity.certificate_file,
    )
