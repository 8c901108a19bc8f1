"""All settings, one frozen struct per area; each field has its default, unit and one sentence.

Read once in a composition root (manager_rpc.py, scripts/): a TOML file, then `LABELLOOP_<AREA>_<FIELD>` from the environment.
No other file reads the environment. `docs/settings.md` is generated from here and a test holds the two together.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from labelloop.errors import SettingsError


def _say(text: str, **bounds: Any) -> Any:
    return Meta(description=text, **bounds)


class Area(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the areas; an unknown field is an error that names it."""


class WireSettings(Area, frozen=True, kw_only=True):
    """RPC between processes."""

    max_frame_bytes: Annotated[int, _say("Largest frame accepted, refused from its header before it is read.", ge=65536)] = (
        256 * 2**20
    )
    max_connections: Annotated[int, _say("Connections a server holds in all.", ge=8)] = 512
    max_connections_per_address: Annotated[int, _say("Connections a server holds per peer address.", ge=4)] = 256
    handshake_timeout_s: Annotated[float, _say("Seconds a peer has for the TLS handshake.", gt=0)] = 5.0
    idle_timeout_s: Annotated[float, _say("Seconds after which an idle peer is closed.", gt=0)] = 300.0
    deadline_s: Annotated[float, _say("Seconds a client waits for an answer unless the call names its own.", gt=0)] = 30.0
    retries: Annotated[int, _say("Times an idempotent call is repeated after an unreachable peer.", ge=0)] = 3
    worker_threads: Annotated[int, _say("Calls a server answers at the same time.", ge=1)] = 16
    client_connections: Annotated[int, _say("Connections one client opens to one server at most, one call on each.", ge=1)] = 16


class ClusterSettings(Area, frozen=True, kw_only=True):
    """Registry, managers and the processes they supervise."""

    heartbeat_s: Annotated[float, _say("Seconds between two heartbeats of a manager.", gt=0)] = 1.0
    dead_after_s: Annotated[float, _say("Seconds without a heartbeat after which a node counts as dead.", gt=0)] = 5.0
    ping_timeout_s: Annotated[float, _say("Seconds `initial` waits for one machine's ping.", gt=0)] = 2.0
    backoff_first_s: Annotated[float, _say("Seconds before a fallen role process is started again.", gt=0)] = 0.2
    backoff_most_s: Annotated[float, _say("Longest pause between two starts of a role process.", gt=0)] = 15.0
    steady_after_s: Annotated[float, _say("Seconds of life after which a process's back-off starts anew.", gt=0)] = 30.0
    inference_processes: Annotated[int, _say("Cap on forked inference_rpc processes; 0 = by cores and memory.", ge=0)] = 0
    concurrency: Annotated[int, _say("Celery children of one worker; 0 = one for each GPU, or one.", ge=0)] = 0
    token_life_s: Annotated[float, _say("Seconds a join token is good for.", gt=0)] = 86400.0
    certificate_days: Annotated[int, _say("Days a certificate is good for; renewed at half life.", ge=1)] = 90
    shutdown_grace_s: Annotated[float, _say("Seconds a process has between SIGTERM and SIGKILL.", gt=0)] = 8.0
    join_timeout_s: Annotated[
        float,
        _say("Seconds a node waits for the others while it enters the broker cluster or asks the train master's queues.", gt=0),
    ] = 60.0
    forget_after_s: Annotated[
        float, _say("Seconds a member of the broker cluster may be dead before the majority forgets it.", gt=0)
    ] = 300.0
    majority_lost_s: Annotated[
        float, _say("Seconds without a running inference broker after which the living nodes form a new broker cluster.", gt=0)
    ] = 30.0
    drain_wait_s: Annotated[
        float, _say("Seconds a draining node may go on with its running work before it stops all the same.", gt=0)
    ] = 600.0
    backup_dir: Annotated[str, _say("Folder into which the registry copies CA, tokens and wanted state; '' = none.")] = ""
    metrics: Annotated[
        str, _say("host:port of the Prometheus metrics of registry and managers; port 0 = a free one, remembered; '' = off.")
    ] = "127.0.0.1:0"


class IntakeSettings(Area, frozen=True, kw_only=True):
    """Link to features."""

    allowed_folders: Annotated[
        tuple[str, ...], _say("Folders below which file:// links may point; symlinks out of them are refused.")
    ] = ()
    allowed_hosts: Annotated[tuple[str, ...], _say("host:port of private addresses that links may reach all the same.")] = ()
    max_item_bytes: Annotated[int, _say("Largest item downloaded, bytes.", ge=1024)] = 32 * 2**20
    max_image_pixels: Annotated[int, _say("Largest image decoded, pixels.", ge=1024)] = 64_000_000
    max_text_chars: Annotated[int, _say("Longest text kept, characters; the rest is cut.", ge=16)] = 20_000
    fetch_timeout_s: Annotated[float, _say("Seconds one download may take in all.", gt=0)] = 20.0
    max_redirects: Annotated[int, _say("Redirects followed; each hop is checked again.", ge=0)] = 3
    fetch_threads: Annotated[int, _say("Downloads at the same time in one worker.", ge=1)] = 8
    shard_rows: Annotated[int, _say("Most rows in one feature shard.", ge=1)] = 4096


class TrainSettings(Area, frozen=True, kw_only=True):
    """Training policy and runs."""

    first_labels: Annotated[int, _say("Labels that start the first training of a task.", ge=2)] = 20
    growth: Annotated[float, _say("Share of new labels that starts the next training when a task sets no number.", gt=0)] = 0.1
    least_new_labels: Annotated[int, _say("Fewest new labels between two trainings.", ge=1)] = 10
    held_out_share: Annotated[
        float, _say("Share of labelled items kept for gate and model selector, chosen by hash of the item id.", gt=0, lt=0.9)
    ] = 0.2
    comparer_labels: Annotated[int, _say("Newest drafted labels over which the comparer measures agreement.", ge=5)] = 50
    sweep_s: Annotated[float, _say("Seconds between two sweeps of the train master.", gt=0)] = 0.1
    requeue_after_s: Annotated[float, _say("Seconds after which an unanswered hint is queued again.", gt=0)] = 3.0
    lease_s: Annotated[float, _say("Seconds without a new lease file after which a run's attempt counts as dead.", gt=0)] = 3.0
    checkpoint_s: Annotated[float, _say("Seconds between two checkpoints of a run.", gt=0)] = 2.0
    attempts: Annotated[int, _say("Attempts in a row without a new checkpoint after which a run is failed.", ge=1)] = 5
    task_limit_s: Annotated[float, _say("Seconds a Celery task may take.", gt=0)] = 60.0
    distribute_from_s: Annotated[
        float,
        _say(
            "Seconds of steps left from which a run is spread over the train nodes; 0 = every run that can be, waiting up to a"
            " minute for the others before its first step.",
            ge=0,
        ),
    ] = 10.0
    rank_timeout_s: Annotated[float, _say("Seconds after which a silent rank of a run counts as lost.", gt=0)] = 10.0
    gather_s: Annotated[float, _say("Seconds that the ranks left by a lost one are waited for.", gt=0)] = 3.0
    part_samples: Annotated[
        int, _say("Samples of a batch that one data worker takes at a time, so that several share a large batch.", ge=1)
    ] = 100
    keep_versions: Annotated[int, _say("Published versions kept besides the serving one.", ge=1)] = 10


class InferenceSettings(Area, frozen=True, kw_only=True):
    """Prediction, jobs and ranking."""

    chunk_items: Annotated[int, _say("Items in one chunk of a job that must be fetched and embedded.", ge=1)] = 256
    chunks_in_flight: Annotated[int, _say("Chunks of one task queued at the same time, so that tasks take turns.", ge=1)] = 4
    warm_models: Annotated[int, _say("Models kept warm in one worker child.", ge=1)] = 8
    poll_s: Annotated[float, _say("Seconds between two looks at a task's current version.", gt=0)] = 0.1
    requeue_after_s: Annotated[float, _say("Seconds after which a chunk without a result is queued again.", gt=0)] = 5.0
    predict_timeout_s: Annotated[float, _say("Seconds `predict` waits for its workers.", gt=0)] = 20.0
    keep_jobs_s: Annotated[float, _say("Seconds a finished job is kept.", gt=0)] = 86400.0


class BrokerSettings(Area, frozen=True, kw_only=True):
    """The queues between roles. task_limit_s < visibility_timeout_s < consumer_timeout_s is asserted at start."""

    port: Annotated[int, _say("Port of the embedded broker on 127.0.0.1; 0 = a free one, remembered.", ge=0)] = 0
    visibility_timeout_s: Annotated[
        int, _say("Seconds after which an unacknowledged message is delivered again (embedded broker).", ge=5)
    ] = 90
    unacked_restore_interval_s: Annotated[int, _say("Polls between two restores of lost messages (embedded broker).", ge=1)] = 1
    delivery_limit: Annotated[int, _say("Deliveries after which a message is dead.", ge=2)] = 10
    amqp_port: Annotated[int, _say("Port of plain AMQP on 127.0.0.1 (RabbitMQ).", ge=1, le=65535)] = 5672
    amqps_port: Annotated[int, _say("Port of AMQP over mutual TLS on the node's address (RabbitMQ).", ge=1, le=65535)] = 5671
    distribution_port: Annotated[int, _say("Port of Erlang distribution on the node's address (RabbitMQ).", ge=1, le=65535)] = 25672
    memory_bytes: Annotated[
        int, _say("Memory of one RabbitMQ above which it takes no more messages until some are consumed, bytes.", ge=2**27)
    ] = 768 * 2**20
    schedulers: Annotated[int, _say("Scheduler threads of one RabbitMQ.", ge=1)] = 2
    tick_s: Annotated[
        int, _say("Seconds of silence after which RabbitMQ takes a member for dead, give or take a quarter.", ge=4)
    ] = 8
    start_timeout_s: Annotated[float, _say("Seconds RabbitMQ may take to start before it is reported as not ready.", gt=0)] = 60.0
    stuck_after_s: Annotated[
        float, _say("Seconds after which a RabbitMQ that lives but answers nobody is killed and started again.", gt=0)
    ] = 120.0
    consumer_timeout_s: Annotated[
        int, _say("Seconds after which RabbitMQ takes an unacknowledged message away from its worker.", ge=60)
    ] = 600
    heartbeat_s: Annotated[
        float, _say("Seconds between two heartbeats with RabbitMQ; twice that without a sign and the connection is dead.", ge=1)
    ] = 3.0
    confirm_timeout_s: Annotated[float, _say("Seconds RabbitMQ has to confirm a message.", gt=0)] = 3.0


class WebSettings(Area, frozen=True, kw_only=True):
    """The labelling app."""

    host: Annotated[str, _say("Address the app listens on.")] = "127.0.0.1"
    port: Annotated[int, _say("Port the app listens on.", ge=0, le=65535)] = 8080
    database_url: Annotated[str, _say("SQLAlchemy URL; '' = SQLite in the state folder. PostgreSQL: postgresql://...")] = ""
    redis_url: Annotated[str, _say("Redis or Valkey URL of the ranked queue; '' = the embedded one.")] = ""
    media_dir: Annotated[str, _say("Folder of uploaded items; '' = in the state folder. Must be readable by the nodes.")] = ""
    max_upload_bytes: Annotated[int, _say("Largest upload, bytes.", ge=1024)] = 4 * 2**30
    lease_s: Annotated[float, _say("Seconds an annotator holds an item.", gt=0)] = 300.0
    session_s: Annotated[float, _say("Seconds a login lasts.", gt=0)] = 14 * 86400.0
    rate_limit: Annotated[str, _say("Requests per account and minute on the API, in Flask-Limiter's words.")] = "6000 per minute"
    login_rate_limit: Annotated[str, _say("Logins per address, in Flask-Limiter's words.")] = "20 per minute"
    registration: Annotated[
        Literal["closed", "invitation", "open"],
        _say("Who may have an account: whom an admin adds, who has an invitation of an admin or a project's owner, or everybody."),
    ] = "invitation"
    is_secure_cookie: Annotated[bool, _say("Send the session cookie over HTTPS only.")] = False
    workers: Annotated[int, _say("Web server processes.", ge=1)] = 2
    threads: Annotated[int, _say("Threads of one web server process.", ge=1)] = 16
    keep_deleted_s: Annotated[float, _say("Seconds in which a deleted project can be brought back.", ge=0)] = 7 * 86400.0
    allowed_webhook_networks: Annotated[
        tuple[str, ...],
        _say(
            "Networks (10.0.0.0/8) that a webhook may reach although they are not public, separated by commas in the environment."
        ),
    ] = ()
    allowed_import_folders: Annotated[
        tuple[str, ...], _say("Folders on the server from which owners may import; none = closed.")
    ] = ()
    sources_dir: Annotated[
        str, _say("Folder of NAME.toml files (mode 0600) with the url of SQL and S3 sources for imports; '' = none.")
    ] = ""
    export_keep_days: Annotated[float, _say("Days for which an export in the background can be downloaded.", gt=0)] = 7.0
    default_locale: Annotated[str, _say("Language of a browser that asks for neither: en or zh.")] = "en"


class PilotSettings(Area, frozen=True, kw_only=True):
    """The loop between app and cluster."""

    poll_s: Annotated[float, _say("Seconds between two looks at the outbox.", gt=0)] = 0.2
    batch_labels: Annotated[int, _say("Most labels in one submit.", ge=1)] = 256
    resend_after_s: Annotated[float, _say("Seconds after which an unanswered outbox row goes again.", gt=0)] = 10.0
    progress_s: Annotated[float, _say("Seconds between two looks at a task's progress.", gt=0)] = 0.2
    head_items: Annotated[int, _say("Likely-next items that are rescored first.", ge=1)] = 256


class LogSettings(Area, frozen=True, kw_only=True):
    """Logs."""

    level: Annotated[str, _say("DEBUG, INFO, WARNING or ERROR.")] = "INFO"
    is_json: Annotated[bool, _say("One JSON object a line instead of key=value text.")] = False


class Settings(Area, frozen=True, kw_only=True):
    """Every area; `state_dir` holds what a machine keeps for itself (keys, logs, embedded broker, SQLite)."""

    state_dir: Annotated[str, _say("Folder of this machine's own state.")] = "state"
    wire: WireSettings = WireSettings()
    cluster: ClusterSettings = ClusterSettings()
    intake: IntakeSettings = IntakeSettings()
    train: TrainSettings = TrainSettings()
    inference: InferenceSettings = InferenceSettings()
    broker: BrokerSettings = BrokerSettings()
    web: WebSettings = WebSettings()
    pilot: PilotSettings = PilotSettings()
    log: LogSettings = LogSettings()


PREFIX = "LABELLOOP_"
_OF_THE_BOOT = ("LABELLOOP_SETTINGS", "LABELLOOP_VENV", "LABELLOOP_INSTALL")  # start.sh's own, no settings
AREAS: tuple[str, ...] = tuple(f.name for f in msgspec.structs.fields(Settings) if f.name != "state_dir")


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in environment.items():
        if not name.startswith(PREFIX) or name in _OF_THE_BOOT:
            continue
        path = name.removeprefix(PREFIX).lower()
        if path == "state_dir":
            found["state_dir"] = value
            continue
        area, _, field = path.partition("_")
        if area not in AREAS or not field:
            raise SettingsError(f"{name} names no setting: see docs/settings.md")
        found.setdefault(area, {})[field] = value.split(",") if field.startswith("allowed_") else value
    return found


def read_settings(path: Path | None, environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings of `path` (TOML; None = defaults), overridden by `LABELLOOP_*` of `environment`.

    Raises SettingsError that names the field and the way out.
    """
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, tomllib.TOMLDecodeError) as exc:
            raise SettingsError(f"cannot read settings {path}: {exc}") from exc
    for key, value in _from_environment(os.environ if environment is None else environment).items():
        if isinstance(value, dict):
            values.setdefault(key, {}).update(value)
        else:
            values[key] = value
    try:
        settings = msgspec.convert(values, Settings, strict=False)
    except msgspec.ValidationError as exc:
        raise SettingsError(f"settings: {exc}; see docs/settings.md") from exc
    if settings.train.task_limit_s >= settings.broker.visibility_timeout_s:
        raise SettingsError(
            f"train.task_limit_s ({settings.train.task_limit_s}) must be below broker.visibility_timeout_s "
            f"({settings.broker.visibility_timeout_s}), or a running task is delivered twice"
        )
    if settings.broker.visibility_timeout_s >= settings.broker.consumer_timeout_s:
        raise SettingsError(
            f"broker.visibility_timeout_s ({settings.broker.visibility_timeout_s}) must be below broker.consumer_timeout_s "
            f"({settings.broker.consumer_timeout_s}), the longest that any broker waits for a worker"
        )
    return settings


def environment_of(settings: Settings) -> dict[str, str]:
    """Return the `LABELLOOP_*` variables that make `read_settings(None, ...)` give `settings` again (for child processes)."""
    out = {f"{PREFIX}STATE_DIR": settings.state_dir}
    for area in AREAS:
        for field in msgspec.structs.fields(getattr(settings, area)):
            value = getattr(getattr(settings, area), field.name)
            text = ",".join(value) if isinstance(value, tuple) else str(value)
            if not (isinstance(value, tuple) and not value):
                out[f"{PREFIX}{area.upper()}_{field.name.upper()}"] = text
    return out
