"""`python -m scripts.start_data CONFIG`: the data worker of one train node.

Reads the RoleConfig that the manager wrote (JSON) and the settings (environment), sets up the logs, runs. No logic beyond that.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from labelloop.logs import set_process_context, set_up_logs
from labelloop.messages import RoleConfig
from labelloop.settings import read_settings
from roles.data.worker import run
from roles.simulate.cells import add_cells


def main(arguments: list[str]) -> int:
    """Run the data worker with the configuration file named by the only argument."""
    config = msgspec.json.decode(Path(arguments[0]).read_bytes(), type=RoleConfig)
    settings = read_settings(None)
    set_up_logs(msgspec.structs.replace(settings.log, level=config.log_level))
    set_process_context(node=config.node, role="data")
    return run(config, settings, guests=(add_cells,))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
