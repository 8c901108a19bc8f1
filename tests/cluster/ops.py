"""The ops command line alone: what `labelloop` offers of the room `cluster`."""

from __future__ import annotations

import argparse
import sys

from cluster import commands

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="labelloop")
    commands.register(parser.add_subparsers(required=True))
    args = parser.parse_args()
    sys.exit(args.run(args))
