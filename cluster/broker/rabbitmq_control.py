"""The way to order one RabbitMQ about: Erlang expressions evaluated in its virtual machine by `erl_call`.

A call costs milliseconds, where `rabbitmqctl` starts a virtual machine of its own for a second. Must never take a secret as an
argument: `erl_call` reads the cookie from its home folder and the expression from its input. Called by `rabbitmq` and siblings.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from labelloop.errors import DeadlineError, NotReadyError, SettingsError, UnreachableError

ERL_CALL = Path("/usr/bin/erl_call")
_REASON_CHARS = 300
_GRACE_S = 1.0
_AGAIN_S = 0.2
# rabbit_json is on the code path whether the broker's application runs or not
_FRAME = """
Answer__ = try (fun() -> {body} end)() of
  Value__ -> #{{<<"value">> => Value__}}
catch Class__:Reason__ ->
  #{{<<"error">> => unicode:characters_to_binary(io_lib:format("~0p:~0P", [Class__, Reason__, 30]))}}
end,
io:put_chars([rabbit_json:encode(Answer__), 10]).
"""


class Control:
    """Evaluates expressions on the node at host:port under the cookie in `home`. Stateless, any thread may call."""

    def __init__(self, host: str, port: int, home: Path) -> None:
        self._host = host
        self._port = port
        self._home = home

    def ask(self, what: str, body: str, timeout_s: float = 5.0, *, is_secret: bool = False) -> Any:
        """Return the JSON value of the Erlang expressions `body`; `what` names them in errors, 'to list queues'.

        With `is_secret` the reason of a failure is kept out of the error. Raises UnreachableError (no such node now, or one that
        does not let us in), DeadlineError (no answer in time), NotReadyError (it refused).
        """
        answer = self._decode(what, self._run(what, _FRAME.format(body=body), timeout_s))
        if "error" in answer:
            reason = "see its log" if is_secret else str(answer["error"])[:_REASON_CHARS]
            raise NotReadyError(f"the broker at {self._host} was asked {what} and refused: {reason}")
        return answer.get("value")

    def _run(self, what: str, expression: str, timeout_s: float) -> str:
        done = self._call(what, expression, timeout_s)
        if done.returncode != 0 and b"timeout" not in (done.stderr + done.stdout).lower() and self._is_listening():
            time.sleep(_AGAIN_S)  # it may have come up meanwhile
            done = self._call(what, expression, timeout_s)
        if done.returncode != 0:
            self._explain(what, (done.stderr + done.stdout).decode("utf-8", "replace"), timeout_s)
        return done.stdout.decode("utf-8", "replace")

    def _call(self, what: str, expression: str, timeout_s: float) -> subprocess.CompletedProcess[bytes]:
        argv = [str(ERL_CALL), "-r", "-address", f"{self._host}:{self._port}", "-timeout", str(max(1, round(timeout_s)))]
        try:
            return subprocess.run(
                [*argv, "-fetch_stdout", "-no_result_term", "-e"],
                input=expression.encode(),
                capture_output=True,
                timeout=timeout_s + _GRACE_S,
                env={"HOME": str(self._home), "PATH": os.defpath},
                check=False,
            )
        except FileNotFoundError as exc:
            raise SettingsError(f"{ERL_CALL} is missing: install rabbitmq-server, which brings Erlang") from exc
        except subprocess.TimeoutExpired as exc:
            raise DeadlineError(f"the broker at {self._host} was asked {what} and did not answer in {timeout_s:g} s") from exc

    def _is_listening(self) -> bool:
        try:
            socket.create_connection((self._host, self._port), timeout=_GRACE_S).close()
        except OSError:
            return False
        return True

    def _explain(self, what: str, said: str, timeout_s: float) -> None:
        """Raise what a failed call means. Of another cookie `erl_call` says the same as of a node that is starting or busy."""
        if "timeout" in said.lower():
            raise DeadlineError(f"the broker at {self._host} was asked {what} and did not answer in {timeout_s:g} s")
        if "failed to connect" in said and self._is_listening():
            raise UnreachableError(f"the broker at {self._host} lets nobody in: it is starting or busy, or has another cookie")
        raise UnreachableError(f"the broker at {self._host} takes no orders now: {said.strip()[:_REASON_CHARS] or 'no answer'}")

    def _decode(self, what: str, said: str) -> dict[str, Any]:
        lines = said.strip().splitlines()
        try:
            answer = json.loads(lines[-1]) if lines else None
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise UnreachableError(f"the broker at {self._host} was asked {what} and broke off")
        return answer
