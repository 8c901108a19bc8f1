"""The web server: gunicorn with threads; each worker builds the app after its fork.

Owns gunicorn's configuration. Must never build the app, a database handle or a connection before a fork. Called by `labelloop web`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import flask
from gunicorn.app.base import BaseApplication
from gunicorn.glogging import Logger

from labelloop.logs import set_process_context
from labelloop.settings import Settings
from webapp.cluster_door import ClusterDoor

KEEPALIVE_S = 65
GRACE_S = 5


class HouseLogger(Logger):
    """Gunicorn's own lines through the root logger, in the form of all others; no access log."""

    def setup(self, cfg: Any) -> None:
        """Add no handler."""
        self.loglevel = logging.INFO
        self.error_log.setLevel(logging.INFO)
        self.error_log.propagate = True
        self.error_log.handlers[:] = []
        self.access_log.handlers[:] = []


class WebServer(BaseApplication):
    """Gunicorn running `create_app`. `make_cluster` is called in each worker."""

    def __init__(self, settings: Settings, make_cluster: Callable[[], ClusterDoor | None]) -> None:
        self._settings = settings
        self._make_cluster = make_cluster
        super().__init__()

    def load_config(self) -> None:
        """Set gunicorn up; it reads neither a file nor the command line."""
        web = self._settings.web
        options: dict[str, Any] = {
            "bind": f"{web.host}:{web.port}",
            "workers": web.workers,
            "threads": web.threads,
            "worker_class": "gthread",
            "worker_connections": 1000,
            "keepalive": KEEPALIVE_S,
            "graceful_timeout": GRACE_S,
            "timeout": 120,
            "worker_tmp_dir": "/dev/shm",
            "logger_class": HouseLogger,
            "proc_name": "labelloop-web",
            "control_socket_disable": True,
            "worker_exit": _close_rooms,
        }
        for name, value in options.items():
            if name in self.cfg.settings:
                self.cfg.set(name, value)

    def load(self) -> flask.Flask:
        """Build the app in a worker."""
        from webapp import create_app

        set_process_context(role="web")
        app = create_app(self._settings, self._make_cluster())
        _apps.append(app)
        return app


_apps: list[flask.Flask] = []


def _close_rooms(_arbiter: Any, _worker: Any) -> None:
    for app in _apps:
        app.extensions["labelloop"].close()
