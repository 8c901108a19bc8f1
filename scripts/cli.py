"""`labelloop`: one command; each room registers its subcommands here.

Owns the parser and the translation of errors into one sentence and an exit status. Must never hold logic of its own. Called by
people, start.sh and the supervisor.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from labelloop.errors import LabelloopError

ROOMS = (
    "cluster.commands",  # first, and light: `labelloop status` shall be quick
    "cluster.node",  # and a docker boots with little
    "cluster.up",
    "cluster.lab.commands",
    "scripts.web_stack",
    "scripts.demo",
    "scripts.export_model",
    "scripts.simulation.command",
    "webapp.commands",
)


def build_parser(command: str = "") -> argparse.ArgumentParser:
    """Return the parser with the subcommands of every room whose extra is installed; of as few rooms as know `command`."""
    parser = argparse.ArgumentParser(prog="labelloop", description="Turns labels into a model while people are still labelling.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name in ROOMS:
        try:
            room = importlib.import_module(name)
        except ModuleNotFoundError as exc:
            if exc.name is not None and exc.name.split(".")[0] in ("scripts", "cluster"):
                raise
            continue  # a machine without this room's extra still has the others' commands
        room.register(subparsers)
        if command in subparsers.choices:
            break
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand and return its exit status.

    1 = it failed with the sentence on stderr, 2 = wrong arguments, 130 = interrupted, 141 = whoever read the output has gone.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    args = build_parser(words[0] if words else "").parse_args(words)
    try:
        status = int(args.run(args) or 0)
        sys.stdout.flush()
        return status
    except LabelloopError as exc:
        print(f"labelloop {args.command}: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the interpreter's own flush at the end complains
        return 141


if __name__ == "__main__":
    sys.exit(main())
