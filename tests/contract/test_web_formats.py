"""Formats in and out: each comes back as it went, and the tool that owns the format reads what we write."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.contract.test_web_transfer import import_file
from tests.contract.web_world import Valkey, World, make_settings
from webapp.db.export_rows import Entry, page_after
from webapp.db.items import LABELLED, OPEN
from webapp.db.projects import Project, find_project
from webapp.kinds.values import Value, is_same
from webapp.rooms import export_dir
from webapp.transfer.exporter import Exporter
from webapp.transfer.formats import EXPORTS, IMPORTS, reader_of, writer_of


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[World]:
    """An app on SQLite, for all tests: the formats do not know the database, and each test makes projects of its own."""
    made = World(make_settings(tmp_path_factory.mktemp("formats"), "", valkey.url))
    yield made
    made.close()


def picture(width: int = 100, height: int = 80, colour: int = 0) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), (colour, 100, 100)).save(out, "PNG")
    return out.getvalue()


def mark(name: str, label: str, *where: float) -> dict[str, Any]:
    return {"id": name, "label": label, "where": where}


BOXES = [mark("m1", "owl", 0.1, 0.1, 0.25, 0.5), mark("m2", "tit", 0.5, 0.5, 0.5, 0.25)]
POLYGONS = [mark("m1", "owl", 0.1, 0.1, 0.5, 0.1, 0.3, 0.6), mark("m2", "jay", 0.6, 0.6, 0.9, 0.6, 0.9, 0.9, 0.6, 0.9)]
POINTS = [mark("m1", "owl", 0.1, 0.25), mark("m2", "tit", 0.5, 0.5), mark("m3", "owl", 0.75, 0.75)]
TEXT = "Ada 🦉 met Grace in Paris.\nThey spoke."
SPANS = [mark("m1", "owl", 0, 3), mark("m2", "owl", 10, 15), mark("m3", "tit", 19, 24)]
RELATION = {"label": "jay", "source": "m1", "target": "m2"}
KINDS: dict[str, tuple[str, list[dict[str, Any]]]] = {
    "boxes": ("object-detection", [{"marks": BOXES}, {"is_none": True}, {}]),
    "polygons": ("object-detection", [{"marks": POLYGONS}, {"marks": POLYGONS[:1]}, {}]),
    "keypoints": ("object-detection", [{"marks": POINTS}, {"marks": POINTS[:1]}, {}]),
    "spans": ("token-classification", [{"marks": SPANS}, {"is_none": True}, {}]),
    "relations": ("token-classification", [{"marks": SPANS, "relations": [RELATION]}, {"marks": SPANS[:1]}, {}]),
    "multiclass": ("text-classification", [{"label": "owl"}, {"label": "jay"}, {}]),
    "multilabel": ("text-classification", [{"labels": ["owl", "jay"]}, {"labels": []}, {}]),
    "number": ("regression", [{"number": 2.5}, {"number": -3}, {}]),
    "free-text": ("writing", [{"value": {"text": "a line\nand another"}}, {"value": {"text": "ü"}}, {}]),
    "segments": ("audio", [{"marks": [mark("m1", "owl", 0.5, 2.25)]}, {"marks": [mark("m1", "tit", 1, 3)]}, {}]),
}
HAS_NO_LABELS = ("number", "free-text")


def make(world: World, kind: str, slug: str, category: str = "") -> str:
    """Create a project of a kind, in its usual category or another one."""
    labels = [] if kind in HAS_NO_LABELS else ["owl", "tit", "jay"]
    return world.project(slug, category=category or KINDS[kind][0], kind=kind, labels=labels)


def fill(world: World, kind: str, slug: str) -> None:
    """Import the three items of a kind: pictures and sounds by links, with a size where there is one."""
    lines = []
    for at, said in enumerate(KINDS[kind][1]):
        content = {
            "object-detection": {"link": local(world, slug, at)},
            "audio": {"link": f"https://example.org/{at}.wav"},
            "regression": {"row": {"size": at + 0.5, "name": "x"}},
        }.get(KINDS[kind][0], {"text": f"{TEXT} {at}" if at else TEXT})
        lines.append(json.dumps({"id": f"item {at}", **content, **said}))
    job = import_file(world, slug, "a.jsonl", "\n".join(lines).encode())
    assert (job["rows_added"], job["errors"]) == (3, [])


def local(world: World, slug: str, at: int) -> str:
    return world.rooms.media.save(slug, picture(100 + 10 * at, 80, at), "png")


def export(world: World, slug: str, form: str, status: str = "done", **options: Any) -> tuple[dict[str, Any], bytes]:
    """Export in the background and download the file."""
    job = world.admin.call("POST", f"/projects/{slug}/exports", {"format": form, "which": "all", **options}, 202)
    exporter(world).run_all()
    job = world.admin.call("GET", f"/projects/{slug}/exports/{job['id']}")
    assert job["state"] == status, job
    if not job["file"]:
        return job, b""
    answer = world.admin.raw("GET", job["file"].removeprefix("/api/v1"), buffered=True)
    data = answer.data
    answer.close()
    assert answer.status_code == 200 and len(data) == job["size_bytes"]
    return job, bytes(data)


def exporter(world: World) -> Exporter:
    return Exporter(world.database, world.rooms.media, export_dir(world.settings))


def project_of(world: World, slug: str) -> Project:
    with world.database.read() as tx:
        return find_project(tx, slug)


def entries(world: World, slug: str) -> dict[str, Entry]:
    """Return what is in a project, by item id."""
    project = project_of(world, slug)
    with world.database.read() as tx:
        return {e.item_id: e for state in (LABELLED, OPEN) for e in page_after(tx, project, state, -1, 1000, {}, True)}


ROUND_TRIPS = [
    (kind, form)
    for kind in KINDS
    for form, told in EXPORTS.items()
    if kind in told.kinds and form not in ("masks", "folders", "csv") and (kind, form) != ("polygons", "voc")
]
AS_IMPORT = {"hugging-face": "parquet", "coco-zip": "coco"}


def as_uploads(form: str, data: bytes) -> list[tuple[str, bytes]]:
    """Return names and bytes of uploads of what was exported."""
    if form != "hugging-face":
        return [(f"back.{EXPORTS[form].ending}", data)]
    with zipfile.ZipFile(io.BytesIO(data)) as made:
        return [(name, made.read(name)) for name in made.namelist() if name.endswith(".parquet")]


@pytest.mark.parametrize(("kind", "form"), ROUND_TRIPS)
def test_what_is_exported_comes_back_as_it_was(world: World, kind: str, form: str) -> None:
    first, second = make(world, kind, f"{kind}-{form}"), make(world, kind, f"{kind}-{form}-back")
    fill(world, kind, first)
    job, data = export(world, first, form, with_drafts=True, with_annotator=True, with_time=True, with_version=True)
    assert (job["items"], job["refused"]) == (3, 0)
    backs = [import_file(world, second, *one, kind=AS_IMPORT.get(form, form)) for one in as_uploads(form, data)]
    assert ([e for back in backs for e in back["errors"]], sum(back["rows_added"] for back in backs)) == ([], 3)
    before, after = entries(world, first), entries(world, second)
    assert set(after) == set(before)
    for item_id, entry in before.items():
        assert are_same(after[item_id].value, entry.value), (item_id, entry.value, after[item_id].value)
        assert after[item_id].content == entry.content
    agains = [import_file(world, second, *one, kind=AS_IMPORT.get(form, form)) for one in as_uploads(form, data)]
    assert (sum(again["rows_added"] for again in agains), sum(again["rows_known"] for again in agains)) == (0, 3)


def are_same(one: Value | None, other: Value | None) -> bool:
    """Return whether two values say the same; nothing marked is 'none of the labels'."""
    if one is None or other is None:
        return one is other
    blank = Value(is_none=True)
    return is_same(blank if one == Value() else one, blank if other == Value() else other)


def test_every_format_has_its_reader_or_writer() -> None:
    assert all(writer_of(name).name == name for name in EXPORTS)
    assert all(callable(reader_of(name)) for name in IMPORTS)


# ---------------------------------------------------------------- read back by the tools that own the formats


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
def test_coco_is_read_by_pycocotools(world: World, tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    for kind, ann_type in (("boxes", "bbox"), ("polygons", "segm"), ("keypoints", "keypoints")):
        slug = make(world, kind, f"pycoco-{kind}")
        fill(world, kind, slug)
        (tmp_path / kind).write_bytes(export(world, slug, "coco")[1])
        coco = COCO(str(tmp_path / kind))
        assert len(coco.getImgIds()) == 3 and coco.loadImgs(1)[0]["width"] == 100
        found = coco.loadAnns(coco.getAnnIds(imgIds=1))
        if ann_type == "bbox":
            assert [one["bbox"] for one in found] == [[10, 8, 25, 40], [50, 40, 50, 20]]
            assert [coco.loadCats(one["category_id"])[0]["name"] for one in found] == ["owl", "tit"]
        if ann_type == "segm":
            mask = coco.annToMask(found[1])
            assert mask.shape == (80, 100) and abs(int(mask.sum()) - 30 * 24) <= 60
        if ann_type == "keypoints":
            assert coco.loadCats(1)[0]["keypoints"] == ["owl", "tit", "jay"]
            assert [one["num_keypoints"] for one in found] == [2, 1] and found[0]["keypoints"][:3] == [10, 20, 2]


def test_tables_are_read_by_pandas_and_pyarrow(world: World, tmp_path: Path) -> None:
    import pandas
    import pyarrow.parquet

    slug = make(world, "multilabel", "by-pandas")
    fill(world, "multilabel", slug)
    for form in ("jsonl", "csv", "parquet"):
        (tmp_path / form).write_bytes(export(world, slug, form, with_annotator=True, with_time=True)[1])
    lines, cells = pandas.read_json(tmp_path / "jsonl", lines=True), pandas.read_csv(tmp_path / "csv")
    assert list(lines["id"]) == list(cells["id"]) == ["item 0", "item 1", "item 2"]
    assert lines["labels"][0] == ["owl", "jay"] and cells["label"][0] == "owl|jay" and cells["annotator"][0] == "ada"
    table = pyarrow.parquet.read_table(tmp_path / "parquet")
    assert table["labels"].to_pylist() == [["owl", "jay"], [], None] and table["text"][0].as_py() == TEXT
    assert pandas.read_parquet(tmp_path / "parquet")["labelled_at"][0].startswith("20")


@pytest.mark.parametrize("kind", ["multiclass", "multilabel", "boxes", "relations", "number"])
def test_the_layout_of_hugging_face_is_read_by_datasets(world: World, tmp_path: Path, kind: str) -> None:
    import datasets

    slug = make(world, kind, f"by-datasets-{kind}")
    fill(world, kind, slug)
    with zipfile.ZipFile(io.BytesIO(export(world, slug, "hugging-face", with_version=True)[1])) as made:
        made.extractall(tmp_path / "set")
    rows = datasets.load_dataset(str(tmp_path / "set"), split="train", cache_dir=str(tmp_path / "cache"))
    assert list(rows["id"]) == ["item 0", "item 1", "item 2"]
    named = datasets.load_dataset_builder(str(tmp_path / "set"), cache_dir=str(tmp_path / "cache")).info.features
    assert named == rows.features
    if kind == "multiclass":
        assert rows.features["label"].names == ["owl", "tit", "jay"] and rows["label"][:2] == [0, 2]
    if kind == "multilabel":
        assert rows.features["label"].feature.names == ["owl", "tit", "jay"] and rows["label"][:] == [[0, 2], [], None]
    if kind == "boxes":
        assert rows[0]["image"].size == (100, 80) and rows[0]["marks"][0]["where"] == [0.1, 0.1, 0.25, 0.5]
    if kind == "relations":
        assert rows[0]["relations"] == [RELATION]
    if kind == "number":
        assert rows["number"][:2] == [2.5, -3.0]


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_numbers_of_classes_that_datasets_wrote_come_in_as_their_names(world: World, tmp_path: Path, kind: str) -> None:
    import datasets
    import pyarrow
    import pyarrow.parquet

    classes = datasets.ClassLabel(names=["tit", "owl", "heron"])  # not in the project's order, and one that it does not have
    label: Any = classes if kind == "multiclass" else datasets.List(classes)
    given = [1, "tit", -1, 2] if kind == "multiclass" else [[1, 0], ["tit"], [], [2]]
    texts = {"id": list("abcd"), "text": [f"text {at}" for at in range(4)]}
    features = datasets.Features({"id": datasets.Value("string"), "text": datasets.Value("string"), "label": label})
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict({**texts, "label": given}, features=features).to_parquet(tmp_path / "a.parquet")
    slug = make(world, kind, f"numbers-of-{kind}")
    job = import_file(world, slug, "a.parquet", (tmp_path / "a.parquet").read_bytes())
    assert [(error["name"], "heron" in error["reason"]) for error in job["errors"]] == [("d", True)]
    said = {name: entry.value and sorted(entry.value.labels) for name, entry in entries(world, slug).items()}
    wanted = {"a": ["owl"], "b": ["tit"], "c": None} if kind == "multiclass" else {"a": ["owl", "tit"], "b": ["tit"], "c": []}
    assert said == wanted
    table = pyarrow.parquet.read_table(tmp_path / "a.parquet")
    numbers = pyarrow.array([0, 9, 1, 1] if kind == "multiclass" else [[0], [9], [1], [1]], table["label"].type)
    pyarrow.parquet.write_table(table.set_column(2, table.field("label"), numbers), tmp_path / "b.parquet")
    job = import_file(world, slug, "b.parquet", (tmp_path / "b.parquet").read_bytes())
    assert [(e["line"], e["name"]) for e in job["errors"]] == [(2, "b")] and "class 9: the file names 3" in job["errors"][0][
        "reason"
    ]


LS_CONTROLS = {  # kind: the tag of what is labelled, the control, its choices
    "boxes": ("Image", "RectangleLabels", "Label"),
    "polygons": ("Image", "PolygonLabels", "Label"),
    "keypoints": ("Image", "KeyPointLabels", "Label"),
    "segments": ("Audio", "Labels", "Label"),
    "spans": ("Text", "Labels", "Label"),
    "relations": ("Text", "Labels", "Label"),
    "multiclass": ("Text", "Choices", "Choice"),
    "multilabel": ("Text", "Choices", "Choice"),
    "free-text": ("Text", "TextArea", ""),
}


@pytest.mark.parametrize("kind", LS_CONTROLS)
def test_label_studio_json_is_read_by_its_own_converter(world: World, tmp_path: Path, kind: str) -> None:
    from label_studio_sdk.converter.converter import Converter

    slug = make(world, kind, f"by-label-studio-{kind}")
    fill(world, kind, slug)
    (tmp_path / "tasks.json").write_bytes(export(world, slug, "label-studio", which="labelled")[1])
    data, control, choice = LS_CONTROLS[kind]
    choices = "".join(f'<{choice} value="{label}"/>' for label in ("owl", "tit", "jay")) if choice else ""
    head = f'<{data} name="{data.lower()}" value="${data.lower()}"/>'
    config = f'<View>{head}<{control} name="label" toName="{data.lower()}">{choices}</{control}></View>'
    made, tasks, out = Converter(config, str(tmp_path), download_resources=False), str(tmp_path / "tasks.json"), tmp_path / "out"
    made.convert_to_json_min(tasks, str(out), is_dir=False)
    rows = json.loads((out / "result.json").read_text())
    assert [row["item_id"] for row in rows] == ["item 0", "item 1"][: len(rows)] and rows
    first = rows[0].get("label")
    if kind in ("boxes", "polygons"):
        made.convert_to_coco(tasks, str(out), is_dir=False)
        found = json.loads((out / "result.json").read_text())["annotations"]
        boxes = {"boxes": [[10, 8, 25, 40], [50, 40, 50, 20]], "polygons": [[10, 8, 40, 40], [60, 48, 30, 24], [11, 8, 44, 40]]}
        assert [[round(v, 3) for v in one["bbox"]] for one in found] == boxes[kind]
    elif kind == "keypoints":
        assert [(p["x"], p["y"], p["keypointlabels"]) for p in first[:2]] == [(10, 25, ["owl"]), (50, 50, ["tit"])]
    elif kind == "segments":
        assert [(one["start"], one["end"], one["labels"]) for one in first] == [(0.5, 2.25, ["owl"])]
    elif kind == "spans":
        made.convert_to_conll2003(tasks, str(out), is_dir=False)
        assert "Ada -X- _ B-owl" in (out / "result.conll").read_text()
    elif kind == "relations":
        assert [one["text"] for one in first] == ["Ada", "Grace", "Paris"]
    else:
        said = {"multiclass": "owl", "multilabel": {"choices": ["owl", "jay"]}, "free-text": "a line\nand another"}
        assert first == said[kind]


def test_yolo_is_read_by_the_importer_of_label_studio(world: World, tmp_path: Path) -> None:
    from label_studio_sdk.converter.imports.yolo import convert_yolo_to_ls

    slug = make(world, "boxes", "yolo-by-label-studio")
    fill(world, "boxes", slug)
    with zipfile.ZipFile(io.BytesIO(export(world, slug, "yolo", which="labelled")[1])) as made:
        made.extractall(tmp_path)
    convert_yolo_to_ls(str(tmp_path), str(tmp_path / "tasks.json"))
    found = [
        [round(r["value"][side]) for side in ("x", "y", "width", "height")]
        for task in json.loads((tmp_path / "tasks.json").read_text())
        for r in (task.get("annotations") or [{"result": ()}])[0]["result"]
    ]
    assert found == [[10, 10, 25, 50], [50, 50, 50, 25]]


@pytest.mark.parametrize("scheme", ["bio", "bioes"])
def test_conll_is_read_by_the_corpus_reader_of_nltk(
    world: World, tmp_path: Path, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nltk
    from nltk.corpus.reader import ConllCorpusReader

    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])  # the folders that it agrees to read
    slug = make(world, "spans", f"by-nltk-{scheme}")
    fill(world, "spans", slug)
    lines = export(world, slug, "conll", which="labelled", scheme=scheme)[1].decode().splitlines(keepends=True)
    (tmp_path / "a.conll").write_text("".join(line for line in lines if not line.startswith("# ")))
    reader = ConllCorpusReader(str(tmp_path), "a.conll", ("words", "pos"), separator="\t")
    first = reader.tagged_sents()[0]
    mine = {word: tag for word, tag in first if tag != "O"}
    assert list(mine) == ["Ada", "Grace", "Paris"] and first[0][1] == ("S-owl" if scheme == "bioes" else "B-owl")


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")
@pytest.mark.parametrize("kind", ["boxes", "polygons"])
def test_masks_are_those_that_pycocotools_draws(world: World, tmp_path: Path, kind: str) -> None:
    import numpy as np
    from pycocotools import mask as rle
    from pycocotools.coco import COCO

    slug = make(world, kind, f"masks-by-pycoco-{kind}")
    fill(world, kind, slug)
    (tmp_path / "coco").write_bytes(export(world, slug, "coco", which="labelled")[1])
    coco = COCO(str(tmp_path / "coco"))
    with zipfile.ZipFile(io.BytesIO(export(world, slug, "masks", which="labelled")[1])) as made:
        told = json.loads(made.read("items.jsonl").splitlines()[0])
        drawn = np.asarray(Image.open(io.BytesIO(made.read(told["mask"]))))
    for one in coco.loadAnns(coco.getAnnIds(imgIds=1)):
        ours = rle.encode(np.asfortranarray((drawn == one["category_id"]).astype(np.uint8)))
        x, y, w, h = one["bbox"]
        shape = one["segmentation"] if one.get("segmentation") else [[x, y, x + w, y, x + w, y + h, x, y + h]]
        theirs = rle.merge(rle.frPyObjects(shape, *drawn.shape))
        assert rle.iou([ours], [theirs], [0])[0, 0] > (0.999 if kind == "boxes" else 0.98)


def test_masks_have_a_number_a_label_where_its_shape_is(world: World) -> None:
    import numpy as np

    slug = make(world, "boxes", "masks")
    fill(world, "boxes", slug)
    with zipfile.ZipFile(io.BytesIO(export(world, slug, "masks")[1])) as made:
        assert made.read("classes.txt").decode().splitlines() == ["_background_", "owl", "tit", "jay"]
        [first, *_] = [name for name in made.namelist() if name.endswith(".png")]
        mask = np.asarray(Image.open(io.BytesIO(made.read(first))))
    wanted = np.zeros((80, 100), np.uint8)
    wanted[8:48, 10:35], wanted[40:60, 50:100] = 1, 2
    assert np.array_equal(mask, wanted)


def test_folders_come_back_with_their_labels(world: World) -> None:
    first, second = make(world, "multiclass", "folders"), make(world, "multiclass", "folders-back")
    fill(world, "multiclass", first)
    job, data = export(world, first, "folders")
    assert job["refused"] == 1 and job["problems"][0]["item_id"] == "item 2" and "no label" in job["problems"][0]["reason"]
    assert import_file(world, second, "a.zip", data, labels_by_folder="true")["rows_added"] == 2
    assert sorted(e.value.labels for e in entries(world, second).values() if e.value) == [("jay",), ("owl",)]
