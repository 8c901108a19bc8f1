"""`bench form`: seconds from `labelloop form` to "all roles answer" in a lab, against a bare shell script that only joins brokers.

Owns both sides. The script runs in dockers of the same kind, in parallel on each node that joins: stop the broker, set the cookie,
start, join, by `erl_call`, which is the quickest way there is. Called by `scripts/bench form` and by hand; needs root.

    scripts/bench form [--nodes 3+4] [--rounds 3] [--json FILE]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.lab.dockers import CHECKOUT
from cluster.lab.lab import Lab, running_lab
from labelloop import messages as m
from labelloop.clients import InferenceClient, TrainClient
from labelloop.errors import InternalError, NotFoundError
from labelloop.logs import set_up_logs
from labelloop.settings import LogSettings
from scripts.chaos.ground import LabGround
from scripts.chaos.stage import parse_nodes, staged
from scripts.chaos.trial import STEADY_S, until, why_not_answering

_FORM_S = 300.0
# in a docker: start a broker of its own, as one is there before the cluster forms
START = """
set -e
install -d -o rabbitmq -g rabbitmq /var/lib/rabbitmq /var/log/rabbitmq
umask 077; printf %s "$1" >/var/lib/rabbitmq/.erlang.cookie
chown rabbitmq:rabbitmq /var/lib/rabbitmq/.erlang.cookie; chmod 400 /var/lib/rabbitmq/.erlang.cookie
export RABBITMQ_ENABLED_PLUGINS_FILE=/dev/null
rabbitmq-server -detached
"""
ASK = """
ask() { HOME=/var/lib/rabbitmq erl_call -n "rabbit@$(hostname)" -timeout 60 -a "$*"; }
up() { until [ "$(ask 'rabbit is_booted []' 2>/dev/null)" = true ]; do sleep 0.05; done; }
"""
JOIN = """
ask 'init stop []' >/dev/null
while pgrep -x beam.smp >/dev/null; do sleep 0.02; done
rm -f /var/lib/rabbitmq/.erlang.cookie
"""
ENTER = """
up
ask 'rabbit stop []' >/dev/null
ask "rabbit_mnesia join_cluster ['rabbit@$2', disc]" >/dev/null
ask 'rabbit start []' >/dev/null
up
"""


def main(argv: Sequence[str]) -> dict[str, Any]:
    """Form `rounds` times by either way, in turns, and return the medians and their ratio."""
    parser = argparse.ArgumentParser(prog="bench form")
    parser.add_argument("--nodes", default="3+4")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(list(argv))
    set_up_logs(LogSettings(level="WARNING"))
    train, inference = parse_nodes(args.nodes)
    formed_s, bare_s = [], []
    for _ in range(args.rounds):
        formed_s.append(_form(train, inference))
        bare_s.append(_bare(train, inference))
        print(f"form {formed_s[-1]:.1f} s, bare script {bare_s[-1]:.1f} s", file=sys.stderr, flush=True)
    figures = {
        "nodes": args.nodes,
        "form_s": [round(s, 2) for s in formed_s],
        "bare_s": [round(s, 2) for s in bare_s],
        "median_form_s": round(statistics.median(formed_s), 2),
        "median_bare_s": round(statistics.median(bare_s), 2),
        "ratio": round(statistics.median(formed_s) / statistics.median(bare_s), 2),
    }
    if args.json is not None:
        args.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    return figures


# ---------------------------------------------------------------- the command


def _form(train: int, inference: int) -> float:
    """Return the seconds from the command's start to the answer of every role of every node."""
    with staged(train, inference, is_formed=False) as stage:
        until(lambda: _why_no_brokers(stage.ground), "a broker of its own in each docker")
        began_s = time.monotonic()
        state = str(stage.lab.registry_state)
        argv = [sys.executable, "-m", "scripts.cli", "form", "--registry", stage.lab.registry_address, "--state", state]
        argv += [word for name, role in stage.ground.wanted.items() for word in ("--role", f"{name}={role}")]
        done = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=_FORM_S)
        if done.returncode:
            raise InternalError(f"labelloop form ended with {done.returncode}: {done.stderr.strip()[-400:]}")
        until(lambda: _why_silent(stage.ground), "every role answering")
        took_s = time.monotonic() - began_s
        until(lambda: why_not_answering(stage.ground), "a whole cluster", steady_s=STEADY_S)
        return took_s


def _why_no_brokers(ground: LabGround) -> str:
    """Return whose broker has not booted yet: the bare script begins with brokers that run as well."""
    views = {view.status.hostname: view.status.broker.state for view in ground.registry.nodes(deadline_s=5.0).nodes}
    return ", ".join(name for name in ground.lab.nodes if views.get(name) != "running")


def _why_silent(ground: LabGround) -> str:
    """Return whose RPC does not answer; a task that nobody opened is an answer."""
    topology = ground.registry.topology(deadline_s=5.0)
    if len(topology.inference_rpc) != len(ground.of("inference")) or not topology.train_rpc:
        return f"only {topology.inference_rpc} and {topology.train_rpc!r} are known"
    identity, settings = ground.lab.client_identity(), ground.lab.settings.wire
    with contextlib.suppress(NotFoundError), TrainClient(topology.train_rpc, identity, settings) as train:
        train.progress(m.ProgressRequest(task="nobody"), deadline_s=5.0)
    for address in topology.inference_rpc:
        with contextlib.suppress(NotFoundError), InferenceClient(address, identity, settings) as inference:
            inference.job(m.JobKey(task="nobody", job_id="none"), deadline_s=5.0)
    return ""


# ---------------------------------------------------------------- the bare script


def _bare(train: int, inference: int) -> float:
    """Return the seconds in which a bare script lets all but the first inference broker join it."""
    with (
        tempfile.TemporaryDirectory(prefix="bare-") as folder,
        running_lab(train + inference, Path(folder) / "lab", is_shell_only=True) as lab,
    ):
        names = list(lab.nodes)
        hosts = "".join(f"{lab.address(name)} {name}\n" for name in names) + "127.0.0.1 localhost\n"
        for name in names:
            (lab.disk(name) / "etc/hosts").write_text(hosts)
        cookie = secrets.token_hex(16)
        members = names[train:]
        _in_all(
            lab,
            names,
            START + ASK + "up\n",
            {name: (cookie if name == members[0] else secrets.token_hex(16), "") for name in names},
        )
        began_s = time.monotonic()
        _in_all(lab, members[1:], ASK + JOIN + START + ENTER, dict.fromkeys(members, (cookie, members[0])))
        return time.monotonic() - began_s


def _in_all(lab: Lab, names: Sequence[str], script: str, arguments: dict[str, tuple[str, str]]) -> None:
    """Run a shell script in several dockers side by side. Raises InternalError with the last words of one that failed."""
    running = {}
    for name in names:
        argv, environment = lab.command(name, ["sh", "-s", "--", *arguments[name]])
        pipe = subprocess.PIPE
        running[name] = subprocess.Popen(argv, env=environment, cwd="/", stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        stdin = running[name].stdin
        assert stdin is not None
        stdin.write(script)
        stdin.close()
        running[name].stdin = None
    for name, process in running.items():
        said, trouble = process.communicate(timeout=_FORM_S)
        if process.returncode:
            raise InternalError(f"the bare script failed in {name}: {(trouble or said).strip()[-400:]}")


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:]), indent=2))
