"""Stands in for scripts/start_train.py."""

import sys

from tests.cluster.standin.stay import main

sys.exit(main(sys.argv[1:]))
