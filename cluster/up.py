"""`labelloop up hosts.toml`: the project onto every docker over SSH, and start.sh node run there, all side by side.

Owns the steps for one host and what is copied. Must never let one host's failure stop another, nor show a token. Registered by
`scripts.cli`; what is slow to import is imported when it runs.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import shlex
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from labelloop.errors import InternalError, LabelloopError, SettingsError

if TYPE_CHECKING:
    from cluster.hostlist import Host, HostList
    from cluster.progress import Progress
    from cluster.ssh import Session

CHECKOUT = Path(__file__).resolve().parents[1]
_PARALLEL = 32
_INSTALL_S = 3600.0
_LIST_FILE = ".labelloop-files"
_NOT_COPIED = ("tests/",)


class HostResult(msgspec.Struct, frozen=True, kw_only=True):
    """How it went with one host; `error` '' = well."""

    address: str
    name: str
    copied_files: int = 0
    seconds: float = 0.0
    last: str = ""
    error: str = ""
    code: str = ""


def register(subparsers: Any) -> None:
    """Add `up`."""
    up = subparsers.add_parser(
        "up",
        help="set up dockers over SSH: copy the project, run start.sh node",
        description="Copy the project to each docker of a hosts file over SSH (only what changed), run start.sh node there, and "
        "show how far each one is. A host that fails does not stop the others; running it again is harmless.",
        epilog="docs/ops.md shows a hosts file; `pydoc cluster.hostlist` lists every entry.",
    )
    up.add_argument("hosts", type=Path, metavar="hosts.toml", help="which dockers, and how to enter them")
    up.add_argument("--only", action="append", default=[], metavar="NAME", help="only this host (name or address); may be repeated")
    up.add_argument("--accept-new", action="store_true", help="take host keys never seen as they are, and remember them")
    up.add_argument("--restart", action="store_true", help="stop nodes that run already, so that they run the new code")
    up.add_argument("--json", action="store_true", help="print the results as one JSON object")
    up.set_defaults(run=run_up)


def run_up(args: argparse.Namespace) -> int:
    """Set all hosts up; exit status 1 when one of them failed."""
    from cluster.hostlist import read_hosts
    from cluster.progress import Progress

    listed = read_hosts(args.hosts)
    hosts = [host for host in listed.hosts if not args.only or {host.name, host.address} & set(args.only)]
    if not hosts:
        raise SettingsError(f"--only {' '.join(args.only)}: {args.hosts} has no such host")
    files = project_files(CHECKOUT)
    try:
        with Progress([host.label for host in hosts], is_silent=args.json) as progress:
            results = _side_by_side(hosts, lambda host: set_up(host, listed, files, progress, args.accept_new, args.restart))
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: what was begun on a docker may go on there; running it again is harmless\n")
        raise
    failed = [result for result in results if result.error]
    if args.json:
        sys.stdout.write(msgspec.json.encode({"hosts": results}).decode() + "\n")
    else:
        sys.stdout.write(f"{len(results) - len(failed)} of {len(results)} nodes run\n")
        sys.stdout.writelines(f"{result.name or result.address}: {result.error}\n" for result in failed)
    return 1 if failed else 0


def _side_by_side(hosts: Sequence[Host], work: Callable[[Host], HostResult]) -> list[HostResult]:
    """Return what `work` returns for each host. Ctrl-C ends the waiting at once."""
    results: dict[str, HostResult] = {}
    gate = threading.Semaphore(_PARALLEL)

    def one(host: Host) -> None:
        with gate:
            results[host.label] = work(host)

    threads = [threading.Thread(target=one, args=(host,), name=host.label, daemon=True) for host in hosts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lost = [host.label for host in hosts if host.label not in results]
    if lost:
        raise InternalError(f"setting up {', '.join(lost)} broke off: the traceback above says where")
    return [results[host.label] for host in hosts]


def set_up(
    host: Host, listed: HostList, files: Mapping[str, str], progress: Progress, accept_new: bool, has_to_restart: bool
) -> HostResult:
    """Do all steps for one host and return how it went; no error of a host is raised."""
    from cluster.ssh import Session

    begun_s, copied, last = time.monotonic(), 0, ""
    try:
        progress.say(host.label, "connecting")
        with Session(host, accept_new) as session:
            if session.run("id -u").strip() != "0":
                raise SettingsError(f"{host.user} is not root on {host.address}: a node installs packages and runs a broker")
            copied = copy_project(session, host.folder, files, lambda text: progress.say(host.label, text))
            last = _start_node(session, host, listed, progress, has_to_restart)
    except LabelloopError as exc:
        progress.end(host.label, f"failed: {exc}", is_good=False)
        return _result(host, copied, begun_s, error=str(exc), code=exc.code)
    progress.end(host.label, last, is_good=True)
    return _result(host, copied, begun_s, last=last)


def _result(host: Host, copied: int, begun_s: float, **values: str) -> HostResult:
    seconds = round(time.monotonic() - begun_s, 1)
    return HostResult(address=host.address, name=host.name, copied_files=copied, seconds=seconds, **values)


# ---------------------------------------------------------------- the project's files


def project_files(checkout: Path) -> dict[str, str]:
    """Return path → SHA-256 of every file that a node needs: those git tracks, or all but hidden and built ones without git."""
    found = {}
    for name in sorted(_tracked(checkout)):
        path = checkout / name
        if path.is_file() and not path.is_symlink() and not name.startswith(_NOT_COPIED):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def _tracked(checkout: Path) -> list[str]:
    try:
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=checkout, capture_output=True, check=True).stdout
        return [name for name in listed.decode().split("\0") if name]
    except (OSError, subprocess.CalledProcessError):  # a copy without its history, e.g. one that `up` made
        kept = (checkout / _LIST_FILE).read_text().splitlines() if (checkout / _LIST_FILE).exists() else []
        if not kept:
            raise SettingsError(f"{checkout} is no git checkout: run `labelloop up` from one") from None
        return kept


def copy_project(session: Session, folder: str, files: Mapping[str, str], say: Any) -> int:
    """Make `folder` on the host hold exactly these files, beside what grew there; return how many had to travel."""
    say("comparing files")
    where = shlex.quote(folder)
    before = session.run(f"mkdir -p {where} && cd {where} && cat {_LIST_FILE} 2>/dev/null || true").split("\n")
    names = "\0".join(files).encode()
    there = session.run(f"cd {where} && xargs -0 sha256sum -- 2>/dev/null || true", names)
    known = {line[66:]: line[:64] for line in there.splitlines() if len(line) > 66}
    changed = [name for name, digest in files.items() if known.get(name) != digest]
    if changed:
        say(f"copying {len(changed)} files")
        session.run(f"cd {where} && tar --extract --gzip --unlink-first --no-same-owner --file -", _pack(changed), timeout_s=600)
    gone = [name for name in before if name and name not in files and not name.startswith(("/", "../")) and "/../" not in name]
    if gone:
        session.run(f"cd {where} && xargs -0 rm -f --", "\0".join(gone).encode())
    session.run(f"cat > {where}/{_LIST_FILE}", "".join(f"{name}\n" for name in files).encode())
    return len(changed)


def _pack(names: list[str]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=6) as tar:
        for name in names:
            tar.add(CHECKOUT / name, arcname=name, recursive=False)
    return out.getvalue()


# ---------------------------------------------------------------- the node


def _start_node(session: Session, host: Host, listed: HostList, progress: Progress, has_to_restart: bool) -> str:
    """Run start.sh there and return its last line."""
    folder = shlex.quote(host.folder)
    if has_to_restart:
        progress.say(host.label, "stopping the node")
        session.run(
            f"cd {folder} && if [ -e /var/lib/labelloop/node.lock ]; then ./start.sh node --stop || true; fi", timeout_s=300
        )
    argv = ["./start.sh", "node", "--registry", listed.registry, "--datastore", host.datastore, "--detach"]
    for option, value in (("--mount", host.mount), ("--name", host.name), ("--ip", host.ip)):
        argv += [option, value] if value else []
    after = ""
    if listed.token_file is not None:
        place = session.run("umask 077; mktemp -t labelloop-token.XXXXXXXX").strip()
        session.write(place, listed.token_file.read_bytes())
        argv += ["--token-once", place]
        after = f"; status=$?; rm -f {shlex.quote(place)}; exit $status"
    progress.say(host.label, "running start.sh")
    text = session.run(
        f"cd {folder} && {shlex.join(argv)} </dev/null{after}",
        on_line=lambda line: progress.say(host.label, line),
        timeout_s=_INSTALL_S,
    )
    return text.strip().splitlines()[-1] if text.strip() else "it said nothing"
