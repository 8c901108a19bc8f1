"""Fixed shares: whose item is which, by its position, without a row an item.

Owns how places are dealt to people and dealt anew when somebody leaves. A project has `SLOTS` places; the item at position p
belongs to place p mod SLOTS. With an overlap of n it belongs to n people: the holder of the place and n - 1 others who take
turns from place to place, so that shares stay even and everybody meets everybody. Must never move a place without need: who
stays keeps what they had. Called by `webapp.people.service` and where people come and go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec

from webapp.db import projects
from webapp.db.engine import Tx
from webapp.db.projects import Project
from webapp.people.work import SLOTS, Work


def deal(slots: Sequence[int], people: Sequence[int]) -> tuple[int, ...]:
    """Return the places dealt evenly to `people`, who keep what they hold up to an even share; () without people."""
    if not people:
        return ()
    old = list(slots) if len(slots) == SLOTS else [0] * SLOTS
    most = -(-SLOTS // len(people))
    held: Counter[int] = Counter()
    out: list[int] = []
    for owner in old:
        keeps = owner in people and held[owner] < most
        held[owner] += keeps
        out.append(owner if keeps else 0)
    for place, owner in enumerate(out):
        if owner == 0:
            out[place] = min(people, key=lambda one: (held[one], people.index(one)))
            held[out[place]] += 1
    return tuple(out)


def dealt(tx: Tx, project: Project, work: Work) -> Work:
    """Return the settings with their places dealt to the people who label in the project now."""
    if work.assignment != "shares":
        return msgspec.structs.replace(work, slots=())
    people = [member.user_id for member in projects.list_members(tx, project.id) if member.role == "annotator"]
    return msgspec.structs.replace(work, slots=deal(work.slots, people))


def deal_again(tx: Tx, project: Project) -> None:
    """Deal the places anew after somebody came or left."""
    if project.work.assignment == "shares":
        projects.change_project(tx, project.id, {"work": dealt(tx, project, project.work)}, False)


def people_of(slots: Sequence[int], n: int) -> list[tuple[int, ...]]:
    """Return whose items those of each place are: its holder and up to `n` - 1 others, all different."""
    people = sorted(set(slots))
    turn: Counter[int] = Counter()
    out = []
    for owner in slots:
        others = [one for one in people if one != owner]
        begin = turn[owner]
        turn[owner] += 1
        out.append((owner, *(others[(begin + i) % len(others)] for i in range(min(n - 1, len(others))))))
    return out


def places_of(work: Work, user_id: int) -> list[int]:
    """Return the places whose items are `user_id`'s."""
    return [place for place, people in enumerate(people_of(work.slots, work.overlap)) if user_id in people]
