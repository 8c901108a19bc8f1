"""What one lab is: its folder, its network, its dockers. Written once a change to `lab.json`, so that any process can go on.

Owns that file and the layout of the folder. Must never start anything. Called by every module of the lab.

    <folder>/lab.json  keeper.log  memory.json  datastore/  node.token  ops/  client/  ssh/
    <folder>/<docker>/  disk/...  config.json  pid  boot.log  sshd.log
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from cluster.state import read_state, write_state
from labelloop.errors import NotFoundError

REGISTRY = "registry"
REGISTRY_PORT = 7600
FIRST_NODE = 9  # so that .9 and .10 are both there: addresses compare as numbers
STATE = "/var/lib/labelloop"
DATASTORE = "/home/datastore"
SHARED = "/run/lab"  # in a docker: the shared disk, the checkout and the packages
_PLAN_FILE = "lab.json"


class DockerPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One docker: its host name and the last number of its address."""

    name: str
    number: int


class LabPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One lab. `network` is the third number of its subnet, `link` the machine's own end of the wire to the bridge."""

    network: int = 0
    link: str = ""
    dockers: tuple[DockerPlan, ...] = ()
    settings: dict[str, str] = {}
    broker: str = "rabbitmq"
    is_shell_only: bool = False
    has_bare_nodes: bool = False

    def address(self, name: str) -> str:
        """Return the address of a docker. Raises NotFoundError with the names there are."""
        return self.numbered(self.docker(name).number)

    def numbered(self, number: int) -> str:
        """Return the address with this last number."""
        return f"10.77.{self.network}.{number}"

    def docker(self, name: str) -> DockerPlan:
        """Return a docker by name. Raises NotFoundError with the names there are."""
        for docker in self.dockers:
            if docker.name == name:
                return docker
        raise NotFoundError(f"this lab has no docker {name!r}: {', '.join(d.name for d in self.dockers)}")

    @property
    def host(self) -> str:
        """Return the address of the machine itself on the lab's bridge."""
        return self.numbered(1)

    @property
    def nodes(self) -> tuple[str, ...]:
        """Return the names of all dockers but the registry's."""
        return tuple(docker.name for docker in self.dockers if docker.name != REGISTRY)


def write_plan(folder: Path, plan: LabPlan) -> None:
    """Keep the plan in the lab's folder."""
    write_state(folder / _PLAN_FILE, plan)


def read_plan(folder: Path) -> LabPlan:
    """Return the plan in a lab's folder. Raises NotFoundError when there is no lab."""
    plan = read_state(folder / _PLAN_FILE, LabPlan)
    if plan is None:
        raise NotFoundError(f"no lab in {folder}: make one with `labelloop lab up N`")
    return plan


def mark_of(folder: Path) -> str:
    """Return the mark that every process of the lab in `folder` carries in its environment."""
    return str(folder.absolute() / "lab")
