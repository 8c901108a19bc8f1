"""The line that makes a bare docker a node: printed by the registry for the person who starts it.

Owns its text and the file `join-line` (0600). Must never put the token where a log collector reads: onto a terminal only, or into
that file. Called by `labelloop registry --join-line`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from labelloop.tls import write_file

JOIN_LINE_FILE = "join-line"
DEFAULT_DATASTORE = Path("/home/datastore")


def join_line(registry: str, token: str, datastore: Path) -> str:
    """Return what to type on a docker, in the folder of the checkout."""
    return f"./start.sh node --registry {registry} --token {token} --datastore {datastore}"


def show_join_line(folder: Path, registry: str, token: str, datastore: Path | None) -> None:
    """Print the line on a terminal; elsewhere print which file holds it."""
    line = join_line(registry, token, (datastore or DEFAULT_DATASTORE).absolute())
    path = folder / JOIN_LINE_FILE
    write_file(path, f"{line}\n".encode(), 0o600)
    if sys.stdout.isatty():
        text = f"the registry listens at {registry}; on each docker run\n\n  {line}\n\n"
        text += "(add --mount 'COMMAND' where the datastore is to be mounted); and here, for the labelling app,\n\n"
        text += f"  ./start.sh web --registry {registry}\n"
    else:
        text = f"the registry listens at {registry}; the line to run on each docker is in {path}"
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()
