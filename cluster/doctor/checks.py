"""What is wrong with a cluster as seen: one pure function a question, exam in, findings out.

Owns the list of questions about the cluster as a whole. Must never look at anything itself. Called by `report`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from cluster.doctor.exam import Exam, Finding, NodeExam, Severity
from labelloop.errors import UnauthenticatedError

SKEW_WARNING_S = 5.0
SKEW_ERROR_S = 1800.0  # half of the hour by which certificates start back
_ROLES = {"train": "labels wait in the outbox of the app, nothing is trained", "inference": "there are no drafts and no ranks"}


def check_registry(exam: Exam) -> Iterator[Finding]:
    """Find a registry that is down, or that learns."""
    if exam.registry_trouble:
        yield Finding(
            severity=Severity.ERROR,
            check="registry",
            what=f"the registry {exam.registry} does not answer: {exam.registry_trouble}",
            why="roles and calls go on, but no node joins and no dead master is replaced",
            way_out="start it again on its machine: `./start.sh registry`; its folder holds all it needs",
        )
    if exam.cluster is not None and exam.cluster.state == "learning":
        yield Finding(
            severity=Severity.WARNING,
            check="registry",
            what=f"the registry is learning: {exam.cluster.last_reason}",
            why="it lost what it knew and gives no order, so a dead master is not replaced",
            way_out="look at `labelloop nodes`; if these are the right nodes and roles, `labelloop form` confirms them",
        )


def check_roles(exam: Exam) -> Iterator[Finding]:
    """Find a role that nobody holds, or whose master is missing."""
    if exam.seen_from != "registry" or exam.cluster is None:
        return
    if not exam.nodes:
        yield Finding(
            severity=Severity.ERROR,
            check="role",
            what="no node has registered",
            why="there is nothing to train or infer on",
            way_out="boot each docker with the line that `./start.sh registry` prints",
        )
        return
    for role, why in _ROLES.items():
        holders = exam.with_role(role)
        if not holders:
            yield _nobody(exam, role, why)
        elif not any(node.status is not None and node.status.is_master for node in holders):
            yield Finding(
                severity=Severity.ERROR,
                check="role",
                what=f"none of {_names(holders)} is the {role} master",
                why=why if role == "train" else "a node that joins has nobody to ask for the way in",
                way_out=f"the registry orders anew by itself within seconds; it says: {exam.cluster.last_reason}",
            )


def _nobody(exam: Exam, role: str, why: str) -> Finding:
    deaf = tuple(node for node in exam.nodes if node.status is not None and node.status.role == role)
    if deaf:
        what = f"no node that answers holds the role {role}; {_names(deaf)} did"
        way_out = f"start {_names(deaf)} again, it takes its role up; or give it to another one: `labelloop assign NAME={role}`"
    else:
        what = f"no node holds the role {role}"
        way_out = "`labelloop form --train N --inference N`, after booting nodes if there are too few"
    return Finding(severity=Severity.ERROR, check="role", what=what, why=why, way_out=way_out)


def check_clocks(exam: Exam) -> Iterator[Finding]:
    """Find clocks that differ from most of the others (ours is one of them) by more than their measurement allows."""
    measured = [node for node in exam.nodes if node.is_answering and node.rtt_s > 0]
    middle_s = sorted([0.0, *(node.offset_s for node in measured)])[(len(measured) + 1) // 2]
    clocks = [("", "this machine", -middle_s, 0.0)]
    clocks += [(node.hostname, node.hostname, node.offset_s - middle_s, node.rtt_s) for node in measured]
    for hostname, name, off_s, rtt_s in clocks:
        if abs(off_s) <= SKEW_WARNING_S + rtt_s / 2:
            continue
        is_error = abs(off_s) > SKEW_ERROR_S
        yield Finding(
            severity=Severity.ERROR if is_error else Severity.WARNING,
            check="clock",
            node=hostname,
            what=f"the clock of {name} is {abs(off_s):.0f} s {'ahead of' if off_s > 0 else 'behind'} the others",
            why="certificates start an hour back: a clock more than that behind refuses fresh ones, and logs cannot be compared",
            way_out="set the clock of its host (dockers have none of their own): `timedatectl set-ntp true`, or chrony",
        )


def check_epochs(exam: Exam) -> Iterator[Finding]:
    """Find nodes that have not applied the newest order."""
    if exam.cluster is None or exam.cluster.state != "running":
        return
    for node in exam.nodes:
        if node.status is None or not node.is_answering or not node.status.role or node.status.epoch == exam.cluster.epoch:
            continue
        yield Finding(
            severity=Severity.WARNING,
            check="epoch",
            node=node.hostname,
            what=f"{node.hostname} is at epoch {node.status.epoch}, not {exam.cluster.epoch}: {node.status.last_reason}",
            why="it follows an older order: it may hold another node for the master",
            way_out="the registry orders it again by itself; if this stays, `labelloop logs` of that node says what is in the way",
        )


def check_versions(exam: Exam) -> Iterator[Finding]:
    """Find nodes whose software differs from that of most nodes; builds of one version ('2.9.1+cpu') count as equal."""
    nodes = [node for node in exam.nodes if node.status is not None and node.is_answering]
    packages = sorted({package for node in nodes if node.status for package in node.status.versions})
    for package in packages:
        held = {n.hostname: n.status.versions.get(package, "none").partition("+")[0] for n in nodes if n.status is not None}
        counted = Counter(held.values())
        if len(counted) < 2:
            continue
        usual = min(counted, key=lambda version: (-counted[version], version == "none", version))
        for hostname, version in held.items():
            if version != usual:
                yield _version_finding(hostname, package, version, usual)


def _version_finding(hostname: str, package: str, version: str, usual: str) -> Finding:
    return Finding(
        severity=Severity.ERROR if package == "labelloop" else Severity.WARNING,
        check="version",
        node=hostname,
        what=f"{package} is {version} on {hostname} and {usual} on most nodes",
        why="a model made by one version may be refused or answer otherwise under another",
        way_out=f"copy the same checkout to {hostname} and run `./start.sh node ...` there again: it installs what it names",
    )


def check_gpus(exam: Exam) -> Iterator[Finding]:
    """Find nodes whose GPU cannot be used, or that show none where others have one."""
    nodes = [node for node in exam.nodes if node.status is not None and node.is_answering]
    equipped = [node.hostname for node in nodes if node.status is not None and node.status.gpus]
    for node in nodes:
        trouble = node.probe.gpu if node.probe is not None else ""
        if trouble:
            yield Finding(
                severity=Severity.ERROR,
                check="gpu",
                node=node.hostname,
                what=f"{node.hostname}: {trouble}",
                why="its workers fall back to the CPU, which is many times slower",
                way_out="start the docker with `--gpus all` and a driver that fits: `nvidia-smi` inside it must list the GPUs",
            )
        elif equipped and node.status is not None and not node.status.gpus:
            yield Finding(
                severity=Severity.WARNING,
                check="gpu",
                node=node.hostname,
                what=f"{node.hostname} shows no GPU, but {', '.join(equipped)} do(es)",
                why="deep trainings and encoders run there on the CPU",
                way_out="if the machine has one: start the docker with `--gpus all` (nvidia-container-toolkit on the host)",
            )


def check_certificates(exam: Exam) -> Iterator[Finding]:
    """Find certificates that end soon (they renew at half life, so one that does not has a reason), and join tokens."""
    ends = [(node.hostname, node.probe.certificate_end_s) for node in exam.nodes if node.probe is not None]
    for hostname, end_s in [("", exam.identity_end_s), *ends]:
        left_days = (end_s - exam.now_s) / 86400
        if not end_s or left_days > 14:
            continue
        name = hostname or "the ops certificate of this machine"
        yield Finding(
            severity=Severity.ERROR if left_days < 1 else Severity.WARNING,
            check="certificate",
            node=hostname,
            what=f"the certificate of {name} {f'ends in {left_days:.1f} days' if left_days > 0 else 'has ended'}",
            why="without a valid one it can neither call nor be called",
            way_out="nodes renew through the registry by themselves while it is up; else join anew with a fresh `labelloop token`",
        )
    if exam.tokens is not None and not any(kind == "node" and left_s > 0 for kind, left_s in exam.tokens):
        yield Finding(
            severity=Severity.NOTE,
            check="token",
            what="no join token for nodes is valid",
            why="members need none, but a new or wiped docker cannot join",
            way_out="`labelloop token node` makes one when you need it",
        )


def check_answers(exam: Exam) -> Iterator[Finding]:
    """Find nodes whose manager does not answer."""
    for node in exam.nodes:
        if not node.trouble and node.is_alive:
            continue
        if not node.trouble:
            yield _silent(node)
            continue
        code = node.trouble.partition(":")[0]
        yield Finding(
            severity=Severity.ERROR if node.status is None or node.status.role else Severity.WARNING,
            check="manager",
            node=node.hostname,
            what=f"the manager of {node.hostname} at {node.address} does not answer: {node.trouble}",
            why=f"{_silence(node)}; its role is taken over or missed",
            way_out=_way_to_answer(node, code),
        )


def check_probes(exam: Exam) -> Iterator[Finding]:
    """Find nodes that answer but cannot look around."""
    for node in exam.nodes:
        if node.probe_trouble:
            yield Finding(
                severity=Severity.WARNING,
                check="probe",
                node=node.hostname,
                what=f"{node.hostname} could not look around: {node.probe_trouble}",
                why="its disks, ports, mount and certificate were not examined",
                way_out="upgrade it if it runs an older labelloop, else try again",
            )


def _silent(node: NodeExam) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        check="heartbeat",
        node=node.hostname,
        what=f"{node.hostname} answers here, but the registry has not heard of it for {node.silent_s:.0f} s",
        why="for the registry it is dead: the cluster is formed without it",
        way_out=f"it must reach the registry under a good certificate: see the log of its manager on {node.hostname}",
    )


def _silence(node: NodeExam) -> str:
    return "the registry still hears it" if node.is_alive else f"the registry has not heard of it for {node.silent_s:.0f} s"


def _way_to_answer(node: NodeExam, code: str) -> str:
    if code == UnauthenticatedError.code:
        return (
            "its certificate or ours does not hold: compare the clocks (`date -u`), then join anew with a fresh `labelloop token`"
        )
    if node.is_alive:
        return f"it lives, so something between here and it is in the way: open TCP port {node.port} for this machine"
    return "look at the docker: is it running, frozen, out of memory? Start it again: `./start.sh node ...` resumes its role"


def _names(nodes: tuple[NodeExam, ...]) -> str:
    return ", ".join(node.hostname for node in nodes)
