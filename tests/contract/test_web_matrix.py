"""A matrix of features as the data set: every form of file, what is refused by row, what is refused as a whole, and going on."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelloop.errors import InvalidInputError
from tests.contract.web_world import Valkey, World, make_settings
from webapp.transfer import importer
from webapp.transfer.importer import Importer
from webapp.transfer.readers import matrix


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, valkey: Valkey) -> Iterator[World]:
    made = World(make_settings(tmp_path_factory.mktemp("matrix"), "", valkey.url))
    yield made
    made.close()


_slugs = (f"m{n}" for n in range(1000))


class Upload:
    """One upload into a project of its own."""

    def __init__(self, world: World, data: bytes, name: str, status: int = 202, category: str = "tables", **form: str) -> None:
        self.world, self.slug = world, next(_slugs)
        world.project(self.slug, category=category)
        self.answer = self.send(data, name, status, **form)

    def send(self, data: bytes, name: str, status: int = 202, **form: str) -> Any:
        body = {"file": (io.BytesIO(data), name), **form}
        answer = self.world.admin.raw("POST", f"/projects/{self.slug}/imports", data=body)
        assert answer.status_code == status, answer.get_data(as_text=True)
        return answer.get_json()

    def run(self) -> Any:
        Importer(self.world.database, self.world.rooms.media, 2**20).run_all()
        return self.world.admin.call("GET", f"/projects/{self.slug}/imports")["imports"][0]

    def rows(self, state: str = "open") -> dict[str, Any]:
        found = self.world.admin.call("GET", f"/projects/{self.slug}/items?state={state}")["items"]
        return {one["item_id"]: one["row"] for one in found}


def npy(x: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    np.save(out, x, **options)
    return out.getvalue()


def npz(compressed: bool = False, **arrays: Any) -> bytes:
    out = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(out, **arrays)
    return out.getvalue()


def parquet(**columns: Any) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(pa.table(columns), out)
    return out.getvalue()


X = np.array([[1.5, 2], [3, -4.25]])
WANTED = [{"f0": 1.5, "f1": 2.0}, {"f0": 3.0, "f1": -4.25}]


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (npy(X), "x.npy"),
        (npy(X.astype("f4")), "x.npy"),
        (npy(np.asfortranarray(X)), "x.npy"),
        (npz(features=X), "x.npz"),
        (npz(compressed=True, x=X), "x.npz"),
        (b"1.5,2\n3,-4.25\n", "x.csv"),
        (b"a;b\n1.5;2\n3;-4.25", "x.csv"),
        (b"\xef\xbb\xbf1.5\t2\r\n3\t-4.25\r\n", "x.tsv"),
        (parquet(a=[1.5, 3.0], b=[2.0, -4.25]), "x.parquet"),
    ],
)
def test_every_form_of_a_matrix_becomes_the_same_rows(world: World, data: bytes, name: str) -> None:
    upload = Upload(world, data, name, kind="matrix")
    job = upload.run()
    assert (job["state"], job["rows_added"], job["rows_failed"]) == ("done", 2, 0)
    assert list(upload.rows().values()) == WANTED
    upload.send(data, name, kind="matrix")
    assert upload.run()["rows_known"] == 2


def test_a_matrix_is_known_by_its_ending_and_brings_labels_and_ids(world: World) -> None:
    x = np.arange(8).reshape(4, 2)
    upload = Upload(world, npz(x=x, y=np.array(["owl", "", "tit", "jay"]), ids=np.array(["a", "b", "c", "d"])), "set.npz")
    assert upload.run()["rows_added"] == 4
    assert list(upload.rows("labelled")) == ["a", "c", "d"] and upload.rows() == {"b": {"f0": 2, "f1": 3}}
    numbered = Upload(world, npz(x=x, y=np.array([0, 2, 1, 3])), "set.npz")
    job = numbered.run()
    assert job["rows_failed"] == 1 and "the project has 3 labels" in job["errors"][0]["reason"]
    columns = Upload(world, b"id,label,p,q\nr1,owl,1,2\nr2,,3,4\n", "set.csv", kind="matrix")
    columns.run()
    assert columns.rows("labelled") == {"r1": {"f0": 1, "f1": 2}} and columns.rows() == {"r2": {"f0": 3, "f1": 4}}


def test_a_row_that_is_no_numbers_is_named_and_the_rest_goes_in(world: World) -> None:
    x = X.copy()
    x[0, 1] = np.nan
    job = Upload(world, npy(x), "x.npy").run()
    assert (job["rows_added"], job["rows_failed"]) == (1, 1)
    assert job["errors"] == [{"line": 1, "name": "", "reason": "f1 is nan: replace it with a finite number"}]
    job = Upload(world, b"1,2\n3,owl\n5\n7,8\n", "x.csv", kind="matrix").run()
    assert [error["line"] for error in job["errors"]] == [2, 3] and job["rows_added"] == 2


@pytest.mark.parametrize(
    ("data", "name", "words"),
    [
        (npy(np.array([[object()]], dtype=object), allow_pickle=True), "evil.npy", "Python objects in dtype"),
        (npz(x=X, y=np.array(["owl"])), "short.npz", "y has 1 entries for 2 rows"),
        (npz(a=X, b=X), "two.npz", "call the matrix of features x"),
        (npy(np.zeros((2, 2, 2))), "cube.npy", "3 dimensions"),
        (npy(np.array([["a"]])), "words.npy", "give numbers"),
        (npy(X)[:40], "cut.npy", "not a matrix"),
        (npz(x=X)[:90], "cut.npz", "not a matrix"),
        (npy(np.zeros((1, 5000))), "wide.npy", "5000 columns"),
        (b"PAR1 and no more", "broken.parquet", "Parquet"),
        (parquet(a=["x"]), "text.parquet", "column 'a' holds string"),
    ],
)
def test_a_file_that_is_no_matrix_is_refused_by_its_name(world: World, data: bytes, name: str, words: str) -> None:
    message = Upload(world, data, name, status=422, kind="matrix").answer["message"]
    assert message.startswith(f"'{name}': ") and words in message


def test_texts_are_not_made_of_a_matrix(world: World) -> None:
    job = Upload(world, npy(X), "x.npy", category="text-classification").run()
    assert job["state"] == "failed" and "use category tables" in job["reason"]


def test_an_import_of_a_matrix_goes_on_where_it_was(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer, "CHUNK_ROWS", 3)
    upload = Upload(world, npz(x=np.arange(20.0).reshape(10, 2)), "x.npz")
    real, seen = matrix._item, []

    def dies(line: int, *given: Any) -> Any:
        seen.append(line)
        if line == 8 and seen.count(8) == 1:
            raise KeyboardInterrupt
        return real(line, *given)

    monkeypatch.setattr(matrix, "_item", dies)
    with pytest.raises(KeyboardInterrupt):
        upload.run()
    monkeypatch.setattr(importer, "STALE_S", -1.0)
    job = upload.run()
    assert (job["state"], job["rows_added"], job["share"]) == ("done", 10, 1.0)
    assert seen.count(1) == 1 and len(upload.rows()) == 10


def test_too_many_rows_are_refused_before_any_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "MOST_ROWS", 1)
    (tmp_path / "x").write_bytes(npy(X))
    with pytest.raises(InvalidInputError, match="2 rows: at most 1"):
        matrix.count_rows(tmp_path / "x")
