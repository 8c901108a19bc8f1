"""The datastore's mount on this machine: whether it is there, what mounts it, whether it can be used.

Owns the running of a mount command. Must never log that command (it may hold a password) nor write below the mount but through
`datastore_layout`. Called by `cluster.node` before a node starts and by `cluster.guard` while it runs.
"""

from __future__ import annotations

import logging
import os
import subprocess
import time
from pathlib import Path

from datastore_layout.habits import check_habits
from datastore_layout.root import open_root
from labelloop.errors import LabelloopError, NotReadyError, PermanentError, SettingsError

logger = logging.getLogger(__name__)

_MOUNT_TABLE = Path("/proc/self/mountinfo")
_COMMAND_S = 60.0
_SETTLE_S = 5.0
_POLL_S = 0.02


def is_mounted(path: Path, table: Path = _MOUNT_TABLE) -> bool:
    """Return whether something is mounted exactly at `path`, alive or dead; the path itself is not touched, so nothing can hang."""
    wanted = os.path.abspath(path)  # noqa: PTH100  (resolve() would ask the file system, which may be dead)
    return any(_unescape(line.split(" ", 5)[4]) == wanted for line in table.read_text().splitlines())


def _unescape(field: str) -> str:
    return field.encode().decode("unicode_escape").encode("latin-1").decode() if "\\" in field else field


def is_alive(path: Path) -> bool:
    """Return whether the file system at `path` answers; blocks as long as a hung one does."""
    try:
        os.statvfs(path)
    except OSError:
        return False
    return True


def ensure_mounted(path: Path, command: str, log: Path) -> None:
    """Return when `path` is a live mount, after clearing a dead one and running `command` (a shell line) when it is not.

    What the command says goes to `log`. Raises NotReadyError that says the way out.
    """
    if is_mounted(path):
        if is_alive(path):
            return
        logger.warning("the mount at %s is dead: unmounting what is left of it", path)
        subprocess.run(["umount", "--lazy", str(path)], capture_output=True, check=False, timeout=_COMMAND_S)
    if not command:
        raise NotReadyError(
            f"{path} is no mount: mount the datastore there first, or give the command that does as --mount 'COMMAND'"
        )
    path.mkdir(parents=True, exist_ok=True)
    status = _run(command, path, log)
    if not is_mounted(path):
        raise NotReadyError(f"the --mount command ended with {status} and {path} is still no mount: {_last_words(log)}")
    if not is_alive(path):
        raise NotReadyError(f"the --mount command mounted {path}, but nothing answers there: {_last_words(log)}")
    logger.info("mounted the datastore at %s", path)


def _run(command: str, path: Path, log: Path) -> str:
    """Run the command until it ends or, for one that stays in the foreground, until the mount is there; return how it ended."""
    log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with log.open("ab") as out:
        popen = subprocess.Popen(
            ["/bin/sh", "-c", command], stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, cwd="/"
        )
    until_s = time.monotonic() + _COMMAND_S
    ended_s: float | None = None
    while time.monotonic() < until_s and not (is_mounted(path) and is_alive(path)):
        if popen.poll() is not None and ended_s is None:
            ended_s = time.monotonic()
        # a daemon may mount a moment after its parent has ended; one that failed will not
        if ended_s is not None and (popen.returncode or time.monotonic() - ended_s > _SETTLE_S):
            break
        time.sleep(_POLL_S)
    return "no end" if popen.poll() is None else f"status {popen.returncode}"


def _last_words(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()[-3:]
    return " / ".join(lines)[-300:] or f"it said nothing, see {log}"


def check_datastore(path: Path) -> None:
    """Raise a sentence when the datastore cannot be used: SettingsError for a mount that breaks a habit, NotReadyError unmarked."""
    try:
        problems = check_habits(open_root(path))
    except NotReadyError as exc:
        raise NotReadyError(f"{exc}; the registry marks it when it is started with --datastore") from exc
    except PermanentError:
        raise
    except (LabelloopError, OSError) as exc:
        raise NotReadyError(f"the datastore at {path} does not answer: {exc}") from exc
    if problems:
        raise SettingsError(
            f"the mount at {path} cannot hold a datastore: {'; '.join(problems)}. "
            "Mount it with other options, or take another file system"
        )
