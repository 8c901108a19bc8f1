"""The layout of Hugging Face datasets: shards of Parquet in a zip, with a README that names the features.

Owns the features: pictures that lie here are in the Parquet as `Image`, labels of whole items are a `ClassLabel`, or a list of
them. Called by
`webapp.transfer.exporter`.

Layout: https://huggingface.co/docs/datasets/repository_structure; `datasets.load_dataset(folder)` reads it, unpacked.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pyarrow as pa
import yaml

from labelloop.errors import LabelloopError
from webapp.db.export_jobs import Problem
from webapp.db.export_rows import Entry
from webapp.kinds.catalogue import data_of
from webapp.transfer.writers.base import PAGE, PICTURE_PAGE, picture_ending, picture_of, stem_of
from webapp.transfer.writers.parquet import ParquetWriter, packed
from webapp.transfer.writers.zip_stream import ZipStream

_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


class HuggingFaceWriter(ParquetWriter):
    """data/train-*.parquet and README.md in a zip."""

    name = "hugging-face"
    page: ClassVar[int] = PAGE

    def restore(self, state: dict[str, Any]) -> None:
        """Take up the numbers of pages, files and rows."""
        self._is_picture = data_of(self.plan.project.category) == "image"
        self._is_several = self.plan.project.is_multilabel
        self._zip = ZipStream(self.parts, state.get("files", 0))
        self._n: int = state.get("n", 0)
        self.page = PICTURE_PAGE if self._is_picture else PAGE  # type: ignore[misc]
        super().restore(state)

    def state(self) -> dict[str, Any]:
        """Return the numbers of pages, files and rows."""
        return {**super().state(), "files": self._zip.n, "n": self._n}

    def make_schema(self) -> pa.Schema:
        """Return the columns with the features in their metadata, as `datasets` writes them."""
        schema = super().make_schema()
        if self.kind.is_single:
            schema = schema.append(pa.field("label", pa.int64()))
        elif self._is_several:
            schema = schema.append(pa.field("label", pa.list_(pa.int64())))
        if self._is_picture:
            schema = schema.append(pa.field("image", _IMAGE))
        features = {field.name: self._feature(field.name, field.type) for field in schema}
        return schema.with_metadata({"huggingface": msgspec.json.encode({"info": {"features": features}}).decode()})

    def _feature(self, name: str, kind: pa.DataType) -> dict[str, Any]:
        if name == "image":
            return {"_type": "Image"}
        if name == "label" and (self.kind.is_single or self._is_several):
            one = {"names": list(self.labels), "_type": "ClassLabel"}
            return one if self.kind.is_single else {"feature": one, "_type": "List"}
        return _feature(kind)

    def write(self, entries: Sequence[Entry]) -> None:
        """Write a shard."""
        rows = []
        for entry in entries:
            try:
                rows.append(self.row(entry))
            except LabelloopError as exc:
                self.problems.append(Problem(entry.item_id, str(exc)[:500]))
        self._n += len(rows)
        self.keep(pa.Table.from_pylist(rows, self.schema))

    def row(self, entry: Entry) -> dict[str, Any]:
        """Return an item as its columns. Raises LabelloopError."""
        told = super().row(entry)
        if self.kind.is_single:
            told["label"] = self.labels[entry.value.labels[0]] if entry.value and entry.value.labels else None
        elif self._is_several:
            told["label"] = [self.labels[label] for label in entry.value.labels] if entry.value else None
        data = picture_of(self.plan, entry) if self._is_picture else None
        if data is not None:
            told["image"] = {"bytes": data, "path": f"{stem_of(entry)}{picture_ending(data)}"}
            told["link"] = None
        return told

    def keep(self, table: pa.Table) -> None:
        """Put a shard into the zip."""
        self._zip.add(f"data/train-{self.pages:07d}.parquet", packed(table), is_packed=False)
        self.pages += 1

    def finish(self, out: Path) -> None:
        """Add the README and close the zip."""
        self._zip.add("README.md", self._readme().encode())
        self._zip.finish(out)

    def _readme(self) -> str:
        project = self.plan.project
        features = [_yaml(field.name, self._feature(field.name, field.type)) for field in self.schema]
        head = {
            "dataset_info": {"features": features},
            "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*.parquet"}]}],
        }
        text = yaml.safe_dump(head, allow_unicode=True, sort_keys=False)
        told = f"{self._n} items of the project `{project.slug}` ({project.category}, {project.kind})."
        return f"---\n{text}---\n# {project.title}\n\n{told}\n\nLabels: {', '.join(project.labels) or 'none'}.\n"


def _feature(kind: pa.DataType) -> dict[str, Any]:
    """Return a column's type as the JSON of a feature."""
    if pa.types.is_list(kind):
        return {"feature": _feature(kind.value_type), "_type": "List"}
    if pa.types.is_struct(kind):
        return {field.name: _feature(field.type) for field in kind}
    return {"dtype": {"double": "float64"}.get(str(kind), str(kind)), "_type": "Value"}


def _yaml(name: str, feature: dict[str, Any]) -> dict[str, Any]:
    """Return a feature as the README names it."""
    kind = feature.get("_type")
    if kind == "Image":
        return {"name": name, "dtype": "image"}
    if kind == "ClassLabel":
        return {"name": name, "dtype": {"class_label": {"names": {str(at): label for at, label in enumerate(feature["names"])}}}}
    if kind == "Value":
        return {"name": name, "dtype": feature["dtype"]}
    if kind == "List":
        inner = _yaml("", feature["feature"])
        return {"name": name, "list": inner.get("struct", inner.get("dtype"))}
    return {"name": name, "struct": [_yaml(key, inner) for key, inner in feature.items()]}
