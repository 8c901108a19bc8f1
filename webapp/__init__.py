"""The labelling app: accounts, projects, labelling pages, REST API, its database and the pilot.

`create_app` builds the Flask application of one process; `webapp.serve` runs it, `webapp.pilot` is a process of its own. Must never
import intake, datastore_layout, cluster or roles: the app meets the cluster through `labelloop.clients` alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import flask

    from labelloop.settings import Settings
    from webapp.cluster_door import ClusterDoor


def create_app(settings: Settings, cluster: ClusterDoor | None = None) -> flask.Flask:
    """Return the app for one process; call it after the fork. `cluster` None = started without a registry: labels still go in."""
    from webapp.app import build_app  # the pilot and the migrations import this package without Flask

    return build_app(settings, cluster)
