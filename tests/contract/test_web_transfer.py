"""Uploads, imports and exports: bad rows are told, the rest goes in, a killed import goes on, nothing comes in twice."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.contract.web_world import Client, World
from webapp.transfer import importer
from webapp.transfer.importer import Importer

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b550000000a49444154789c6360000000020001481ed7a50000000049454e44ae426082"
)


def upload(client: Client, slug: str, files: list[tuple[str, bytes]], status: int = 202, **options: str) -> Any:
    data = {**options, "file": [(io.BytesIO(content), name) for name, content in files]}
    answer = client.raw("POST", f"/projects/{slug}/imports", data=data, content_type="multipart/form-data")
    assert answer.status_code == status, answer.get_data(as_text=True)
    return answer.get_json()


def run_imports(world: World) -> int:
    return Importer(world.database, world.rooms.media, world.settings.intake.max_item_bytes).run_all()


def import_file(world: World, slug: str, name: str, content: bytes, **options: str) -> Any:
    job = upload(world.admin, slug, [(name, content)], **options)
    run_imports(world)
    return world.admin.call("GET", f"/projects/{slug}/imports/{job['id']}")


def exported(world: World, slug: str, which: str = "labelled") -> list[dict[str, Any]]:
    text = world.admin.raw("GET", f"/projects/{slug}/export?format=jsonl&which={which}").get_data(as_text=True)
    return [json.loads(line) for line in text.splitlines()]


def archive(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name, content in files.items():
            made.writestr(name, content)
    return out.getvalue()


def test_a_csv_goes_in_row_by_row_and_bad_rows_are_told_by_line(world: World) -> None:
    slug = world.project()
    text = 'id,text,label\na,"one, with\na line break",owl\nb,,\nc,three,penguin\nd,four\ne,fünf,\n'
    job = import_file(world, slug, "birds.csv", text.encode())
    assert (job["state"], job["rows_added"], job["rows_failed"]) == ("done", 2, 3)
    errors = {error["line"]: error["reason"] for error in job["errors"]}
    assert "empty" in errors[4] and "'penguin'" in errors[5] and "2 cells where the header names 3" in errors[6]
    rows = {row["id"]: row for row in exported(world, slug, "all")}
    assert rows["a"]["text"] == "one, with\na line break" and rows["a"]["labels"] == ["owl"] and rows["e"]["text"] == "fünf"
    status = world.admin.call("GET", f"/projects/{slug}/status")
    assert (status["items"], status["labels"], status["outbox"]) == (2, 1, 1)


def test_importing_the_same_file_again_adds_nothing(world: World) -> None:
    slug = world.project()
    content = b"text\nfirst\nsecond\n"
    assert import_file(world, slug, "a.csv", content)["rows_added"] == 2
    again = import_file(world, slug, "b.csv", content)
    assert (again["rows_added"], again["rows_known"]) == (0, 2)
    assert world.admin.call("GET", f"/projects/{slug}/status")["items"] == 2


def test_a_csv_without_the_column_says_which_it_has(world: World) -> None:
    slug = world.project()
    job = import_file(world, slug, "a.csv", b"title,body\nx,y\n")
    assert job["state"] == "failed" and "no column 'text'" in job["reason"] and "title, body" in job["reason"]
    job = import_file(world, slug, "a.csv", b"title,body\nx,y\n", text_column="bodi")
    assert "no column 'bodi'" in job["reason"]
    assert import_file(world, slug, "a.csv", b"title,body\nx,y\n", text_column="body")["rows_added"] == 1


def test_table_rows_keep_numbers_as_numbers(world: World) -> None:
    slug = world.project("cells", category="tables")
    import_file(world, slug, "a.csv", b"id,size,kind,note,label\n1,2.5,a,,owl\n2,-3,b,x,\n")
    rows = {row["id"]: row for row in exported(world, slug, "all")}
    assert rows["1"]["row"] == {"size": 2.5, "kind": "a", "note": None} and rows["2"]["row"]["size"] == -3


def test_jsonl_takes_texts_links_and_labels_and_tells_bad_lines(world: World) -> None:
    slug = world.project()
    lines = [
        '{"id": "a", "text": "one", "label": "owl"}',
        '{"id": "b", "link": "https://example.org/b.txt"}',
        "not json",
        '["a list"]',
        '{"id": "c"}',
        '{"text": "nul \\u0000"}',
        '{"id": "d", "link": "ftp://example.org/x"}',
    ]
    job = import_file(world, slug, "a.jsonl", "\n".join(lines).encode())
    assert (job["rows_added"], job["rows_failed"]) == (2, 5)
    assert [error["line"] for error in job["errors"]] == [3, 4, 5, 6, 7]


def test_bytes_that_are_not_utf8_are_told_and_the_rest_goes_in(world: World) -> None:
    slug = world.project()
    job = import_file(world, slug, "a.csv", b"text\ngood\nb\xe4d\nalso good\n")
    assert (job["rows_added"], job["rows_failed"]) == (2, 1) and "UTF-8" in job["errors"][0]["reason"]


def test_a_zip_of_images_is_kept_by_content_and_served_to_members_only(world: World) -> None:
    slug = world.project("pics", category="image-classification")
    content = archive(
        {"owl/1.png": PNG, "tit/2.png": PNG + b"x", "owl/broken.png": b"no image", "__MACOSX/owl/1.png": b"", ".hidden": b""}
    )
    job = import_file(world, slug, "birds.zip", content, labels_by_folder="true")
    assert (job["state"], job["rows_added"], job["rows_failed"]) == ("done", 2, 1)
    assert job["errors"][0]["name"] == "owl/broken.png" and "not an image" in job["errors"][0]["reason"]
    rows = {row["id"]: row for row in exported(world, slug)}
    assert rows["owl/1.png"]["labels"] == ["owl"] and rows["tit/2.png"]["labels"] == ["tit"]
    assert rows["owl/1.png"]["link"].startswith(f"file://{world.rooms.media.folder}/pics/")
    world.admin.call("DELETE", f"/projects/{slug}/annotations/owl/1.png")
    [item] = world.admin.call("POST", f"/projects/{slug}/next", {"n": 1, "holding": []})["items"]
    bob, outsider = world.person("bob", slug), world.person("eve")
    media = item["media"]
    for client, status in ((bob, 200), (outsider, 404)):
        csrf = client.http.get("/api/v1/session", headers=client._headers).get_json()
        assert csrf["name"]
        logged = world.app.test_client()
        name = csrf["name"]
        logged.post("/api/v1/session", json={"name": name, "password": "correct horse"})
        answer = logged.get(media, buffered=True)
        assert answer.status_code == status
        answer.close()
        if status == 200:
            assert answer.data == PNG and answer.headers["Content-Type"] == "image/png" and "ETag" in answer.headers
            assert logged.get(media, headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304
            assert logged.get(f"/media/{slug}/..%2f..%2fweb-secret-key").status_code == 404


def test_several_images_in_one_upload_are_one_import(world: World) -> None:
    slug = world.project("pics", category="image-classification")
    job = upload(world.admin, slug, [("a.png", PNG), ("b.png", PNG + b"1"), ("c.txt", b"https://example.org/c.png\n")])
    assert len(job["imports"]) == 2
    run_imports(world)
    states = world.admin.call("GET", f"/projects/{slug}/imports")["imports"]
    assert {state["state"] for state in states} == {"done"}
    assert {row["id"] for row in exported(world, slug, "all")} >= {"a.png", "b.png"}
    assert list((Path(world.settings.state_dir) / "uploads").iterdir()) == []


def test_a_broken_zip_is_refused_at_the_door(world: World) -> None:
    slug = world.project("pics", category="image-classification")
    said = upload(world.admin, slug, [("birds.zip", b"PK but no zip")], status=422)
    assert "not a zip archive" in said["message"]


def test_an_import_killed_between_two_chunks_goes_on_where_it_was(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    slug = world.project()
    rows = "".join(f'{n},"text {n}\nsecond line"\n' for n in range(100))
    monkeypatch.setattr(importer, "CHUNK_ROWS", 10)
    monkeypatch.setattr(importer, "STALE_S", 0.0)
    upload(world.admin, slug, [("a.csv", b"id,text\n" + rows.encode())])
    dying = Importer(world.database, world.rooms.media, 10**6)
    real, chunks = dying._write, iter(range(100))

    def write(*given: Any) -> None:
        if next(chunks) == 4:
            raise KeyboardInterrupt
        real(*given)

    monkeypatch.setattr(dying, "_write", write)
    with pytest.raises(KeyboardInterrupt):
        dying.run_all()
    assert world.admin.call("GET", f"/projects/{slug}/status")["items"] == 40
    assert world.admin.call("GET", f"/projects/{slug}/imports")["imports"][0]["state"] == "running"
    assert run_imports(world) == 1
    job = world.admin.call("GET", f"/projects/{slug}/imports")["imports"][0]
    assert (job["state"], job["rows_added"], job["rows_known"], job["rows_failed"]) == ("done", 100, 0, 0)
    assert {row["text"] for row in exported(world, slug, "all")} == {f"text {n}\nsecond line" for n in range(100)}


def test_an_import_that_another_process_took_over_writes_nothing_more(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    slug = world.project()
    monkeypatch.setattr(importer, "STALE_S", 0.0)
    monkeypatch.setattr(importer, "CHUNK_ROWS", 2)
    upload(world.admin, slug, [("a.csv", b"text\none\ntwo\nthree\nfour\n")])
    frozen = Importer(world.database, world.rooms.media, 10**6)
    real = frozen._write

    def write(*given: Any) -> None:
        run_imports(world)
        real(*given)

    monkeypatch.setattr(frozen, "_write", write)
    frozen.run_all()
    job = world.admin.call("GET", f"/projects/{slug}/imports")["imports"][0]
    assert (job["state"], job["rows_added"], job["rows_known"]) == ("done", 4, 0)
    assert world.admin.call("GET", f"/projects/{slug}/status")["items"] == 4


def test_an_export_as_csv_reads_back_as_what_went_in(world: World) -> None:
    slug = world.project(kind="multilabel")
    odd = 'quote " comma , line\nbreak ü €'
    items = [
        {"id": "a", "text": odd, "labels": ["owl", "jay"]},
        {"id": "b", "text": "none", "labels": []},
        {"id": "c", "text": "open"},
    ]
    answer = world.admin.call("POST", f"/projects/{slug}/items", {"items": items})
    assert answer == {"added": 3, "known": 0, "failed": []}
    text = world.admin.raw("GET", f"/projects/{slug}/export?format=csv").get_data(as_text=True)
    rows = {row["id"]: row for row in csv.DictReader(io.StringIO(text, newline=""))}
    assert rows["a"]["content"] == odd and rows["a"]["labels"] == "owl|jay" and rows["a"]["annotator"] == "ada"
    assert rows["b"]["labels"] == "" and "c" not in rows
    assert world.admin.call("GET", f"/projects/{slug}/export?format=xls", None, 422)["code"] == "invalid_input"


def test_more_than_ten_thousand_items_in_one_call_are_refused(world: World) -> None:
    slug = world.project()
    items = [{"text": f"t{n}"} for n in range(10_001)]
    assert "items" in world.admin.call("POST", f"/projects/{slug}/items", {"items": items}, 422)["message"]


def test_a_deleted_project_keeps_its_files_for_the_way_back(world: World) -> None:
    slug = world.project("pics", category="image-classification")
    import_file(world, slug, "a.zip", archive({"owl/1.png": PNG}), labels_by_folder="true")
    world.admin.call("DELETE", f"/projects/{slug}", None, 204)
    world.admin.call("GET", f"/projects/{slug}", None, 404)
    assert len(list((world.rooms.media.folder / slug).rglob("*.png"))) == 1
    world.admin.call("POST", f"/projects/{slug}/restore", {})
    assert [row["labels"] for row in exported(world, slug)] == [["owl"]]


def test_an_export_in_the_background_runs_on_each_database(world: World) -> None:
    from webapp.rooms import export_dir
    from webapp.transfer.exporter import Exporter

    slug = world.project("pics", category="image-classification")
    import_file(world, slug, "birds.zip", archive({"owl/1.png": PNG, "tit/2.png": PNG + b"x"}), labels_by_folder="true")
    wishes = {"with_annotator": True, "with_time": True, "with_version": True, "with_provenance": True, "with_drafts": True}
    job = world.admin.call("POST", f"/projects/{slug}/exports", {"format": "jsonl", **wishes}, 202)
    assert Exporter(world.database, world.rooms.media, export_dir(world.settings)).run_all() == 1
    answer = world.admin.raw("GET", f"/projects/{slug}/exports/{job['id']}/file", buffered=True)
    lines = [json.loads(line) for line in answer.data.decode().splitlines()]
    answer.close()
    assert [(line["id"], line["labels"], line["annotator"], line["revision"], line["source"]) for line in lines] == [
        ("owl/1.png", ["owl"], "ada", 1, "person"),
        ("tit/2.png", ["tit"], "ada", 1, "person"),
    ]
    assert world.admin.call("DELETE", f"/projects/{slug}/exports/{job['id']}")["state"] == "done"
    assert world.admin.call("GET", f"/projects/{slug}/exports")["exports"] == []


GOLD_CSV = b"id,text,label,is_gold\na,one,owl,1\nb,two,,yes\nc,three,tit,0\nd,four,jay,perhaps\ne,five,tit,\n"
GOLD_LINES = (
    b'{"id": "a", "text": "one", "label": "owl", "is_gold": true}\n{"id": "b", "text": "two", "is_gold": true}\n'
    b'{"id": "c", "text": "three", "label": "tit", "is_gold": false}\n'
)


@pytest.mark.parametrize(("name", "content"), [("gold.csv", GOLD_CSV), ("gold.jsonl", GOLD_LINES)], ids=["csv", "jsonl"])
def test_rows_marked_as_known_answers_are_so_and_one_without_a_label_is_refused_by_line(
    world: World, name: str, content: bytes
) -> None:
    slug = world.project()
    job = import_file(world, slug, name, content)
    errors = {error["line"]: error["reason"] for error in job["errors"]}
    line = 3 if name.endswith(".csv") else 2
    assert "is_gold without a label" in errors[line]
    assert name.endswith(".jsonl") or "is_gold 'perhaps'" in errors[5]
    known = world.admin.call("GET", f"/projects/{slug}/gold")
    assert (known["items"], known["total"]) == ([{"item_id": "a", "labels": ["owl"]}], 1)
    world.admin.call("POST", f"/projects/{slug}/gold", {"item_ids": ["a"], "is_gold": False})
    assert import_file(world, slug, name, content)["rows_added"] == 0
    assert world.admin.call("GET", f"/projects/{slug}/gold")["total"] == 0


def test_a_chosen_column_marks_known_answers_of_table_rows_and_is_no_part_of_the_row(world: World) -> None:
    slug = world.project(category="tables")
    content = b"id,wings,label,checked\na,2,owl,1\nb,2,tit,0\n"
    assert import_file(world, slug, "rows.csv", content, gold_column="checked")["rows_added"] == 2
    assert world.admin.call("GET", f"/projects/{slug}/gold")["items"] == [{"item_id": "a", "labels": ["owl"]}]
    assert exported(world, slug)[0]["row"] == {"wings": 2}
