"""Published models: immutable folders, the numbered pointers that say which one serves, and the gate's verdicts.

Owns `Inference/model-<UTC>-<short hash>/`, `Inference/current/<n>` and `Inference/verdicts/<version>`. The hash in a version's
name is that of its manifest, which holds the SHA-256 of each weight file, so nothing in a model can change unseen. Must never
change or unpickle a model. Called by the train role (publish, advance) and the inference role (current, verified_model_dir).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from datastore_layout import files
from datastore_layout.envelope import seal, unseal
from datastore_layout.root import TaskFolder
from labelloop.decoding import decode_json
from labelloop.errors import IntegrityError, InvalidInputError, NotFoundError
from labelloop.ids import VersionId, parse_token
from labelloop.messages import SCHEMA, Message

MANIFEST = "model.json"
PREFIX = "model-"
_HASH_CHARS = 12
_BLOCK = 4 * 2**20


class Manifest(Message, frozen=True, kw_only=True):
    """What a version is and what it came from; `publish_model` fills in `version`, `created` (UTC, ISO 8601) and `files`."""

    version: str = ""
    task: str
    category: str
    labels: tuple[str, ...]
    algorithm: str
    encoder: str
    parameters: dict[str, Any] = {}
    preprocess: dict[str, Any] = {}
    label_position: str = ""
    n_labels: int = 0
    metrics: dict[str, float] = {}
    parent: str = ""
    run: int = 0
    libraries: dict[str, str] = {}
    files: dict[str, str] = {}
    created: str = ""
    seconds: float = 0.0


class Pointer(Message, frozen=True, kw_only=True):
    """Which version serves since pointer `number`, and why."""

    number: int
    version: str
    reason: str


class Verdict(Message, frozen=True, kw_only=True):
    """What the gate said of a version when it was published."""

    version: str
    is_served: bool
    reason: str


# ---------------------------------------------------------------- versions


def publish_model(folder: TaskFolder, manifest: Manifest, source_dir: Path) -> VersionId:
    """Copy the files of `source_dir` into a new version, complete or not visible at all, and return its name.

    Publishing the same manifest (`created` given) and files again gives the same version. Raises InvalidInputError (another
    task's manifest, a link or a reserved name among the files), StorageFullError.
    """
    if manifest.task != folder.task:
        raise InvalidInputError(f"model of task {manifest.task!r} does not belong into the folder of {folder.task!r}")
    where = folder.ready("Inference")
    beside = files.beside_name(where)
    files.claim_dir(beside)
    try:
        hashes = {name: _copy(path, beside, name) for name, path in _files_below(Path(source_dir))}
        created = manifest.created or _utc(time.time())
        filled = msgspec.structs.replace(manifest, version="", created=created, files=hashes)
        version = _version_of(filled)
        filled = msgspec.structs.replace(filled, version=version)
        files.write_new(beside / MANIFEST, [msgspec.json.format(msgspec.json.encode(filled), indent=2)])
        files.publish_dir(beside, where / version)
    except Exception:
        files.discard_tree(beside)
        raise
    return version


def read_manifest(folder: TaskFolder, version: str) -> Manifest:
    """Return a version's manifest. Raises NotFoundError, InvalidInputError, IntegrityError when a byte of it changed."""
    path = _model_dir(folder, version) / MANIFEST
    try:
        manifest = decode_json(Manifest, files.read_file(path))
    except msgspec.MsgspecError as exc:
        raise IntegrityError(f"{path} is no manifest: {exc}") from exc
    if manifest.schema != SCHEMA:
        raise IntegrityError(f"{path} has schema {manifest.schema}, this build reads {SCHEMA}: upgrade this node")
    if manifest.version != version or _version_of(msgspec.structs.replace(manifest, version="")) != version:
        raise IntegrityError(f"{path} does not match the hash in its folder's name: the model is refused")
    if manifest.task != folder.task:
        raise IntegrityError(f"{path} is a model of task {manifest.task!r}: the model is refused")
    return manifest


def verified_model_dir(folder: TaskFolder, version: str) -> Path:
    """Return the folder of a version after checking each file against its SHA-256.

    Raises NotFoundError, InvalidInputError, IntegrityError naming the file that changed, is missing or was slipped in.
    """
    manifest = read_manifest(folder, version)
    path = _model_dir(folder, version)
    try:
        found = dict(_files_below(path))
    except InvalidInputError as exc:
        raise IntegrityError(str(exc)) from exc
    found.pop(MANIFEST, None)
    if found.keys() != manifest.files.keys():
        odd = sorted(found.keys() ^ manifest.files.keys())
        raise IntegrityError(f"{path} and its manifest differ in {', '.join(odd)}: the model is refused")
    for name, expected in manifest.files.items():
        if _sha256(found[name]) != expected:
            raise IntegrityError(f"{found[name]} does not match its SHA-256: the model is refused")
    return path


def list_versions(folder: TaskFolder) -> tuple[VersionId, ...]:
    """Return the complete versions, oldest first."""
    where = folder.below("Inference")
    names = [name for name in files.list_names(where) if name.startswith(PREFIX)]
    return tuple(VersionId(name) for name in names if files.exists(where / name / MANIFEST))


def _model_dir(folder: TaskFolder, version: str) -> Path:
    if not parse_token(version, "version").startswith(PREFIX):
        raise InvalidInputError(f"version {version!r} is not a name of a model: it starts with {PREFIX!r}")
    path = folder.below("Inference", version)
    if not files.is_real_dir(path):
        raise NotFoundError(f"version {version!r} of task {folder.task!r} does not exist (or was collected)")
    return path


def _utc(now_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now_s)) + f".{int(now_s * 1000) % 1000:03d}Z"


def _version_of(manifest: Manifest) -> VersionId:
    digest = hashlib.sha256(msgspec.json.encode(manifest, order="sorted")).hexdigest()[:_HASH_CHARS]
    stamp = "".join(c for c in manifest.created if c.isalnum() or c == ".").removesuffix("Z")
    return VersionId(parse_token(f"{PREFIX}{stamp}Z-{digest}", "version"))


def _files_below(source: Path) -> Iterator[tuple[str, Path]]:
    for path in sorted(source.rglob("*")):
        name = path.relative_to(source).as_posix()
        if any(part.startswith(".") for part in Path(name).parts):
            continue
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise InvalidInputError(f"{path} is a link or a special file, which a model may not hold")
        if path.is_file():
            yield name, path


def _copy(source: Path, target_dir: Path, name: str) -> str:
    if name == MANIFEST:
        raise InvalidInputError(f"{source}: the name {MANIFEST} is kept for the manifest")
    checksum = hashlib.sha256()

    def blocks() -> Iterator[bytes]:
        with source.open("rb") as file:
            while block := file.read(_BLOCK):
                checksum.update(block)
                yield block

    target = target_dir / name
    files.ensure_dir(target_dir, target.parent)
    files.write_new(target, blocks())
    return checksum.hexdigest()


def _sha256(path: Path) -> str:
    with files.reading(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---------------------------------------------------------------- pointers


def current(folder: TaskFolder) -> Pointer | None:
    """Return the highest pointer, None while no version serves. Raises IntegrityError.

    A reader that must never go back keeps the highest `number` it has seen and ignores lower ones.
    """
    numbers = files.list_numbers(folder.below("Inference", "current"))
    for number in reversed(numbers):
        try:
            return _read_pointer(folder, number)
        except NotFoundError:  # half visible on a lagging mount: the one before it still holds here
            continue
    return None


def advance(folder: TaskFolder, expected_number: int, version: str, reason: str) -> bool:
    """Point at `version` by creating exactly `current/<expected_number + 1>`; 0 = there is no pointer yet.

    Returns False when somebody else moved the pointer first: read `current`, compare again or give up. Raises
    NotFoundError when the version does not exist, InvalidInputError, StorageFullError.
    """
    if expected_number < 0:
        raise InvalidInputError(f"pointer number {expected_number} is below 0")
    if not files.exists(_model_dir(folder, version) / MANIFEST):
        raise NotFoundError(f"version {version!r} of task {folder.task!r} is not complete")
    where = folder.ready("Inference", "current")
    if max(files.list_numbers(where), default=0) != expected_number:
        return False
    pointer = Pointer(number=expected_number + 1, version=version, reason=reason)
    return files.create_exclusive(where / str(pointer.number), *seal("pointer", pointer, is_text=True))


def pointer_history(folder: TaskFolder) -> tuple[Pointer, ...]:
    """Return all pointers, oldest first. Raises IntegrityError."""
    return tuple(_read_pointer(folder, number) for number in files.list_numbers(folder.below("Inference", "current")))


def _read_pointer(folder: TaskFolder, number: int) -> Pointer:
    path = folder.below("Inference", "current", str(number))
    return unseal("pointer", files.read_file(path), Pointer, path)


# ---------------------------------------------------------------- verdicts


def write_verdict(folder: TaskFolder, version: str, is_served: bool, reason: str) -> bool:
    """Record what the gate said of a version; the first verdict stays, False = there was one. Raises StorageFullError."""
    name = parse_token(version, "version")
    verdict = Verdict(version=version, is_served=is_served, reason=reason)
    return files.create_exclusive(folder.ready("Inference", "verdicts") / name, *seal("verdict", verdict, is_text=True))


def read_verdict(folder: TaskFolder, version: str) -> Verdict | None:
    """Return the gate's verdict, None when there is none. Raises IntegrityError."""
    path = folder.below("Inference", "verdicts", parse_token(version, "version"))
    try:
        return unseal("verdict", files.read_file(path), Verdict, path)
    except NotFoundError:
        return None
