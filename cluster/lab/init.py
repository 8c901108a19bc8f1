"""Process 1 of a docker: lays out its mounts, names it, waits for its wire, starts what it runs, and reaps what is left alone.

Owns nothing outside its namespaces. Must never import more than the standard library and `inside`: every docker has one. Started
by `cluster.lab.dockers` as `python -m cluster.lab.init CONFIG`; killing it kills the docker. Says "ready" on its standard output
once the docker is up.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

from cluster.lab.inside import lay_out

WIRE = "eth0"
_WIRE_S = 30.0
_POLL_S = 0.01


def main() -> NoReturn:
    """Become the docker that the file named on the command line describes."""
    config: dict[str, Any] = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(config["folder"])
    logs = {name: (folder / f"{name}.log").open("ab") for name in config["commands"]}  # opened before the mounts hide the folder
    socket.sethostname(config["name"])
    shared = {name: Path(path) for name, path in config["shared"].items()}
    lay_out(folder / "disk", config["name"], shared, config["shared_root"], tuple(Path(p) for p in config["keep"]))
    _take_wire(config["address"], config["gateway"])
    os.chdir("/")
    for name, argv in config["commands"].items():
        log = logs[name]
        subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=config["env"], start_new_session=True)
        log.close()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    os.write(1, b"ready\n")
    os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
    _reap()


def _take_wire(address: str, gateway: str) -> None:
    """Wait for the wire and give it the docker's address."""
    until_s = time.monotonic() + _WIRE_S
    while WIRE not in (name for _, name in socket.if_nameindex()):
        if time.monotonic() > until_s:
            sys.exit(f"{WIRE} was not plugged in within {_WIRE_S:.0f} s")
        time.sleep(_POLL_S)
    steps = f"link set lo up\naddress add {address}/24 dev {WIRE}\nlink set {WIRE} up\nroute add default via {gateway}\n"
    subprocess.run(["/sbin/ip", "-batch", "-"], input=steps.encode(), check=True)
    while Path(f"/sys/class/net/{WIRE}/operstate").read_text().strip() != "up":  # plugged in, but not live yet
        if time.monotonic() > until_s:
            sys.exit(f"{WIRE} did not come up within {_WIRE_S:.0f} s")
        time.sleep(_POLL_S)


def _stop(*_: object) -> NoReturn:
    os._exit(0)  # the kernel ends everything else in here


def _reap() -> NoReturn:
    while True:
        try:
            os.wait()
        except ChildProcessError:
            with contextlib.suppress(InterruptedError):
                time.sleep(0.2)


if __name__ == "__main__":
    main()
