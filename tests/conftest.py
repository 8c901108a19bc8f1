"""In which order tests run, and which may run beside which.

Called by pytest; `./start.sh test` runs two processes (`scripts/check`): both compute the unit tests, then one goes through all
that hold machines (labs, brokers, ranks), which wait more than they compute and want the cores when they do not, and the other
through those of the web app, its browser's and those of single daemons. A plain `pytest` runs all in one process.
"""

from __future__ import annotations

from typing import Any

import pytest

_FORKS = "tests/unit/test_train_shared_steps.py"  # first of all: forks of a process that has run a thousand tests are slow and odd
_MACHINES = ("tests/browser/", "tests/cluster/", "tests/contract/")
_DAEMONS = ("bad_input", "data_worker", "inference_role", "real_roles", "region_loop", "shared_intake", "train_role")
_ALONE = ("tests/contract/test_web_", "tests/contract/test_celery_app.py", "tests/contract/test_registry.py", "tests/browser/")
_BESIDE = (*_ALONE, *(f"tests/cluster/test_{name}.py" for name in _DAEMONS))
_ORDER = ("unit", "machines", "beside")  # who is free first takes the longest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that fork first; those that hold machines, and those that run beside them, last."""
    items.sort(key=lambda item: (not item.nodeid.startswith(_FORKS), _ORDER.index(kind_of(item.nodeid))))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Return the scheduler that keeps tests together which `room_of` gives one name."""
    from xdist.scheduler import LoadScopeScheduling

    class RoomScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return room_of(nodeid)

    config.option.loadscopereorder = False  # else the group with the most tests comes first
    return RoomScheduling(config, log)


def kind_of(nodeid: str) -> str:
    """Return 'unit', 'machines' or 'beside'. A test of `start.sh web` holds a machine."""
    if nodeid.startswith(_BESIDE) and not nodeid.startswith("tests/contract/test_web_stack.py"):
        return "beside"
    return "machines" if nodeid.startswith(_MACHINES) else "unit"


def room_of(nodeid: str) -> str:
    """Return the name of a test's group: one for all of its kind, but for unit tests their file."""
    kind = kind_of(nodeid)
    return nodeid.split("::", 1)[0] if kind == "unit" else kind
