"""A second go for tests of real processes, which is counted in the closing line. See docs/decisions/0011."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

RERUNS = 1
PAUSE_S = 3


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """Mark what lies outside tests/unit."""
    for item in items:
        if "tests/unit/" not in item.path.as_posix():
            item.add_marker(pytest.mark.flaky(reruns=RERUNS, reruns_delay=PAUSE_S))
