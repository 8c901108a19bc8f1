"""Opening a task: its settings saved in the datastore, where every role finds them. Called by the manager."""

from __future__ import annotations

import msgspec

from datastore_layout.root import Root, task_folder
from datastore_layout.tasks import read_spec, save_spec
from labelloop.errors import NotFoundError
from labelloop.messages import TaskSpec


def open_task(root: Root, spec: TaskSpec, is_revision_given: bool) -> TaskSpec:
    """Save `spec` and return it; without a revision of its own it follows the newest one, unless it says the same."""
    folder = task_folder(root, spec.task)
    if not is_revision_given:
        try:
            newest = read_spec(folder)
        except NotFoundError:
            newest = None
        if newest is not None:
            is_same = msgspec.structs.replace(spec, revision=newest.revision) == newest
            spec = newest if is_same else msgspec.structs.replace(spec, revision=newest.revision + 1)
    save_spec(folder, spec)
    return spec
