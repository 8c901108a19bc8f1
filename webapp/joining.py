"""The app's way into the cluster: an identity of kind `client`, got with a join token when the registry answers.

Owns the folder `client` of the state folder (key, certificate, CA). Must never keep the app from starting: while the registry is
away every call says so, and labels wait in the outbox. Called by the commands `web`, `pilot`.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import secrets
import threading
import time
from pathlib import Path

from labelloop import messages as m
from labelloop.clients import Cluster, InferenceClient, RegistryClient, TrainClient
from labelloop.errors import LabelloopError, SettingsError, UnauthenticatedError, UnreachableError
from labelloop.settings import Settings
from labelloop.tls import Identity, enrol, is_renewal_due, load_identity, renew

logger = logging.getLogger(__name__)
RETRY_S = 1.0
RENEWAL_LOOK_S = 3600.0


class JoiningCluster:
    """A `ClusterDoor` that joins when it is first needed. `_lock` guards the cluster; one thread joins at a time."""

    def __init__(self, registry: str, settings: Settings, folder: Path, token_file: Path | None) -> None:
        self._registry_address = registry
        self._settings = settings
        self._folder = folder
        self._token_file = token_file
        self._lock = threading.Lock()
        self._cluster: Cluster | None = None
        self._identity: Identity | None = None
        self._tried_s = float("-inf")
        self._looked_s = float("-inf")
        self._problem: LabelloopError = UnreachableError("the cluster has not been joined yet")

    def registry(self) -> RegistryClient:
        """Return the client of the registry."""
        return self._joined().registry()

    def train(self) -> TrainClient:
        """Return the client of the train master."""
        return self._joined().train()

    def inference(self) -> InferenceClient:
        """Return the client of the inference nodes."""
        return self._joined().inference()

    def topology(self) -> m.Topology:
        """Return where to call."""
        return self._joined().topology()

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            if self._cluster is not None:
                self._cluster.close()
                self._cluster = None

    def join(self) -> None:
        """Return once this app is admitted. Raises what keeps it out, at once."""
        self._joined()

    def renew_if_due(self) -> None:
        """Renew the certificate at half its life; looked at once an hour."""
        now_s = time.monotonic()
        if self._identity is None or now_s - self._looked_s < RENEWAL_LOOK_S:
            return
        self._looked_s = now_s
        if is_renewal_due(self._identity):
            renew(self._registry_address, self._identity, self._settings.wire)
            logger.info("the certificate in %s is renewed", self._folder)

    def _joined(self) -> Cluster:
        with self._lock:
            if self._cluster is None:
                if time.monotonic() - self._tried_s < RETRY_S:
                    raise self._problem
                try:
                    self._identity = self._join()
                except LabelloopError as exc:
                    self._problem, self._tried_s = exc, time.monotonic()
                    raise
                self._cluster = Cluster(self._registry_address, self._identity, self._settings.wire)
            return self._cluster

    def _join(self) -> Identity:
        """Load the identity, or enrol once whatever number of processes ask at the same time."""
        with contextlib.suppress(UnauthenticatedError):
            return load_identity(self._folder)
        if self._token_file is None:
            raise SettingsError(
                f"no identity in {self._folder}: give a join token, which `labelloop token client` makes beside the registry, "
                "with --token-file, or a folder with --identity"
            )
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with (self._folder / "lock").open("ab") as turn:
            fcntl.flock(turn, fcntl.LOCK_EX)
            with contextlib.suppress(UnauthenticatedError):
                return load_identity(self._folder)
            try:
                token = self._token_file.read_text().strip()
            except OSError as exc:
                raise SettingsError(f"cannot read the join token {self._token_file}: {exc.strerror}") from exc
            return enrol(self._registry_address, token, self._name(), "127.0.0.1", "client", self._folder, self._settings.wire)

    def _name(self) -> str:
        path = self._folder / "name"
        if not path.exists():
            path.write_text(f"web-{secrets.token_hex(4)}")
        return path.read_text().strip()
