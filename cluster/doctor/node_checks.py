"""What is wrong on single nodes as seen: processes, disks, datastore, hosts file. Pure; called by `report`."""

from __future__ import annotations

from collections.abc import Iterator

from cluster.doctor.exam import Exam, Finding, NodeExam, Severity
from cluster.hostsfile import BEGIN
from datastore_layout.race import judge_race
from labelloop.messages import DiskView, ProcessView

LEAST_BYTES = 200 * 2**20
FEW_BYTES = 2 * 2**30
FEW_SHARE = 0.1
LEAST_NAMES = 1000
MANY_RESTARTS = 5
LEAST_MEMORY = 256 * 2**20
_DISK_WHY = {
    "state": "without room it can keep no order, no log and no certificate",
    "broker": "RabbitMQ takes no message when its disk is nearly full: calls answer a retryable error",
    "datastore": "labels are refused with a retryable error, and no model can be published",
}
_DISK_WAY_OUT = {
    "state": "make room there: old logs, old checkouts",
    "broker": "make room there; the queues themselves are small",
    "datastore": "make room or grow it; what was accepted is safe, and the cluster goes on by itself once there is room",
}


def check_processes(exam: Exam) -> Iterator[Finding]:
    """Find role processes that keep falling, and roles without any."""
    for node in exam.nodes:
        if node.status is None or not node.is_answering:
            continue
        if node.status.role and not node.status.processes and not node.is_draining:
            yield Finding(
                severity=Severity.ERROR,
                check="process",
                node=node.hostname,
                what=f"{node.hostname} has the role {node.status.role} and runs nothing: {node.status.last_reason}",
                why="its share of the work is not done",
                way_out=f"its last reason says what it waits for; `labelloop logs {node.hostname}` has more",
            )
        for process in node.status.processes:
            if process.state == "backing-off" or process.restarts >= MANY_RESTARTS:
                yield _process_finding(node.hostname, process)


def _process_finding(hostname: str, process: ProcessView) -> Finding:
    is_down = process.state == "backing-off"
    state = "keeps falling and waits before its next start" if is_down else f"was started again {process.restarts} times"
    return Finding(
        severity=Severity.ERROR if is_down else Severity.WARNING,
        check="process",
        node=hostname,
        what=f"{process.name} of {hostname} {state}{f': {process.reason}' if process.reason else ''}",
        why="its work is done by others, if there are any" if is_down else "each fall costs seconds, and something causes it",
        way_out=f"`labelloop logs {hostname} {process.name}` shows the traceback",
    )


def check_disks(exam: Exam) -> Iterator[Finding]:
    """Find disks without room; the datastore, which all nodes share, is told once."""
    is_datastore_told = False
    for node in exam.nodes:
        for disk in node.probe.disks if node.probe is not None else ():
            finding = _disk_finding(node.hostname, disk)
            if finding is None or (disk.what == "datastore" and is_datastore_told):
                continue
            is_datastore_told |= disk.what == "datastore"
            yield finding


def _disk_finding(hostname: str, disk: DiskView) -> Finding | None:
    is_out_of_names = 0 <= disk.free_names < LEAST_NAMES
    is_full = disk.free_bytes < min(LEAST_BYTES, disk.size_bytes * FEW_SHARE) or is_out_of_names
    if not is_full and (disk.free_bytes >= FEW_BYTES or disk.free_bytes >= disk.size_bytes * FEW_SHARE):
        return None
    left = f"{disk.free_names} more files" if is_out_of_names else f"{size(disk.free_bytes)} of {size(disk.size_bytes)}"
    return Finding(
        severity=Severity.ERROR if is_full else Severity.WARNING,
        check="disk",
        node=hostname,
        what=f"the disk of {disk.path} ({disk.what}) on {hostname} has room for {left}",
        why=_DISK_WHY[disk.what],
        way_out=_DISK_WAY_OUT[disk.what],
    )


def check_memory(exam: Exam) -> Iterator[Finding]:
    """Find nodes that are about to run out of memory."""
    for node in exam.nodes:
        if node.status is None or not node.is_answering or not node.status.memory_bytes:
            continue
        if node.status.memory_free_bytes < LEAST_MEMORY:
            yield Finding(
                severity=Severity.WARNING,
                check="memory",
                node=node.hostname,
                what=f"{node.hostname} has {size(node.status.memory_free_bytes)} of {size(node.status.memory_bytes)} memory left",
                why="the kernel kills a worker when it runs out; the worker is started again and its work repeated",
                way_out="give the docker more memory, or set cluster.concurrency and inference.warm_models lower",
            )


def check_datastore(exam: Exam) -> Iterator[Finding]:
    """Find datastores that are not mounted, another cluster's, not writable, or unlike a file system."""
    for node in exam.nodes:
        trouble = (node.probe.datastore if node.probe else "") or (
            node.status.datastore if node.status and node.is_answering else ""
        )
        if trouble:
            yield _mount(node, f"the datastore of {node.hostname} cannot be used: {trouble}", _mount_way_out(trouble))
        for problem in node.probe.habits if node.probe is not None else ():
            where = f"{node.probe.datastore_path} on {node.hostname} ({node.probe.file_system})" if node.probe else node.hostname
            way_out = (
                "mount it otherwise: it must honour rename, exclusive create, mkdir and fsync as a local disk does, and be writable"
            )
            yield _mount(node, f"{where} breaks a habit: {problem}", way_out)


def _mount(node: NodeExam, what: str, way_out: str) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        check="datastore",
        node=node.hostname,
        what=what,
        why="labels and models live there and nowhere else: without it the node takes in nothing and publishes nothing",
        way_out=way_out,
    )


def _mount_way_out(trouble: str) -> str:
    if trouble.startswith("conflict"):
        return "it is the datastore of another cluster: mount the right one there"
    if "does not answer" in trouble:
        return "the mount hangs: unmount it by `umount -l PATH` and mount it again; roles go on by themselves then"
    return "mount it there again, or start the node with `--mount 'COMMAND'` so that it does; roles go on by themselves then"


def check_races(exam: Exam) -> Iterator[Finding]:
    """Find pairs of nodes whose datastore lets both win a name, or neither."""
    for race in exam.races:
        pair = " and ".join(race.contestants)
        sentences = [judge_race(race.rounds, wins, way) for way, wins in sorted(race.wins.items())]
        if race.trouble:
            sentences = [f"no race could be run: {race.trouble}"]
        for sentence in filter(None, sentences):
            yield Finding(
                severity=Severity.ERROR,
                check="datastore",
                what=f"between {pair}: {sentence}",
                why="two nodes would both believe that a run, a label segment or a version is theirs",
                way_out="mount the same file system on all nodes, and let it cache no names (FUSE: entry_timeout=0,attr_timeout=0)",
            )


def check_hosts(exam: Exam) -> Iterator[Finding]:
    """Find nodes whose hosts file lacks the block, misses a node, or gives a name another address before it."""
    wanted = {n.hostname: n.ip for n in exam.nodes if n.is_answering and n.status is not None and n.status.role}
    for node in exam.nodes:
        if node.probe is None or node.hostname not in wanted:
            continue
        sentence = _hosts_trouble(node, wanted)
        if sentence:
            yield Finding(
                severity=Severity.ERROR,
                check="hosts",
                node=node.hostname,
                what=f"{node.probe.hosts_file} on {node.hostname} {sentence}",
                why="RabbitMQ members find each other by host name",
                way_out="its manager writes the block with each order: `labelloop form`, and let nothing else write that file",
            )


def _hosts_trouble(node: NodeExam, wanted: dict[str, str]) -> str:
    assert node.probe is not None
    block = {name: ip for ip, name in node.probe.hosts}
    if not block:
        return f"has no block '{BEGIN.partition(' (')[0].lstrip('# ')}'"
    missing = sorted(name for name, ip in wanted.items() if block.get(name) != ip)
    if missing:
        return f"does not lead to {', '.join(missing)}"
    astray = sorted(name for name, ip in block.items() if node.probe.resolved.get(name, ip) != ip)
    if astray:
        return f"leads {astray[0]} to {node.probe.resolved[astray[0]]} in a line before the block"
    return ""


def size(n_bytes: int) -> str:
    """Return a size for people."""
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.0f} MiB"
