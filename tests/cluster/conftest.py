"""One lab of two train and three inference dockers for the tests that form a cluster and those that then hurt it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from cluster.lab.lab import Lab
from labelloop.settings import BrokerSettings
from scripts.chaos.ground import LabGround, chaos_settings
from scripts.chaos.stage import Stage, staged

PATIENT = msgspec.structs.replace(  # the machine may be busy with other tests: silence is no death so soon
    chaos_settings(),
    cluster=msgspec.structs.replace(chaos_settings().cluster, dead_after_s=8.0),
    broker=BrokerSettings(tick_s=12),
)
CHECKOUT = Path(__file__).resolve().parents[2]


class Formed(NamedTuple):
    """The lab, the way to it, and what the ops command printed when it formed."""

    stage: Stage
    said: str

    @property
    def lab(self) -> Lab:
        return self.stage.lab

    @property
    def ground(self) -> LabGround:
        return self.stage.ground

    def labelloop(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the ops command on the machine, as ops staff would beside the registry."""
        where = ["--registry", self.lab.registry_address, "--state", str(self.lab.registry_state)]
        argv = [sys.executable, "-m", "scripts.cli", *words, *where]
        return subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="session")
def formed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Formed]:
    """Yield five dockers that `labelloop form --train 2 --inference 3 --task first` made a cluster of."""
    folder = tmp_path_factory.mktemp("five") / "lab"
    with staged(2, 3, folder=folder, settings=PATIENT, datastore_bytes=256 * 2**20, is_formed=False) as stage:
        cluster = Formed(stage, "")
        task = ["--task", "first", "--category", "tables", "--labels", "left,right"]
        done = cluster.labelloop("form", "--train", "2", "--inference", "3", *task)
        assert done.returncode == 0, done.stderr
        yield Formed(stage, done.stdout)
