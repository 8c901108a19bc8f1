"""The life of one RabbitMQ server: prepare its files, start it, take over one that runs, wait until it answers, end it.

Owns the broker's folders and its process. Must never boot by force, never end by itself a server that is paused in a minority, and
never put a secret into argv, environment, log or error. Called by `rabbitmq`.

Locks: `change` is held while the server is started, ended or moved; whoever does several such steps holds it throughout.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from cluster.broker import never
from cluster.broker.rabbitmq_config import (
    ACCOUNTS,
    Paths,
    binary,
    check_settings,
    configuration,
    environment,
    node_of,
    permissions_of,
    plugins_needed,
    resolver,
)
from cluster.broker.rabbitmq_control import Control
from cluster.broker.rabbitmq_process import Birth, ServerProcess
from cluster.broker.rabbitmq_queues import WAKE
from cluster.broker.rabbitmq_secrets import Cookie, copy_identity, hash_of, make_folder, password_of, wipe_database, write_owned
from cluster.broker.rabbitmq_view import LOOK, LastLook, Look, view_of
from cluster.state import read_state, write_state
from labelloop.errors import DeadlineError, LabelloopError, NotReadyError, UnreachableError
from labelloop.ids import parse_node
from labelloop.messages import BrokerView
from labelloop.settings import Settings
from labelloop.tls import Identity

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
QUICK_S = 3.0
_GREETING = b"AMQP\x00\x00\x09\x01"
_POLL_S = 0.05
_LOOK_AGAIN_S = 0.5
_CONNECT_S = 1.0
_LEAST_S = 5.0  # one that is late is given this much more each time it is asked for
_EPMD_LOOK_S = 5.0
_KNOWN_FILE = "known.json"


class _EndedByUs(NotReadyError):
    """The server was in a state that it does not get out of, so it was ended."""


class Known(msgspec.Struct, frozen=True):
    """The cluster that this node's broker last said it is in: one that does not run cannot say so."""

    cluster: str = ""


class RabbitServer:
    """The RabbitMQ server of the node `hostname` at `ip`; `state` is the manager's folder for it."""

    def __init__(self, hostname: str, ip: str, state: Path, identity: Identity, settings: Settings, paths: Paths) -> None:
        check_settings(settings)
        self.hostname = str(parse_node(hostname))
        self.ip = ip
        self.node = node_of(self.hostname)
        self.state = state
        self.paths = paths
        self.settings = settings.broker
        self.change = threading.RLock()
        self.cookie = Cookie(state, paths)
        self.control = Control(ip, settings.broker.distribution_port, paths.data)
        self._identity = identity
        self._environment = environment(self.hostname, ip, paths, settings.broker)
        self._process = ServerProcess(self.node, state, paths)
        self._last = LastLook(self._look_view, self._last_cluster)
        self._answered_s = time.monotonic()
        self._settled: Birth | None = None
        self._epmd_at_s = 0.0
        self._known = read_state(state / _KNOWN_FILE, Known) or Known()

    # ------------------------------------------------------------ start and stop

    def start(self, is_over: Callable[[], bool] = never) -> None:
        """Return when the server takes messages; start it when it does not run.

        Raises NotReadyError: it is paused in a minority, waits for other members, or did not start in time; it goes on trying
        by itself where it can. So it does when `is_over` ends the waiting early. Raises SettingsError when something is not
        installed.
        """
        with self.change:
            self._prepare()
            try:
                self._await_ready(self._process.find() or self.boot(), is_over)
            except _EndedByUs as exc:
                logger.warning("%s: starting it again", exc)
                self._await_ready(self.boot(), is_over)

    def boot(self, contact: str = "") -> Birth:
        """Start the server and return at once; an empty one enters the cluster of the Erlang node `contact`, if given."""
        with self.change:
            self._prepare()
            former = self._process.former_node()
            self._process.end_others()
            if former not in ("", self.node):
                logger.info("removing what the broker kept under its former name %s", former)
                wipe_database(self.paths, former)
            password = password_of(self.cookie.read(), ACCOUNTS[0])
            config = configuration(self.ip, self.paths, self.settings, password, contact)
            write_owned(self.paths.config, config.encode(), 0o600)
            write_owned(self.paths.resolver, resolver(self.hostname, self.ip).encode(), 0o600)
            self._process.ensure_epmd(self._environment, self.ip)
            self._answered_s = time.monotonic()
            return self._process.start(self._environment, self._cookie_hash())

    def await_boot(self, birth: Birth) -> None:
        """Wait for a server that `boot` started. Raises NotReadyError, as `start` does."""
        with self.change:
            self._await_ready(birth)

    def stop(self) -> None:
        """End the server in good order."""
        with self.change:
            self._process.stop()
            self._last.forget()

    def empty(self, cookie: str = "") -> None:
        """End the server, remove all that it held and take `cookie`, or a new one. It is not started again."""
        with self.change:
            self._process.stop(grace_s=0.0)
            wipe_database(self.paths, self.node)
            self._make_state()
            self.cookie.replace(cookie)
            self._remember("")
            self._last.forget()

    def is_empty(self) -> bool:
        """Return whether there is no database on disk, neither of an alone server nor of a member."""
        return not (self.paths.database / self.node / "schema.DAT").exists()

    # ------------------------------------------------------------ looking

    def check(self) -> None:
        """Raise UnreachableError when the server does not greet on the loopback."""
        where = f"the broker at {LOOPBACK}:{self.settings.amqp_port}"
        try:
            with socket.create_connection((LOOPBACK, self.settings.amqp_port), timeout=_CONNECT_S) as link:
                link.sendall(_GREETING)
                greeting = link.recv(1)
        except OSError as exc:
            raise UnreachableError(f"{where} does not answer: {exc}") from exc
        if greeting != b"\x01":
            raise UnreachableError(f"{where} does not speak AMQP 0-9-1: another program has its port")

    def look(self, control: Control | None = None) -> Look:
        """Return how the server (or the one behind `control`) is now. Raises what `Control.ask` does."""
        look = msgspec.convert((control or self.control).ask("how it is", LOOK, QUICK_S), Look)
        if control is None and look.node != self.node:  # the host was renamed, or Debian's own start has the port
            raise UnreachableError(f"{look.node} answers in the place of the broker of {self.hostname}")
        if control is None:
            self._answered_s = time.monotonic()
        return look

    def see(self) -> BrokerView:
        """Return how the server is at this moment. Raises what `Control.ask` does."""
        view = view_of(self.look(), self._known.cluster)
        if view.state == "running":
            self._remember(view.cluster)
        return view

    def view(self) -> BrokerView:
        """Return the newest view, within milliseconds."""
        return self._last.get()

    def look_again(self) -> None:
        """Forget the newest view: something was changed."""
        self._last.forget()

    def ask(self, what: str, body: str, timeout_s: float = QUICK_S, *, is_secret: bool = False) -> Any:
        """Evaluate Erlang in the server; see `Control.ask`."""
        return self.control.ask(what, body, timeout_s, is_secret=is_secret)

    def peer(self, hostname: str, home: Path | None = None) -> Control:
        """Return the way to order the server of another node about, under this node's cookie or the one in `home`."""
        return Control(hostname, self.settings.distribution_port, home or self.paths.data)

    def _look_view(self) -> BrokerView:
        try:
            return self.see()
        except LabelloopError as exc:
            cluster = self._last_cluster()
            if self._process.is_alive():
                return BrokerView(kind="rabbitmq", state="unknown", cluster=cluster, reason=str(exc))
            return BrokerView(kind="rabbitmq", state="stopped", cluster=cluster, reason=self._process.said())

    def _cookie_hash(self) -> str:
        return hash_of(self.cookie.read(), self.node)

    def _last_cluster(self) -> str:
        return "" if self.is_empty() else self._known.cluster

    # ------------------------------------------------------------ steps (under `change`)

    def _make_state(self) -> None:
        self.state.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _remember(self, cluster: str) -> None:
        if cluster != self._known.cluster:
            self._known = Known(cluster)
            write_state(self.state / _KNOWN_FILE, self._known)

    def _prepare(self) -> None:
        """Make folders, cookie and the copy of the certificate; tell a running server of a renewed one."""
        self._make_state()
        for folder, mode in (
            (self.paths.data, 0o755),
            (self.paths.log, 0o755),
            (self.paths.database, 0o750),
            (self.paths.mine, 0o700),
        ):
            make_folder(folder, mode)
        make_folder(self.paths.plugins)
        for name, folder in plugins_needed().items():
            with contextlib.suppress(FileExistsError):
                (self.paths.plugins / name).symlink_to(folder)
        self.cookie.ensure()
        if copy_identity(self._identity, self.paths) and self._process.is_alive():
            with contextlib.suppress(LabelloopError):  # it looks at the files by itself within minutes
                self.ask("to take up the renewed certificate", "ssl:clear_pem_cache()")

    def _await_ready(self, birth: Birth, is_over: Callable[[], bool] = never) -> None:
        deadline_s = time.monotonic() + max(_LEAST_S, self.settings.start_timeout_s - birth.age_s())
        while True:
            reason = self._step(birth)
            if not reason:
                return
            if time.monotonic() >= deadline_s or is_over():
                raise NotReadyError(f"the broker of {self.hostname} is not ready: {reason}")
            self._await_greeting()

    def _await_greeting(self) -> None:
        """Wait until the server greets, or a moment: a greeting costs nothing, where each look starts a program."""
        deadline_s = time.monotonic() + _LOOK_AGAIN_S
        while time.monotonic() < deadline_s:
            time.sleep(_POLL_S)
            with contextlib.suppress(UnreachableError):
                self.check()
                return

    def _step(self, birth: Birth) -> str:
        """Look once and do what is due; return what is still waited for, '' when the server is ready."""
        if not birth.is_alive():
            raise NotReadyError(f"the broker of {self.hostname} ended: {self._process.said() or 'see its log'}")
        if birth.cookie not in ("", self._cookie_hash()):
            self._process.stop(grace_s=0.0)
            raise _EndedByUs(f"the broker of {self.hostname} ran with another cookie")
        try:
            look = self.look()
        except (UnreachableError, DeadlineError, NotReadyError) as exc:
            return self._silent(exc)
        view = view_of(look)
        if view.state == "paused":
            raise NotReadyError(f"the broker of {self.hostname} is paused: {view.reason}")
        if look.booted == "stopped":
            self._process.stop(grace_s=0.0)
            raise _EndedByUs(f"the application of the broker of {self.hostname} was stopped")
        if view.state != "running":
            return view.reason + (f", waiting for {', '.join(view.members)}" if len(view.members) > 1 else "")
        self._settle(birth)
        return ""

    def _silent(self, exc: LabelloopError) -> str:
        if time.monotonic() - self._answered_s > self.settings.stuck_after_s:
            self._process.stop(grace_s=0.0)
            raise _EndedByUs(f"the broker of {self.hostname} was silent for {self.settings.stuck_after_s:g} s") from exc
        return str(exc)

    def _settle(self, birth: Birth) -> None:
        """Do what a server needs once in its life, and see that epmd is there."""
        if time.monotonic() >= self._epmd_at_s:
            self._process.ensure_epmd(self._environment, self.ip)
            self._epmd_at_s = time.monotonic() + _EPMD_LOOK_S
        if self._settled == birth:
            return
        self.ensure_accounts()
        self.ask("to wake its queues", WAKE)
        self.check()
        self._settled = birth
        self._last.forget()

    def ensure_accounts(self) -> None:
        """Have an account for each role, under its password of the moment, and no guest."""
        rows = []
        for account in ACCOUNTS:
            rights = ", ".join(binary(pattern) for pattern in permissions_of(account))
            rows.append(f"{{{binary(account)}, {binary(password_of(self.cookie.read(), account))}, {{{rights}}}}}")
        self.ask("to have its accounts", _ACCOUNTS.replace("ROWS", ",\n  ".join(rows)), timeout_s=10.0, is_secret=True)


_ACCOUNTS = """
Backend = rabbit_auth_backend_internal,
By = <<"labelloop">>,
Have = fun({Name, Password, {Configure, Write, Read}}) ->
  case Backend:lookup_user(Name) of
    {error, not_found} -> Backend:add_user(Name, Password, By);
    {ok, _} ->
      case Backend:user_login_authentication(Name, [{password, Password}]) of
        {ok, _} -> ok;
        _ -> Backend:change_password(Name, Password, By)
      end
  end,
  Rights = [{configure, Configure}, {write, Write}, {read, Read}],
  Now = [lists:sort([P || {K, _} = P <- R, lists:keymember(K, 1, Rights)])
         || R <- Backend:list_user_vhost_permissions(Name, <<"/">>)],
  case Now =:= [lists:sort(Rights)] of
    true -> ok;
    false -> Backend:set_permissions(Name, <<"/">>, Configure, Write, Read, By)
  end
end,
[Have(Row) || Row <- [ROWS]],
case Backend:lookup_user(<<"guest">>) of
  {ok, _} -> Backend:delete_user(<<"guest">>, By);
  _ -> ok
end,
ok
"""
