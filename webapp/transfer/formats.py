"""The formats of uploads and exports by name: what each can carry, and the module that reads or writes it.

Owns the two tables. Must stay light, for every web process has it: a format's library is imported when a file of it is read or
written. Called by the data views, uploads, importer and exporter.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, cast

import msgspec

from labelloop.errors import InvalidInputError
from webapp.db.projects import Project
from webapp.kinds.catalogue import KINDS, data_of

if TYPE_CHECKING:
    from webapp.transfer.writers.base import Writer

ALL = frozenset(KINDS)
_SHAPES = frozenset({"boxes", "polygons"})


class ExportFormat(msgspec.Struct, frozen=True):
    """One format of exports: file ending and type, the kinds and the data of projects it can carry, and where its writer is."""

    name: str
    title: str
    ending: str
    media_type: str
    kinds: frozenset[str]
    module: str
    writer: str
    data: frozenset[str] = frozenset({"image", "text", "row", "audio", "pair"})


class ImportFormat(msgspec.Struct, frozen=True):
    """One format of uploads: where its reader is. `is_files`: a row is a file, so that a chunk has fewer of them.

    `is_source`: it is read where it is, nothing is uploaded. `endings` by which an upload is known when nobody says what it is.
    """

    name: str
    title: str
    module: str
    reader: str
    kinds: frozenset[str] = ALL
    is_files: bool = False
    is_source: bool = False
    endings: tuple[str, ...] = ()


_JSON, _ZIP = "application/json", "application/zip"
EXPORTS = {
    form.name: form
    for form in (
        ExportFormat("jsonl", "JSON lines", "jsonl", "application/x-ndjson", ALL, "lines", "JsonLinesWriter"),
        ExportFormat("csv", "CSV", "csv", "text/csv; charset=utf-8", ALL, "lines", "CsvWriter"),
        ExportFormat("parquet", "Parquet", "parquet", "application/vnd.apache.parquet", ALL, "parquet", "ParquetWriter"),
        ExportFormat("coco", "COCO", "json", _JSON, _SHAPES | {"keypoints"}, "coco", "CocoWriter"),
        ExportFormat("coco-zip", "COCO + pictures", "zip", _ZIP, _SHAPES | {"keypoints"}, "coco", "CocoZipWriter"),
        ExportFormat("voc", "Pascal VOC", "zip", _ZIP, _SHAPES, "boxes", "VocWriter"),
        ExportFormat("yolo", "YOLO", "zip", _ZIP, _SHAPES, "boxes", "YoloWriter"),
        ExportFormat("masks", "PNG masks", "zip", _ZIP, _SHAPES, "masks", "MasksWriter"),
        ExportFormat("conll", "CoNLL", "conll", "text/plain; charset=utf-8", frozenset({"spans"}), "conll", "ConllWriter"),
        ExportFormat("label-studio", "Label Studio JSON", "json", _JSON, ALL, "label_studio", "LabelStudioWriter"),
        ExportFormat(
            *("folders", "Folders (zip)", "zip", _ZIP, frozenset({"multiclass"}), "folders", "FoldersWriter"),
            data=frozenset({"image", "text", "row"}),
        ),
        ExportFormat("hugging-face", "Hugging Face datasets", "zip", _ZIP, ALL, "hugging_face", "HuggingFaceWriter"),
    )
}
IMPORTS = {
    form.name: form
    for form in (
        ImportFormat("csv", "CSV", "csv_rows", "read_csv", endings=(".csv", ".tsv")),
        ImportFormat("jsonl", "JSON lines", "json_lines", "read_jsonl", endings=(".jsonl", ".ndjson")),
        ImportFormat("links", "Links", "json_lines", "read_links", endings=(".txt",)),
        ImportFormat("zip", "Files (zip)", "files", "read_zip", is_files=True, endings=(".zip",)),
        ImportFormat("folder", "Files", "files", "read_folder", is_files=True),
        ImportFormat("parquet", "Parquet", "parquet", "read_parquet", endings=(".parquet",)),
        ImportFormat("matrix", "Matrix of features", "matrix", "read_vectors", endings=(".npy", ".npz")),
        ImportFormat("coco", "COCO", "coco", "read_coco", _SHAPES | {"keypoints"}),
        ImportFormat("voc", "Pascal VOC", "voc", "read_voc", _SHAPES, is_files=True),
        ImportFormat("yolo", "YOLO", "yolo", "read_yolo", _SHAPES, is_files=True),
        ImportFormat("conll", "CoNLL", "conll", "read_conll", frozenset({"spans", "relations"}), endings=(".conll", ".bio")),
        ImportFormat("label-studio", "Label Studio JSON", "label_studio", "read_label_studio"),
        ImportFormat("server-folder", "Folder on the server", "files", "read_server_folder", is_files=True, is_source=True),
        ImportFormat("listing", "Web or S3 address", "listing", "read_listing", is_files=True, is_source=True),
        ImportFormat("sql", "SQL table", "sql", "read_sql", is_source=True),
    )
}


def exports_of(project: Project) -> list[ExportFormat]:
    """Return the formats that can carry a project's labels."""
    data = data_of(project.category)
    return [form for form in EXPORTS.values() if project.kind in form.kinds and data in form.data]


def imports_of(project: Project) -> list[ImportFormat]:
    """Return the formats that can bring a project items."""
    return [form for form in IMPORTS.values() if project.kind in form.kinds]


def check_export(project: Project, name: str) -> ExportFormat:
    """Return a format that can carry a project's labels. Raises InvalidInputError naming those that can."""
    allowed = {form.name: form for form in exports_of(project)}
    if name not in allowed:
        raise InvalidInputError(f"format {name!r} of a project of kind {project.kind!r}: use one of {', '.join(allowed)}")
    return allowed[name]


def check_import(project: Project, name: str, is_source: bool) -> ImportFormat:
    """Return a format that can bring a project items. Raises InvalidInputError naming those that can."""
    allowed = {form.name: form for form in imports_of(project) if form.is_source == is_source}
    if name not in allowed:
        raise InvalidInputError(f"kind {name!r} for a project of kind {project.kind!r}: use one of {', '.join(allowed)}")
    return allowed[name]


def writer_of(name: str) -> type[Writer]:
    """Return the writer of a format."""
    form = EXPORTS[name]
    return cast("type[Writer]", getattr(importlib.import_module(f"webapp.transfer.writers.{form.module}"), form.writer))


def reader_of(name: str) -> Any:
    """Return the reader of a format: Source → rows."""
    form = IMPORTS[name]
    return getattr(importlib.import_module(f"webapp.transfer.readers.{form.module}"), form.reader)
