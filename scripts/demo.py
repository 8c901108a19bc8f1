"""`labelloop demo`: the whole loop on this machine, in one terminal.

Owns the list of processes and the demo's state folder. The foreground process only guards: it starts the supervisor (and, with
`--simulate`, the annotator) and starts them again when they die; see docs/decisions/0004. Called by start.sh through scripts.cli.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from cluster.supervisor import ProcessSpec, Supervisor
from labelloop.errors import ConflictError, DeadlineError, ForbiddenError, LabelloopError, UnauthenticatedError
from labelloop.logs import set_process_context, set_up_logs
from labelloop.settings import Settings, environment_of, read_settings
from scripts.annotator import Annotator, Plan, create_project, import_sample
from scripts.curves import summary
from scripts.demo_state import empty_state, hold_state, prepare_state, replace_file
from scripts.samples import DEFAULT_SAMPLES, SAMPLES, load_sample
from scripts.web_client import WebClient

HERE = Path(__file__).resolve().parent.parent
NODES = (("train-1", "127.0.0.2", "train"), ("inference-1", "127.0.0.3", "inference"))  # until `labelloop form` says otherwise
READY_TIMEOUT_S = 180.0


class Access(msgspec.Struct, frozen=True):
    """How to reach and enter the running demo; kept in a file of mode 0600."""

    url: str
    name: str
    password: str
    token: str = ""


def register(subparsers: Any) -> None:
    """Add `demo` and the two commands it starts as processes."""
    demo = subparsers.add_parser("demo", help="run the whole loop on this machine with real sample projects")
    demo.add_argument(
        "--state", type=Path, default=HERE / "state" / "demo", help="folder of everything the demo keeps (default state/demo)"
    )
    demo.add_argument("--port", type=int, default=0, help="port of the app (default 8080, or a free one)")
    demo.add_argument("--simulate", type=int, metavar="N", default=0, help="label N items by the true labels, report, stop")
    demo.add_argument("--json", type=Path, metavar="FILE", help="write the report of --simulate to FILE")
    demo.add_argument(
        "--project", choices=sorted(SAMPLES), help="sample project (default digits for --simulate, else digits, tweets and cancer)"
    )
    demo.add_argument("--strategy", default="auto", help="order of asking: auto, margin, random, ... (default auto)")
    demo.add_argument("--fresh", action="store_true", help="delete the state folder first")
    demo.set_defaults(run=run_demo)
    inner = subparsers.add_parser("demo-supervisor", help=argparse.SUPPRESS)
    inner.add_argument("--state", type=Path, required=True)
    inner.set_defaults(run=run_supervisor)
    hands = subparsers.add_parser("demo-annotator", help=argparse.SUPPRESS)
    hands.add_argument("--state", type=Path, required=True)
    hands.add_argument("--work", type=Path, required=True)
    hands.add_argument("--project", required=True)
    hands.add_argument("--labels", type=int, required=True)
    hands.add_argument("--strategy", required=True)
    hands.set_defaults(run=run_annotator)


# ---------------------------------------------------------------- what runs


def demo_settings(state: Path) -> Settings:
    """Return the demo's settings: everything below `state`, the app on the port remembered there."""
    settings = read_settings(None)
    media = state / "media"
    port = int((state / "port").read_text())
    return msgspec.structs.replace(
        settings,
        state_dir=str(state),
        intake=msgspec.structs.replace(settings.intake, allowed_folders=(str(media),)),
        web=msgspec.structs.replace(settings.web, port=port, media_dir=str(media)),
    )


def demo_processes(state: Path, settings: Settings) -> tuple[ProcessSpec, ...]:
    """Return every process of the demo; registry and broker stop last."""
    registry_port = int((state / "registry-port").read_text())
    registry = f"127.0.0.1:{registry_port}"
    logs, env = state / "logs", environment_of(settings)
    labelloop = (sys.executable, "-m", "scripts.cli")

    def process(name: str, *argv: str, layer: int) -> ProcessSpec:
        return ProcessSpec(name=name, argv=argv, log_file=logs / f"{name}.log", env=env, cwd=HERE, stop_layer=layer)

    managers = tuple(
        process(
            f"manager-{name}",
            *(sys.executable, "manager_rpc.py", "--name", name, "--ip", ip, "--state", str(state / name)),
            *("--registry", registry, "--token-file", str(state / "node.token")),
            *("--datastore", str(state / "datastore"), "--broker-url-file", str(state / "broker" / "url")),
            layer=2,
        )
        for name, ip, _ in NODES
    )
    web = ("--registry", registry, "--token-file", str(state / "client.token"))
    served: tuple[str, ...] = (
        "--state",
        str(state / "registry"),
        "--port",
        str(registry_port),
        "--datastore",
        str(state / "datastore"),
    )
    served += tuple(f"--role={name}={role}" for name, _, role in NODES)
    return (
        process("broker", *labelloop, "broker", "--state", str(state / "broker"), layer=0),
        process("registry", *labelloop, "registry", *served, layer=1),
        *managers,
        process("web", *labelloop, "web", *web, layer=3),
        process("pilot", *labelloop, "pilot", *web, layer=3),
    )


# ---------------------------------------------------------------- the supervisor


def run_supervisor(args: argparse.Namespace) -> int:
    """Keep all processes of the demo running until a signal; a process of its own, so that it may die and come back."""
    state = args.state.resolve()
    settings = demo_settings(state)
    set_up_logs(settings.log)
    set_process_context(node="demo", role="supervisor")
    supervisor = Supervisor(demo_processes(state, settings), settings.cluster)
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    supervisor.start()
    while not ended.wait(1.0):
        lines = [f"{view.name} {view.pid} {view.state} {view.restarts}" for view in supervisor.views()]
        replace_file(state / "processes", "\n".join(lines) + "\n")
    supervisor.stop()
    return 0


# ---------------------------------------------------------------- the guard


def run_demo(args: argparse.Namespace) -> int:
    """Run the demo in the foreground; Ctrl-C stops all of it, a second start resumes."""
    state = args.state.resolve()
    lock = hold_state(state)
    if args.fresh:
        empty_state(state)
    prepare_state(state, args.port)
    settings = demo_settings(state)
    set_up_logs(msgspec.structs.replace(settings.log, level="WARNING"))
    log = state / "logs" / "supervisor.log"
    spec = ProcessSpec(
        name="supervisor",
        argv=(sys.executable, "-m", "scripts.cli", "demo-supervisor", "--state", str(state)),
        log_file=log,
        cwd=HERE,
        grace_s=settings.cluster.shutdown_grace_s * 3,
    )
    guard = Supervisor((spec,), settings.cluster)
    signal.signal(signal.SIGTERM, _interrupt)
    print(f"labelloop demo: starting registry, broker, two managers, app and pilot (logs in {state / 'logs'})", flush=True)
    guard.start()
    try:
        access = wait_ready(state, settings)
        return _simulate(args, state, access, guard, spec) if args.simulate else _serve(args, state, access)
    except KeyboardInterrupt:
        print("\nlabelloop demo: stopping; ./start.sh demo goes on from here", flush=True)
        return 0 if not args.simulate else 130
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        guard.stop()
        os.close(lock)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def wait_ready(state: Path, settings: Settings) -> Access:
    """Return how to enter the app once it answers and both roles are up; makes the first account on first use."""
    url = f"http://127.0.0.1:{settings.web.port}"
    app = WebClient(url, patience_s=READY_TIMEOUT_S)
    access = _access(state, url, app)
    entered = app.with_token(access.token)
    until_s = time.monotonic() + READY_TIMEOUT_S
    while trouble := entered.call("GET", "/cluster")["trouble"]:
        if time.monotonic() > until_s:
            raise DeadlineError(f"the cluster is not ready after {READY_TIMEOUT_S:.0f} s: {trouble}; see {state / 'logs'}")
        time.sleep(0.2)
    return access


def _access(state: Path, url: str, app: WebClient) -> Access:
    path = state / "access.json"
    if not path.exists():  # the password is kept before the account is made: a kill in between must lock nobody out
        replace_file(path, msgspec.json.encode(Access(url, "admin", secrets.token_urlsafe(12))).decode())
    access = msgspec.structs.replace(msgspec.json.decode(path.read_bytes(), type=Access), url=url)
    if access.token:
        return access
    entry = {"name": access.name, "password": access.password}
    with contextlib.suppress(ConflictError, ForbiddenError, UnauthenticatedError):  # made by a start that was killed here
        app.call("POST", "/users", entry)
    access = msgspec.structs.replace(access, token=app.call("POST", "/tokens", {**entry, "label": "demo"})["token"])
    replace_file(path, msgspec.json.encode(access).decode())
    return access


def _serve(args: argparse.Namespace, state: Path, access: Access) -> NoReturn:
    app = WebClient(access.url, access.token)
    for name in (args.project,) if args.project else DEFAULT_SAMPLES:
        try:
            sample = load_sample(name, state / "samples")
        except LabelloopError as exc:
            print(f"labelloop demo: sample project {name} is left out: {exc}", file=sys.stderr, flush=True)
            continue
        create_project(app, sample, name, sample.title, args.strategy)
        if app.call("GET", f"/projects/{name}/status")["items"] < len(sample.pool()):
            print(f"labelloop demo: importing {name} ({len(sample.pool())} items)", flush=True)
            import_sample(app, sample, name, state / "uploads")
    print(
        f"\n  open      {access.url}\n  name      {access.name}\n  password  {access.password}\n\nCtrl-C stops everything.",
        flush=True,
    )
    while True:
        time.sleep(3600)


# ---------------------------------------------------------------- the simulated annotator


def _simulate(args: argparse.Namespace, state: Path, access: Access, guard: Supervisor, spec: ProcessSpec) -> int:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    name = args.project or "digits"
    load_sample(name, state / "samples")  # fetched here, where a failure is one sentence
    work = state / "simulations" / f"{name}-{time.strftime('%m%d-%H%M%S')}-{os.getpid()}"
    work.mkdir(parents=True)
    argv = (sys.executable, "-m", "scripts.cli", "demo-annotator", "--state", str(state), "--work", str(work), "--project", name)
    hands = ProcessSpec(
        name="annotator",
        argv=(*argv, "--labels", str(args.simulate), "--strategy", args.strategy),
        log_file=state / "logs" / "annotator.log",
        cwd=HERE,
    )
    guard.update((spec, hands))
    report_file, progress_file, error_file = work / "report.json", work / "progress.json", work / "error"
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[say]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=False) as progress:
        task = progress.add_task(f"labelling {name}", total=args.simulate, say="")
        while not report_file.exists() and not error_file.exists():
            if progress_file.exists():
                done, _, say = json.loads(progress_file.read_text())
                progress.update(task, completed=done, say=say)
            time.sleep(0.1)
    guard.update((spec,))
    if error_file.exists():
        print(f"labelloop demo: {error_file.read_text()}", file=sys.stderr)
        return 1
    report = json.loads(report_file.read_text())
    text = json.dumps(report, indent=2)
    if args.json:
        args.json.write_text(text + "\n", encoding="utf-8")
    print(text)
    print(summary(report))
    return 0 if report["lost"] == 0 and report["doubled"] == 0 else 1


def run_annotator(args: argparse.Namespace) -> int:
    """Label as a process of its own; the guard starts it again when it is killed, and it goes on from its journal."""
    state, work = args.state.resolve(), args.work.resolve()
    settings = demo_settings(state)
    set_up_logs(settings.log)
    set_process_context(node="demo", role="annotator")
    access = msgspec.json.decode((state / "access.json").read_bytes(), type=Access)

    def say(done: int, total: int, sentence: str) -> None:
        replace_file(work / "progress.json", json.dumps([done, total, sentence]))

    sample = load_sample(args.project, state / "samples")
    plan = Plan(sample, args.labels, args.strategy, state / "datastore", work, settings.train, settings.intake, say)
    try:
        report = Annotator(WebClient(f"http://127.0.0.1:{settings.web.port}", access.token), plan).run()
    except LabelloopError as exc:
        replace_file(work / "error", str(exc))
        raise
    replace_file(work / "report.json", json.dumps(report))
    signal.pause()  # the guard ends it
    return 0
