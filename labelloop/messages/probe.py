"""What `doctor` asks of a manager: to look around from where its node stands. Called through `labelloop.messages`."""

from __future__ import annotations

from labelloop.messages.base import Message


class ProbeRequest(Message, frozen=True, kw_only=True):
    """`addresses` ('host:port') are tried by TCP from this node; `is_datastore_tried` tries the four habits on the mount.

    `race` names a race on the datastore among the `contestants` (host names, this node one of them): each goes for `rounds` names.
    """

    addresses: tuple[str, ...] = ()
    is_datastore_tried: bool = False
    race: str = ""
    contestants: tuple[str, ...] = ()
    rounds: int = 1000


class DiskView(Message, frozen=True, kw_only=True):
    """One file system; sizes in bytes. `what` it is for: state, datastore, broker.

    `free_names` is how many more files it can name, -1 = it does not count them.
    """

    what: str
    path: str
    free_bytes: int
    size_bytes: int
    free_names: int = -1


class ProbeReply(Message, frozen=True, kw_only=True):
    """What a node sees of itself and around it.

    `ports`: address → '' or why it cannot be reached from here. `datastore` '' = mounted and ours; `habits` says what the mount
    does wrong. `claimed` and `created` are the numbers of the race's names that this node won by mkdir and by O_EXCL. `gpu` says
    why a GPU that is there cannot be used. `certificate_end_s` is Unix time. `hosts` is the block of the hosts file, (ip, name);
    `resolved` is where those names lead on this machine ('' = nowhere).
    """

    hostname: str
    clock_s: float
    disks: tuple[DiskView, ...] = ()
    ports: dict[str, str] = {}
    datastore: str = ""
    datastore_path: str = ""
    file_system: str = ""
    habits: tuple[str, ...] = ()
    race_trouble: str = ""
    claimed: tuple[int, ...] = ()
    created: tuple[int, ...] = ()
    gpu: str = ""
    certificate_end_s: float = 0.0
    hosts_file: str = ""
    hosts: tuple[tuple[str, str], ...] = ()
    resolved: dict[str, str] = {}
