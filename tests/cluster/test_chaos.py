"""The short form of `bench chaos`: the most telling faults on five dockers, under a small flow, judged by the same oracle."""

from __future__ import annotations

import secrets

import pytest

from scripts.chaos.faults import find_faults
from scripts.chaos.streams import Sizes
from scripts.chaos.trial import run_trial
from tests.cluster.conftest import Formed

pytestmark = pytest.mark.slow
SIZES = Sizes(outbox=120, raw=60, calls=60, jobs=400, batch=10, job=100, span_s=4.0)
PATIENCE_S = 300.0
NAMES = (
    "kill-broker-inference",
    "kill-train-rpc",
    "kill-inference-worker",
    "kill-docker-inference-master",
    "kill-docker-train-master",
    "partition-one",
    "empty-brokers",
    "poison-message",
    "kill-manager-inference",
)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_lost_and_the_cluster_becomes_whole_by_itself(formed: Formed, name: str) -> None:
    (fault,) = find_faults(name)
    outcome = run_trial(formed.ground, name, fault.hurt, f"chaos-{secrets.token_hex(3)}", SIZES, PATIENCE_S)
    assert outcome.is_good, outcome
