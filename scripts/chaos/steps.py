"""What several faults wait for in the middle of their damage.

Owns the waiting only. Must never hurt anything. Called by `hurts` and `shared`.
"""

from __future__ import annotations

from labelloop import messages as m
from scripts.chaos.flow import Flow
from scripts.chaos.ground import LabGround
from scripts.chaos.items import item_of
from scripts.chaos.streams import CALL_S
from scripts.chaos.trial import until

ROLES: tuple[m.Role, ...] = ("train", "inference")


def await_answers(ground: LabGround, flow: Flow) -> float:
    """Return after how many seconds both RPCs gave a good answer."""

    def why_not() -> str:
        ground.cluster.train().progress(m.ProgressRequest(task=flow.calls.task), deadline_s=CALL_S)
        ground.cluster.inference().predict(m.PredictRequest(task=flow.calls.task, items=(item_of("probe"),)), deadline_s=CALL_S)
        return ""

    return until(why_not, "both RPCs answering without it")


def await_leaders(ground: LabGround, but: str) -> str:
    """Return the masters, once each role is led by its lowest address without `but`; the lab's nodes are in that order."""
    left = {role: [name for name in ground.of(role) if name != but] for role in ROLES}
    wanted = {role: names[0] for role, names in left.items() if names}

    def why_not() -> str:
        found = {role: ground.master(role) for role in wanted}
        return "" if found == wanted else f"masters are {found}, wanted are {wanted}"

    until(why_not, "the next lowest addresses leading")
    return " and ".join(wanted.values())
