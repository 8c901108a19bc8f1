"""`labelloop`: one command; each room registers its subcommands here.

Owns the parser and the translation of errors into one sentence and an exit status. Must never hold logic of its own. Called by
people, start.sh and the supervisor.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from labelloop.errors import LabelloopError


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with every room's subcommands."""
    from cluster import commands as cluster_commands
    from scripts import demo
    from webapp import commands as web_commands

    parser = argparse.ArgumentParser(prog="labelloop", description="Turns labels into a model while people are still labelling.")
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for room in (demo, cluster_commands, web_commands):
        room.register(subparsers)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; exit status 1 = it failed with the sentence on stderr, 2 = wrong arguments, 130 = interrupted."""
    args = build_parser().parse_args(argv)
    try:
        return int(args.run(args) or 0)
    except LabelloopError as exc:
        print(f"labelloop {args.command}: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
