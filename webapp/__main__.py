"""`python -m webapp COMMAND`: the app's own subcommands without the rest of `labelloop`; the pilot starts its import worker so."""

from __future__ import annotations

import argparse
import sys

from labelloop.errors import LabelloopError
from webapp import commands


def main() -> int:
    """Run one subcommand."""
    parser = argparse.ArgumentParser(prog="python -m webapp")
    commands.register(parser.add_subparsers(required=True))
    args = parser.parse_args()
    try:
        return int(args.run(args))
    except LabelloopError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
