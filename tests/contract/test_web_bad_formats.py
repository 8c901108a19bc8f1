"""Bad input in every format: the row is told with its line and reason, the rest goes in, and a second time adds nothing twice; and
what was killed goes on."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from labelloop.errors import InvalidInputError
from tests.contract.test_web_formats import entries, export, exporter, fill, make, picture, project_of
from tests.contract.test_web_transfer import archive, import_file, run_imports, upload
from tests.contract.web_world import Valkey, World, make_settings
from webapp.db import export_jobs, imports
from webapp.transfer import importer
from webapp.transfer.formats import IMPORTS, writer_of
from webapp.transfer.importer import Importer
from webapp.transfer.pictures import checked_size
from webapp.transfer.readers.json_stream import read_elements
from webapp.transfer.writers.base import Writer


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[World]:
    """An app on SQLite with a folder that may be imported from and one of sources."""
    top = tmp_path_factory.mktemp("bad")
    (top / "open").mkdir()
    (top / "sources").mkdir()
    more = {"allowed_import_folders": (str(top / "open"),), "sources_dir": str(top / "sources")}
    made = World(make_settings(top / "state", "", valkey.url, **more))
    yield made
    made.close()


def coco(**more: Any) -> bytes:
    images = [
        {"id": n, "file_name": f"{n}.jpg", "coco_url": f"https://e.org/{n}.jpg", "width": 100, "height": 50} for n in range(4)
    ]
    images.append({"id": 0, "file_name": "twin.jpg", "coco_url": "https://e.org/t.jpg", "width": 1, "height": 1})
    marks: list[dict[str, Any]] = [
        {"id": 1, "image_id": 0, "category_id": 1, "bbox": [10, 10, 20, 20]},
        {"id": 2, "image_id": 1, "category_id": 9, "bbox": [10, 10, 20, 20]},
        {"id": 3, "image_id": 2, "category_id": 1, "bbox": [90, 10, 60, 20]},
        {"id": 4, "image_id": 77, "category_id": 1, "bbox": [1, 1, 2, 2]},
    ]
    told = {"annotations": marks, "images": images, "categories": [{"id": 1, "name": "owl"}], **more}
    return json.dumps(told, indent=0).encode()


XML = "<annotation><filename>{}.jpg</filename><source><url>https://e.org/{}.jpg</url></source><size><width>100</width><height>50</height></size>{}</annotation>"
BOX = "<object><name>{}</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>{}</xmax><ymax>50</ymax></bndbox></object>"
BOMB = '<!DOCTYPE a [<!ENTITY x "xxxxxxxxxx">]><annotation><filename>&x;</filename></annotation>'
CONLL = "Ada\tB-owl\nmet\tO\n\nGrace\tB-heron\n\nalone\n\nnot\tO\nso\tE-owl\n\nParis\tS-tit\n"


def voc() -> bytes:
    good, wide = XML.format("a", "a", BOX.format("owl", 50)), XML.format("b", "b", BOX.format("owl", 500))
    files = {
        "a.xml": good,
        "b.xml": wide,
        "c.xml": "<annotation>",
        "d.xml": BOMB,
        "e.xml": XML.format("e", "e", BOX.format("x", 9)),
    }
    return archive({f"Annotations/{name}": text.encode() for name, text in files.items()})


def yolo() -> bytes:
    texts = {"a": "0 0.5 0.5 0.2 0.2\n", "b": "0 0.5 0.5\n", "c": "7 0.5 0.5 0.2 0.2\n", "d": "0 0.5 0.5 0.2 nan\n"}
    files = {f"labels/{name}.txt": text.encode() for name, text in texts.items()}
    files |= {f"images/{name}.png": picture() for name in "abcd"} | {"images/../../x.png": picture(), "images/z.png": b"no picture"}
    return archive({**files, "data.yaml": b"names: [owl, tit]\n"})


def label_studio() -> bytes:
    def task(n: int, *results: Any) -> dict[str, Any]:
        return {"id": n, "data": {"text": "Ada met Grace"}, "annotations": [{"result": list(results)}]}

    def span(start: int, end: int, text: str, label: str) -> dict[str, Any]:
        return {"id": "a", "type": "labels", "value": {"start": start, "end": end, "text": text, "labels": [label]}}

    tasks = [
        task(1, span(0, 3, "Ada", "owl")),
        task(2, span(0, 3, "Bob", "owl")),
        task(3, span(0, 3, "Ada", "heron")),
        {"id": 4},
        5,
    ]
    return json.dumps([*tasks, task(6, {"type": "brushlabels", "value": {"rle": [1], "brushlabels": ["owl"]}})], indent=1).encode()


def parquet() -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.table({"id": ["a", "b", "c"], "text": ["one", "", "three"], "label": ["owl", None, "heron"]}), out)
    return out.getvalue()


LINES = b'{"id": "a", "text": "one", "label": "owl"}\n{"id": "b"\n{"id": "c"}\n[]\n{"id": "e", "text": "x", "label": "heron"}\n'
CELLS = b'id,text,label\na,"one,\ntwo",owl\nb,,\nc,three,heron\nd,four\ne,five,tit\n'
LINKS = b"https://e.org/a.png\nftp://e.org/b.png\n# no link\nhttps://e.org/c d.png\nhttps://e.org/e.png\n"
TEXTS = {"a.txt": b"one", "b.txt": b" ", "c.txt": b"\xff\xfe", "d.txt": b"four"}


def vectors() -> bytes:
    out = io.BytesIO()
    x = np.array([[1.0, 2], [np.nan, 2], [3, 4], [5, 6]])
    np.savez(out, x=x, y=np.array(["owl", "tit", "heron", ""]), ids=np.array(["a", "b", "c", "d"]))
    return out.getvalue()


class Broken(NamedTuple):
    """A file with broken rows: how many are good, and the line, the name and a word of the reason of each that is not."""

    kind: str
    name: str
    content: bytes | dict[str, bytes]
    n_good: int
    told: list[tuple[int, str, str]]
    category: str = ""


BROKEN = {
    "jsonl": Broken(
        *("multiclass", "a.jsonl", LINES, 1),
        [(2, "", "not a JSON object"), (3, "", "no 'text'"), (4, "", "one object a line"), (5, "", "heron")],
    ),
    "csv": Broken("multiclass", "a.csv", CELLS, 2, [(4, "b", "empty"), (5, "c", "heron"), (6, "d", "2 cells")]),
    "links": Broken("boxes", "a.txt", LINKS, 2, [(2, "ftp://e.org/b.png", "http"), (4, "https://e.org/c d.png", "spaces")]),
    "zip": Broken("multiclass", "a.zip", archive(TEXTS), 2, [(2, "b.txt", "empty"), (3, "c.txt", "UTF-8")]),
    "folder": Broken(
        *("boxes", "", {"a.png": picture(), "b.png": b"no picture", "c.png": picture(colour=9), "d.png": b""}, 2),
        [(2, "b.png", "not an image"), (4, "d.png", "not an image")],
    ),
    "matrix": Broken("multiclass", "a.npz", vectors(), 2, [(2, "b", "finite"), (3, "c", "heron")], "tables"),
    "parquet": Broken("multiclass", "a.parquet", parquet(), 1, [(2, "b", "empty"), (3, "c", "heron")]),
    "coco": Broken(
        *("boxes", "a.json", coco(), 2),
        [(0, "1.jpg", "category_id '9'"), (0, "2.jpg", "reaches out"), (0, "twin.jpg", "id 0"), (0, "annotation 4", "77")],
    ),
    "voc": Broken(
        *("boxes", "a.zip", voc(), 1),
        [(2, "b.xml", "reaches out"), (3, "c.xml", "not XML"), (4, "d.xml", "bomb"), (5, "e.xml", "'x'")],
    ),
    "yolo": Broken(
        *("boxes", "a.zip", yolo(), 1),
        [
            *((2, "b.png", "line 1"), (3, "c.png", "class '7'"), (4, "d.png", "no finite")),
            *((5, "x.png", "points out"), (6, "z.png", "not an image")),
        ],
    ),
    "conll": Broken(
        *("spans", "a.conll", CONLL.encode(), 2), [(0, "Grace", "heron"), (0, "alone", "line 6"), (0, "not", "line 9")]
    ),
    "label-studio": Broken(
        *("spans", "a.json", label_studio(), 1),
        [(0, f"task {n}", word) for n, word in ((2, "'Bob'"), (3, "heron"), (4, "no task"), (5, "no task"), (6, "brushlabels"))],
    ),
}


def test_the_table_of_broken_files_has_every_format_that_is_uploaded() -> None:
    assert set(BROKEN) == {form.name for form in IMPORTS.values() if not form.is_source}


@pytest.mark.parametrize("form", BROKEN)
def test_a_broken_row_is_told_the_rest_goes_in_and_again_adds_nothing(world: World, form: str) -> None:
    given = BROKEN[form]
    slug = make(world, given.kind, f"broken-{form}", given.category)
    files = list(given.content.items()) if isinstance(given.content, dict) else [(given.name, given.content)]
    asked = {} if form == "folder" else {"kind": form}

    def bring() -> dict[str, Any]:
        job = upload(world.admin, slug, files, **asked)
        run_imports(world)
        return dict(world.admin.call("GET", f"/projects/{slug}/imports/{job['id']}"))

    job, again = bring(), bring()
    assert (job["state"], job["rows_added"], job["rows_failed"]) == ("done", given.n_good, len(given.told)), job
    for error, (line, where, reason) in zip(job["errors"], given.told, strict=True):
        assert where in error["name"] and reason in error["reason"] and error["line"] > 0, error
        assert line in (0, error["line"]), error
    assert (again["rows_added"], again["rows_known"], again["rows_failed"]) == (0, given.n_good, len(given.told))
    assert again["errors"] == job["errors"] and len(entries(world, slug)) == given.n_good


@pytest.mark.parametrize(
    ("form", "content", "reason"),
    [
        ("coco", b'{"images": [{"id": 1},\n {"id": ', "line 2"),
        ("coco", b"hello", "begins neither"),
        ("voc", b"PK\x03\x04 no zip", "not a zip"),
        ("yolo", archive({"images/a.png": b""}), "no classes"),
        ("label-studio", b'{"a": 1}', "list of tasks"),
        ("parquet", b"PAR1", "not a Parquet"),
    ],
)
def test_a_file_that_is_not_of_its_format_says_so(world: World, form: str, content: bytes, reason: str) -> None:
    slug = make(world, {"label-studio": "spans", "parquet": "multiclass"}.get(form, "boxes"), f"no-{form}-{len(content)}")
    answer = world.admin.raw(
        *("POST", f"/projects/{slug}/imports"),
        data={"kind": form, "file": [(io.BytesIO(content), "a")]},
        content_type="multipart/form-data",
    )
    said = answer.get_data(as_text=True)
    if answer.status_code == 202:
        Importer(world.database, world.rooms.media, 2**20).run_all()
        job = world.admin.call("GET", f"/projects/{slug}/imports")["imports"][0]
        assert job["state"] == "failed"
        said = job["reason"]
    assert reason in said


def test_a_zip_bomb_a_way_out_and_a_link_are_refused_by_name(world: World) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("bomb.txt", b"0" * 20_000_000)
        made.writestr("../out.txt", b"text")
        link = zipfile.ZipInfo("link.txt")
        link.external_attr = 0o120777 << 16
        made.writestr(link, b"/etc/passwd")
        made.writestr("good.txt", b"text")
    slug = make(world, "multiclass", "bombs")
    job = import_file(world, slug, "a.zip", out.getvalue())
    assert job["rows_added"] == 1 and [e["name"] for e in job["errors"]] == ["bomb.txt", "../out.txt", "link.txt"]
    assert [word in e["reason"] for e, word in zip(job["errors"], ("zip bomb", "points out", "symbolic"), strict=True)] == [
        True
    ] * 3


@pytest.mark.parametrize("size", [(0, 5), (70_000, 5), (60_000, 60_000), ("x", 5), (None, 1), (2.5, 1), (float("inf"), 1)])
def test_a_picture_of_no_or_a_huge_size_is_refused(size: tuple[Any, Any]) -> None:
    with pytest.raises(InvalidInputError):
        checked_size(*size)


@pytest.mark.parametrize("text", ['[1, 2, {"a": [3]}]', '{"x": [1], "y": {"z": 2}, "w": []}', "[]", "{}"])
def test_a_document_read_a_character_at_a_time_is_the_same_document(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webapp.transfer.readers.json_stream.PIECE_CHARS", 1)
    told: dict[str, Any] = {}
    for key, number, _line, value in read_elements(io.StringIO(text)):
        if number < 0:
            told[key] = value
        else:
            told.setdefault(key, []).append(value)
    wanted = json.loads(text)
    assert told == ({k: v for k, v in wanted.items() if v != []} if isinstance(wanted, dict) else {"": wanted} if wanted else {})


# ---------------------------------------------------------------- killed, and on again


class Killed(BaseException):
    """What a process feels of kill -9."""


@pytest.mark.parametrize("form", ["jsonl", "coco", "coco-zip", "yolo", "parquet", "hugging-face", "label-studio"])
def test_an_export_killed_at_any_page_makes_the_same_file(world: World, form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slug = make(world, "boxes", f"killed-{form}")
    fill(world, "boxes", slug)
    monkeypatch.setattr("webapp.transfer.writers.base.Writer.page", 1)
    for name in ("coco.CocoWriter", "coco.CocoZipWriter", "boxes.ZipWriter"):
        monkeypatch.setattr(f"webapp.transfer.writers.{name}.page", 1)
    whole = export(world, slug, form)[1]
    job = world.admin.call("POST", f"/projects/{slug}/exports", {"format": form, "which": "all"}, 202)
    write, calls = Writer.write, []
    own = writer_of(form).write

    def dying(self: Writer, page: Any) -> None:
        own(self, page)
        calls.append(page)
        if len(calls) in (2, 3):
            raise Killed  # after the page is in the files, before its checkpoint

    monkeypatch.setattr(writer_of(form), "write", dying)
    for _ in range(2):
        with pytest.raises(Killed):
            exporter(world).run_all()
        with world.database.write() as tx:
            tx.exec_driver_sql("UPDATE export_jobs SET updated_at = 0")
    assert exporter(world).run_all() == 1 and write is not None
    back = world.admin.raw("GET", f"/projects/{slug}/exports/{job['id']}/file", buffered=True)
    assert back.status_code == 200 and back.data == whole and len(calls) >= 4
    back.close()


def test_an_import_killed_between_chunks_goes_on_and_doubles_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    slug = make(world, "boxes", "killed-import")
    monkeypatch.setattr(importer, "CHUNK_ROWS", 1)
    advance, calls = imports.advance, []

    def dying(*given: Any) -> None:
        advance(*given)
        calls.append(given)
        if len(calls) == 2:
            raise Killed

    monkeypatch.setattr(imports, "advance", dying)
    with pytest.raises(Killed):
        import_file(world, slug, "a.json", coco(), kind="coco")
    with world.database.write() as tx:
        tx.exec_driver_sql("UPDATE import_jobs SET updated_at = 0 WHERE state = 'running'")
    Importer(world.database, world.rooms.media, 2**20).run_all()
    job = world.admin.call("GET", f"/projects/{slug}/imports")["imports"][0]
    assert (job["state"], job["rows_added"], job["rows_failed"], len(entries(world, slug))) == ("done", 2, 4, 2)


def test_cancel_ends_an_import_and_an_export_and_takes_their_files_away(world: World) -> None:
    from webapp.rooms import export_dir, upload_dir

    slug = make(world, "multiclass", "cancelled")
    job = upload(world.admin, slug, [("a.csv", b"text\none\n")])
    assert world.admin.call("POST", f"/projects/{slug}/imports/{job['id']}/cancel")["state"] == "cancelled"
    assert not list(upload_dir(world.settings).glob("upload-*"))
    fill(world, "multiclass", slug)
    done = export(world, slug, "jsonl")[0]
    assert (export_dir(world.settings) / str(done["id"]) / "export").exists()
    world.admin.call("DELETE", f"/projects/{slug}/exports/{done['id']}")
    assert not (export_dir(world.settings) / str(done["id"])).exists()
    world.admin.call("GET", f"/projects/{slug}/exports/{done['id']}", status=404)
    world.admin.call("POST", f"/projects/{slug}/exports", {"format": "coco"}, 422)


def test_old_exports_are_forgotten_with_their_files(world: World) -> None:
    slug = make(world, "multiclass", "old")
    fill(world, "multiclass", slug)
    job = export(world, slug, "jsonl")[0]
    with world.database.write() as tx:
        tx.exec_driver_sql("UPDATE export_jobs SET updated_at = 1")
    exporter(world).sweep(3600)
    with world.database.read() as tx:
        assert job["id"] not in export_jobs.live_ids(tx) and project_of(world, slug)
