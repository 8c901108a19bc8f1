"""Calls of the system's own programs, each a failure in one sentence.

Owns the names of the Debian packages behind them. Must never run a shell. Called by every module of the lab.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence

from labelloop.errors import InternalError, SettingsError

PACKAGES = {
    "ip": "iproute2",
    "nft": "nftables",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mount": "mount",
    "umount": "mount",
    "bindfs": "bindfs",
    "sshd": "openssh-server",
    "ssh-keygen": "openssh-client",
}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TIMEOUT_S = 60.0


def find_program(name: str) -> str:
    """Return the path of a program. Raises SettingsError naming the package that holds it."""
    path = shutil.which(name, path=_PATH)
    if path is None:
        raise SettingsError(f"the lab needs the program {name}: apt-get install {PACKAGES.get(name, name)}")
    return path


def call(argv: Sequence[str], text: str = "", env: Mapping[str, str] | None = None) -> str:
    """Run a program with `text` on its standard input and return what it prints. Raises InternalError with its last words."""
    full = [find_program(argv[0]), *argv[1:]]
    done = subprocess.run(full, input=text, capture_output=True, text=True, check=False, timeout=_TIMEOUT_S, env=env)
    if done.returncode:
        words = (done.stderr or done.stdout).strip()[-400:]
        raise InternalError(f"`{' '.join(argv)}` failed ({done.returncode}): {words or text.strip()[:200]}")
    return done.stdout


def succeeds(argv: Sequence[str]) -> bool:
    """Run a program and return whether it ended well; its words are dropped."""
    full = [find_program(argv[0]), *argv[1:]]
    return subprocess.run(full, capture_output=True, check=False, timeout=_TIMEOUT_S).returncode == 0
