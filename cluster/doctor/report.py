"""From an exam to findings, and from findings to what a person or a program reads.

Owns the list of checks, the order of findings and the exit status: 0 nothing but notes, 1 warnings, 2 errors. Called by `command`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import msgspec

from cluster.doctor import broker_checks, checks, node_checks, ports
from cluster.doctor.exam import Exam, Finding, Severity

Check = Callable[[Exam], Iterable[Finding]]
CHECKS: tuple[Check, ...] = (
    checks.check_registry,
    checks.check_answers,
    checks.check_probes,
    checks.check_clocks,
    ports.check_ports,
    node_checks.check_datastore,
    node_checks.check_races,
    node_checks.check_disks,
    checks.check_roles,
    node_checks.check_processes,
    broker_checks.check_cookies,
    broker_checks.check_brokers,
    broker_checks.check_members,
    broker_checks.check_queues,
    node_checks.check_hosts,
    checks.check_gpus,
    checks.check_versions,
    checks.check_epochs,
    node_checks.check_memory,
    checks.check_certificates,
)
_RANK = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.NOTE: 2}
_STATUS = {Severity.ERROR: 2, Severity.WARNING: 1, Severity.NOTE: 0}


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `doctor --json` prints. `exit_status` 0 = nothing but notes, 1 = warnings, 2 = errors."""

    exit_status: int
    seen_from: str
    nodes: tuple[str, ...]
    findings: tuple[Finding, ...]


def judge(exam: Exam, names: Sequence[str] = ()) -> Report:
    """Return all findings, errors first; with `names` those of these nodes and of the cluster as a whole."""
    found = [f for check in CHECKS for f in check(exam) if not names or not f.node or f.node in names]
    found.sort(key=lambda finding: _RANK[finding.severity])
    status = max((_STATUS[finding.severity] for finding in found), default=0)
    seen = tuple(node.hostname for node in exam.nodes if not names or node.hostname in names)
    return Report(exit_status=status, seen_from=exam.seen_from, nodes=seen, findings=tuple(found))


def render(report: Report) -> str:
    """Return the report as text: a headline, then a paragraph a finding."""
    counted = {severity: sum(f.severity is severity for f in report.findings) for severity in Severity}
    counts = ", ".join(f"{n} {severity.value}{'s' if n > 1 else ''}" for severity, n in counted.items() if n)
    where = "" if report.seen_from == "registry" else ", seen from this node alone"
    lines = [f"{len(report.nodes)} node(s) examined{where}: {counts or 'nothing wrong'}"]
    for finding in report.findings:
        place = f" {finding.node}" if finding.node else ""
        lines += ["", f"{finding.severity.value.upper()} [{finding.check}]{place}: {finding.what}"]
        lines += [f"  why it matters: {finding.why}", f"  way out: {finding.way_out}"]
    return "\n".join(lines)
