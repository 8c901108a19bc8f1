"""What the three scripts share: read the configuration, open the port with --rpc, fork, stay until SIGTERM."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from pathlib import Path

import msgspec

from labelloop.messages import RoleConfig
from labelloop.settings import read_settings


def main(arguments: list[str]) -> int:
    """Stay; with --rpc listen on the port, in `rpc_processes` forked processes."""
    config = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=RoleConfig)
    read_settings(None)  # the environment must make valid settings
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    children = []
    listener = socket.create_server((config.rpc_host, config.rpc_port)) if "--rpc" in arguments else None
    for _ in range(config.rpc_processes if listener is not None else 0):
        child = os.fork()
        if child == 0:
            time.sleep(3600)
        children.append(child)
    sys.stdout.write(f"stays with {children}\n")
    sys.stdout.flush()
    time.sleep(3600)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
