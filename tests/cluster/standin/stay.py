"""What the three scripts share: read the configuration, answer the RPC's pings with --rpc, fork, stay until SIGTERM."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import msgspec

from labelloop.messages import RoleConfig
from labelloop.settings import read_settings
from labelloop.tls import Identity
from labelloop.wire import Server


def main(arguments: list[str]) -> int:
    """Stay; with --rpc listen on the port and answer pings, in `rpc_processes` forked processes."""
    config = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=RoleConfig)
    settings = read_settings(None)  # the environment must make valid settings
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    children = []
    if "--rpc" in arguments:
        identity = Identity(Path(config.certificate_file), Path(config.key_file), Path(config.ca_file))
        server = Server(config.role, {}, identity, settings.wire, config.rpc_host, config.rpc_port)
        server.listen()
        for _ in range(config.rpc_processes):
            child = os.fork()
            if child == 0:
                server.start()
                time.sleep(3600)
            children.append(child)
    sys.stdout.write(f"stays with {children}\n")
    sys.stdout.flush()
    time.sleep(3600)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
