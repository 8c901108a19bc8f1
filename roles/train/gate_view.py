"""From how two versions stand on the held-out part to what the gate looks at.

Owns this one translation. Must never decide. Called by the attempt.
"""

from __future__ import annotations

from datastore_layout.models import Pointer
from roles.train.evaluation import Standing
from roles.train.evaluation_regions import measure_of
from roles.train.gate import GateView
from roles.train.samples import Part


def gate_view(
    new: Standing, old: Standing | None, part: Part, serving: str, at_start: int, pointer: Pointer | None, moved_by_person: bool
) -> GateView:
    """Return the view of `new` beside `old` (None = nothing serves) on the items of `part`."""
    number = pointer.number if pointer else 0
    if not isinstance(part.y, list):
        return GateView(
            new_correct=tuple((new.wrong == 0).tolist()),
            old_correct=tuple((old.wrong == 0).tolist()) if old else (),
            serving=serving,
            pointer_at_start=at_start,
            pointer=number,
            moved_by_person=moved_by_person,
        )
    return GateView(
        measure=measure_of(part.y),
        new_wrong=tuple(new.wrong.tolist()),
        old_wrong=tuple(old.wrong.tolist()) if old else (),
        new_score=new.score or 0.0,
        old_score=(old.score or 0.0) if old else 0.0,
        serving=serving,
        pointer_at_start=at_start,
        pointer=number,
        moved_by_person=moved_by_person,
    )
