"""How one RabbitMQ is set up: its paths, its environment and its configuration, as text; pure.

Must never hold the cookie: that lies in a file of its own. The configuration holds the password of one account, so its file is
of mode 0600. It is written in Erlang terms, because the newer form costs each start a second of parsing. Called by `rabbitmq`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path

import msgspec

from labelloop.errors import SettingsError
from labelloop.settings import BrokerSettings, Settings

EPMD_PORT = 4369
HOSTS_FILE = "/etc/hosts"
SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
USER = "rabbitmq"
_PLUGINS = "/usr/lib/rabbitmq/lib/rabbitmq_server-*/plugins"
_ERLANG = "/usr/lib/erlang/lib"
# every module that is not found at once is looked for in a hundred folders, which doubled the time of a start
_FIRST_PLUGINS = (
    "rabbit rabbit_common rabbitmq_prelaunch ra osiris seshat gen_batch_server aten cuttlefish credentials_obfuscation ranch recon"
    " sysmon_handler syslog"
)
_FIRST_ERLANG = "stdlib kernel compiler mnesia ssl public_key crypto asn1 os_mon sasl inets xmerl tools syntax_tools runtime_tools"
ACCOUNTS = ("inference", "train")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SETUP_S = 3  # a node that is gone answers nothing: how long each call to it may hang
_WAL_BYTES = 32 * 2**20
_LOG_BYTES = 10 * 2**20
_ACCOUNT_NAME = re.compile(r"[a-z]+")


class Paths(msgspec.Struct, frozen=True, kw_only=True):
    """The folders of one RabbitMQ; a docker has its own. `mine` holds what this project writes for it."""

    data: Path = Path("/var/lib/rabbitmq")
    log: Path = Path("/var/log/rabbitmq")

    @property
    def cookie(self) -> Path:
        return self.data / ".erlang.cookie"

    @property
    def database(self) -> Path:
        return self.data / "mnesia"

    @property
    def mine(self) -> Path:
        return self.data / "labelloop"

    @property
    def config(self) -> Path:
        return self.mine / "rabbitmq.config"

    @property
    def plugins(self) -> Path:
        return self.mine / "plugins"

    @property
    def resolver(self) -> Path:
        return self.mine / "inetrc"


def node_of(hostname: str) -> str:
    """Return the Erlang name of the broker of `hostname`."""
    return f"rabbit@{hostname}"


def host_of(node: str) -> str:
    """Return the host name in an Erlang node name."""
    return node.partition("@")[2]


def text(value: str) -> str:
    """Return `value` as an Erlang string literal."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def binary(value: str) -> str:
    """Return `value` as an Erlang binary literal."""
    return f"<<{text(value)}/utf8>>"


def atom(value: str) -> str:
    """Return `value` as an Erlang atom literal."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def permissions_of(account: str) -> tuple[str, str, str]:
    """Return what an account may configure, write and read: nothing is declared by it, and it consumes its role's queues only."""
    assert _ACCOUNT_NAME.fullmatch(account)
    return "^$", r"^amq\.default$", rf"^{account}\."


def check_settings(settings: Settings) -> None:
    """Raise SettingsError when a task may outlive the broker's patience, which would deliver it twice."""
    if settings.train.task_limit_s >= settings.broker.consumer_timeout_s:
        raise SettingsError(
            f"train.task_limit_s ({settings.train.task_limit_s:g}) must be below broker.consumer_timeout_s "
            f"({settings.broker.consumer_timeout_s}), or a running task is delivered twice"
        )


def code_folders() -> list[Path]:
    """Return the folders of compiled code that a start needs, those that are there, in the order in which they are searched."""
    found: list[Path] = []
    for root, names in ((_PLUGINS, _FIRST_PLUGINS), (_ERLANG, _FIRST_ERLANG)):
        for name in names.split():
            found.extend(sorted(Path("/").glob(f"{root.lstrip('/')}/{name}-[0-9]*/ebin"))[-1:])
    return found


def plugins_needed() -> dict[str, Path]:
    """Return what the server's folder of plugins links to, by name: the server itself, for the schema of its settings."""
    return {folder.parent.name: folder.parent for folder in code_folders() if folder.parent.name.startswith("rabbit-")}


def environment(hostname: str, ip: str, paths: Paths, settings: BrokerSettings) -> Mapping[str, str]:
    """Return the whole environment of the server and of epmd; it holds no secret. Raises SettingsError for an IPv6 address.

    `detached` makes Debian's script become the server instead of watching it, so that the process started is the server.
    """
    address, n = _address(ip), settings.schedulers
    return {
        "PATH": _PATH,
        "HOME": str(paths.data),
        "LANG": "C.UTF-8",
        "detached": "1",
        "ERL_CRASH_DUMP_BYTES": "0",  # a crash dump holds the cookie
        "ERL_EPMD_ADDRESS": ip,
        "ERL_INETRC": str(paths.resolver),
        "RABBITMQ_NODENAME": node_of(hostname),
        "RABBITMQ_CONF_ENV_FILE": str(paths.mine / "no-rabbitmq-env.conf"),
        "RABBITMQ_CONFIG_FILE": str(paths.config),
        "RABBITMQ_PLUGINS_DIR": str(paths.plugins),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(paths.mine / "no-advanced.config"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(paths.mine / "no-plugins"),
        "RABBITMQ_MNESIA_BASE": str(paths.database),
        "RABBITMQ_LOG_BASE": str(paths.log),
        "RABBITMQ_DIST_PORT": str(settings.distribution_port),
        # the script's defaults reserve tables for a million processes and five million atoms at each start
        "RABBITMQ_SERVER_ERL_ARGS": f"+P 262144 +t 1048576 +S {n}:{n} +SDcpu 1 +SDio 4 +zdbbl 128000"
        " +sbwt none +sbwtdcpu none +sbwtdio none",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-kernel inet_dist_use_interface {{{address}}}"
        f" -kernel net_ticktime {settings.tick_s} -kernel net_setuptime {_SETUP_S}"
        + "".join(f" -pa {folder}" for folder in reversed(code_folders())),
    }


def _address(ip: str) -> str:
    try:
        return ",".join(str(IPv4Address(ip)).split("."))
    except ValueError as exc:
        raise SettingsError(f"RabbitMQ listens on IPv4 only, and {ip} is none: give the node an IPv4 address") from exc


def resolver(hostname: str, ip: str) -> str:
    """Return where the server finds names: its own here (Debian's hosts file may say 127.0.1.1), all others in the hosts file.

    Never in DNS: members that are down are called each second, and while one name server is waited for, which takes seconds
    where it does not answer, the server talks to no member at all; so the living paused over the name of a dead one.
    """
    return f"{{host, {{{_address(ip)}}}, [{text(hostname)}]}}.\n{{hosts_file, {text(HOSTS_FILE)}}}.\n{{lookup, [file]}}.\n"


def configuration(ip: str, paths: Paths, settings: BrokerSettings, password: str, contact: str = "") -> str:
    """Return rabbitmq.config. `password` is that of the first account, which an empty database is seeded with instead of guest.

    `contact` is the Erlang node whose cluster an empty node enters as it starts; '' = it starts alone.
    """
    account = ACCOUNTS[0]
    rights = ", ".join(binary(pattern) for pattern in permissions_of(account))
    peers = f"\n    {{cluster_nodes, {{[{atom(contact)}], disc}}}}," if contact else ""
    return f"""%% Written by labelloop at each start: do not edit.
[{{rabbit, [{peers}
    {{tcp_listeners, [{{"127.0.0.1", {settings.amqp_port}}}]}},
    {{ssl_listeners, [{{{text(ip)}, {settings.amqps_port}}}]}},
    {{ssl_options, [{{cacertfile, {text(str(paths.mine / "ca.pem"))}}},
                    {{certfile, {text(str(paths.mine / "certificate.pem"))}}},
                    {{keyfile, {text(str(paths.mine / "key.pem"))}}},
                    {{versions, ['tlsv1.3']}},
                    {{verify, verify_peer}},
                    {{fail_if_no_peer_cert, true}}]}},
    {{default_user, {binary(account)}}},
    {{default_pass, {binary(password)}}},
    {{default_user_tags, []}},
    {{default_permissions, [{rights}]}},
    {{cluster_partition_handling, pause_minority}},
    {{cluster_keepalive_interval, 2000}},
    {{heartbeat, {max(2, round(2 * settings.heartbeat_s))}}},
    {{consumer_timeout, {settings.consumer_timeout_s * 1000}}},
    {{vm_memory_high_watermark, {{absolute, {settings.memory_bytes}}}}},
    {{collect_statistics, none}},
    {{log, [{{file, [{{level, info}}, {{size, {_LOG_BYTES}}}, {{count, 3}}]}}]}}]}},
 {{ra, [{{wal_max_size_bytes, {_WAL_BYTES}}}]}},
 {{aten, [{{poll_interval, 1000}}]}}].
"""
