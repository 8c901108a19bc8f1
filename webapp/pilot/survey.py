"""Reads the cluster and the disks for the admin's pages: one reading for all pages of all processes.

Owns the readings `cluster` and `disk`. Must never ask a worker: the registry tells what nodes said in their heartbeats. Called by
the pilot's survey threads.
"""

from __future__ import annotations

import time

from labelloop.errors import LabelloopError
from webapp.admin.disk import measure
from webapp.admin.troubles import Reading
from webapp.cluster_door import ClusterDoor
from webapp.db import readings
from webapp.db.engine import Database
from webapp.rooms import Rooms

CLUSTER_S = 2.0
DISK_S = 60.0
_DEADLINE_S = 3.0
_ACTIONS = 20


def read_cluster(database: Database, cluster: ClusterDoor) -> None:
    """Take one reading; a registry that does not answer leaves the last one, with the reason."""
    reading, problem = None, ""
    try:
        door = cluster.registry()
        nodes, actions = door.nodes(deadline_s=_DEADLINE_S), door.actions(deadline_s=_DEADLINE_S).actions
        reading = Reading(nodes, cluster.topology(), actions[-_ACTIONS:])
    except LabelloopError as exc:
        problem = str(exc)
    with database.write() as tx:
        readings.save_reading(tx, "cluster", reading, problem, time.time())


def read_disk(rooms: Rooms) -> None:
    """Measure this machine's folders."""
    measured = measure(rooms.settings, rooms.database)
    with rooms.database.write() as tx:
        readings.save_reading(tx, "disk", measured, "", time.time())
