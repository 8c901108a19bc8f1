"""The data worker with a poison: `python -m tests.support_data_worker CONFIG`. An item whose bytes are KILL ends its process.

Owns that one patch; everything else is scripts/start_data. Run by tests/cluster/test_data_worker.py.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from intake import loading
from intake.limits import Fetched
from scripts.start_data import main

_decode = loading.decode


def deadly(category: str, fetched: Fetched, *rest: Any) -> Any:
    """Decode as ever, but die of the bytes KILL."""
    if fetched.data == b"KILL":
        os.kill(os.getpid(), signal.SIGKILL)
    return _decode(category, fetched, *rest)


loading.decode = deadly

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
