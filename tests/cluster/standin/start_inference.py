"""Stands in for scripts/start_inference.py."""

import sys

from tests.cluster.standin.stay import main

sys.exit(main(sys.argv[1:]))
