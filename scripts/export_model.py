"""`labelloop export-model`: a published version as one ONNX file, for whoever runs models without this cluster.

Owns the command. Must never write below the datastore. Runs where the datastore is mounted: on a node, whose record names the
path, or anywhere with --datastore. Called by scripts.cli.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.commands import NODE_STATE

if TYPE_CHECKING:
    from datastore_layout.models import Manifest

_EXAMPLES = """examples:
  labelloop export-model cats --out cats.onnx                    the version that serves, on a node
  labelloop export-model cats --version model-20261101T101010.000Z-0123456789ab --datastore /mnt/labelloop --out cats.onnx

exit codes:
  0  the file is written; its answers were compared with the model's
  1  no such task or version, a model without an ONNX form, answers that differ, or a file that cannot be written
"""


def register(subparsers: Any) -> None:
    """Add the subcommand."""
    command = subparsers.add_parser(
        "export-model",
        help="write a published model as one ONNX file that gives the same probabilities",
        description="Write a published version as one ONNX file. Its input is what the task's encoder gives (features, or "
        "pixels), its output the calibrated probabilities in the order of the labels; both are named in the file's metadata. "
        "Before it is written its answers are compared with the model's.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.add_argument("task", metavar="TASK", help="name of the task")
    command.add_argument("--version", default="", help="which version (default: the one that serves)")
    command.add_argument("--out", type=Path, required=True, metavar="FILE", help="where the file is written")
    command.add_argument("--datastore", type=Path, metavar="PATH", help="the datastore (default: that of this machine's node)")
    command.add_argument(
        "--node-state", type=Path, default=NODE_STATE, metavar="DIR", help=f"folder of this machine's node (default {NODE_STATE})"
    )
    command.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Export, write and say what was written. Raises LabelloopError."""
    from datastore_layout.models import read_manifest, verified_model_dir
    from datastore_layout.root import open_root, task_folder
    from learning.algorithms import find_algorithm
    from learning.transfer.onnx_export import export

    folder = task_folder(open_root(_datastore(args)), args.task)
    version = args.version or _serving(folder)
    manifest = read_manifest(folder, version)
    model = find_algorithm(manifest.algorithm).load(verified_model_dir(folder, version))
    found = export(model, shape=_picture(manifest.encoder), facts=_facts(manifest))
    _write(args.out, found.data)
    print(
        f"{args.out}: version {version}, {manifest.algorithm} on {manifest.encoder}, {len(found.data)} bytes; "
        f"on {found.rows} rows at most {found.difference:.2g} from the model"
    )
    return 0


def _datastore(args: argparse.Namespace) -> Path:
    from cluster.noderecord import read_record
    from labelloop.errors import SettingsError

    if args.datastore is not None:
        return Path(args.datastore)
    record = read_record(args.node_state)
    if record is None:
        raise SettingsError(f"no node has run in {args.node_state}: give --datastore PATH")
    return Path(record.datastore)


def _serving(folder: Any) -> str:
    from datastore_layout.models import current
    from labelloop.errors import NotFoundError

    pointer = current(folder)
    if pointer is None:
        raise NotFoundError(f"no version of task {folder.task!r} serves yet: give --version")
    return pointer.version


def _picture(encoder: str) -> tuple[int, int, int] | None:
    """Return (height, width, channels) of the pictures that a pixel encoder gives, None for features."""
    from intake.encoders import find_encoder
    from intake.encoders.pixels import DeepPixels

    found = find_encoder(encoder)
    return (found.side, found.side, 1 if found.is_gray else 3) if isinstance(found, DeepPixels) else None


def _facts(manifest: Manifest) -> dict[str, Any]:
    return {
        "task": manifest.task,
        "version": manifest.version,
        "category": manifest.category,
        "labels": manifest.labels,
        "algorithm": manifest.algorithm,
        "encoder": manifest.encoder,
        "preprocess": manifest.preprocess,
        "metrics": manifest.metrics,
    }


def _write(path: Path, data: bytes) -> None:
    from labelloop.errors import InvalidInputError

    beside = path.with_name(f".{path.name}.part")
    try:
        beside.write_bytes(data)
        beside.replace(path)
    except OSError as exc:
        raise InvalidInputError(f"{path} cannot be written: {exc.strerror}; give another --out") from exc
