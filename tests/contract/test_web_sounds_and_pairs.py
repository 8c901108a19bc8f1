"""Sounds and pairs as items: uploaded, told when broken, sought in, shown side by side."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.contract.test_web_transfer import PNG, archive, exported, import_file, run_imports, upload
from tests.contract.web_world import World

pytestmark = pytest.mark.parametrize(
    "database_url", ["sqlite"], indirect=True
)  # files and columns; the rows are those of other tests
SOUNDS = {
    "audio/wav": b"RIFF\x24\0\0\0WAVEfmt " + bytes(40),
    "audio/mpeg": b"\xff\xfb\x90\0" + bytes(40),
    "audio/flac": b"fLaC" + bytes(40),
    "audio/ogg": b"OggS" + bytes(40),
}


def take(world: World, slug: str, n: int = 10) -> dict[str, dict[str, Any]]:
    items = world.admin.call("POST", f"/projects/{slug}/next", {"n": n})["items"]
    return {item["item_id"]: item for item in items}


def fetch(world: World, address: str, **headers: str) -> Any:
    with world.app.test_client() as browser:
        browser.post("/api/v1/session", json={"name": "ada", "password": "correct horse"})
        return browser.get(address, headers=headers, buffered=True)


def test_sounds_are_told_by_their_bytes_and_served_with_their_type(world: World) -> None:
    slug = world.project("calls", category="audio", kind="segments")
    files = [(f"{at}.bin", data) for at, data in enumerate(SOUNDS.values())]
    upload(world.admin, slug, [*files, ("late.mp3", b"ID3" + bytes(9)), ("note.wav", b"not a sound"), ("owl.png", PNG)])
    run_imports(world)
    job = world.admin.call("GET", f"/projects/{slug}/imports")["imports"][0]
    assert job["rows_added"] == 5 and [error["name"] for error in job["errors"]] == ["note.wav", "owl.png"]
    assert all("WAV, MP3, FLAC and Ogg are read" in error["reason"] for error in job["errors"])
    items = take(world, slug)
    kinds = [fetch(world, items[name]["media"]).content_type for name, _ in files]
    assert kinds == list(SOUNDS)


def test_a_player_may_seek_in_a_sound(world: World) -> None:
    slug = world.project("calls", category="audio")
    data = SOUNDS["audio/flac"] + bytes(range(200))
    import_file(world, slug, "a.flac", data)
    address = take(world, slug)["a.flac"]["media"]
    whole = fetch(world, address)
    assert whole.headers["Accept-Ranges"] == "bytes" and whole.data == data
    part = fetch(world, address, Range="bytes=100-149")
    assert (part.status_code, part.data) == (206, data[100:150])
    assert part.headers["Content-Range"] == f"bytes 100-149/{len(data)}"
    assert fetch(world, address, Range=f"bytes={len(data)}-").status_code == 416


def test_a_sound_that_is_too_large_is_refused_by_its_size(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    slug = world.project("calls", category="audio")
    most = world.settings.intake.max_item_bytes
    monkeypatch.setattr("tests.contract.test_web_transfer.run_imports", lambda w: _import_with_limit(w, 30))
    job = import_file(world, slug, "calls.zip", archive({"a.wav": SOUNDS["audio/wav"], "b.wav": b"OggS"}))
    assert most > 30 and job["rows_added"] == 1 and "at most 30 are taken" in job["errors"][0]["reason"]


def _import_with_limit(world: World, most: int) -> int:
    from webapp.transfer.importer import Importer

    return Importer(world.database, world.rooms.media, most).run_all()


PAIRS = (
    {"id": "texts", "a": "one", "b": "two"},
    {"id": "links", "a": "https://example.org/a.png", "b": {"link": "https://example.org/b.png"}, "label": "tit"},
    {"id": "both", "pair": {"a": {"text": "https is a protocol"}, "b": "https://example.org"}},
    {"id": "half", "a": "one"},
    {"id": "odd", "a": "one", "b": {"text": "x", "link": "https://example.org"}},
    {"id": "empty", "a": "", "b": "two"},
    {"id": "none", "a": {"link": "ftp://example.org"}, "b": "two"},
)


def test_pairs_come_in_by_lines_and_bad_ones_are_told(world: World) -> None:
    slug = world.project("better", category="pairs")
    job = import_file(world, slug, "pairs.jsonl", "\n".join(json.dumps(pair) for pair in PAIRS).encode())
    assert job["rows_added"] == 3
    reasons = {error["line"]: error["reason"] for error in job["errors"]}
    assert "no pair: give 'a' and 'b'" in reasons[4] and "side 'b' of the pair: give a text, or an object" in reasons[5]
    assert "side 'a' of the pair: the text is empty" in reasons[6] and "side 'a' of the pair: link 'ftp" in reasons[7]
    items = take(world, slug)
    assert items["texts"]["pair"] == {"a": {"text": "one"}, "b": {"text": "two"}}
    assert items["both"]["pair"] == {"a": {"text": "https is a protocol"}, "b": {"media": "https://example.org"}}
    [labelled] = exported(world, slug)
    assert labelled["labels"] == ["tit"] and labelled["pair"]["a"] == {"link": "https://example.org/a.png"}


def test_pairs_come_in_by_columns(world: World) -> None:
    slug = world.project("better", category="pairs")
    job = import_file(world, slug, "pairs.csv", b"id,a,b,label\np1,one,two,owl\np2,three,,\n")
    assert job["rows_added"] == 1 and "side 'b' of the pair: the text is empty" in job["errors"][0]["reason"]
    job = import_file(world, slug, "pairs.csv", b"id,left,right\np1,one,two\n")
    assert job["state"] == "failed" and "no column 'a'" in job["reason"]


def test_two_uploads_of_one_name_are_a_pair(world: World) -> None:
    slug = world.project("better", category="pairs")
    files = {
        "x/a.png": PNG,
        "x/b.wav": SOUNDS["audio/wav"],
        "y.a.txt": b"one",
        "y_B.txt": b"",
        "z.a.txt": b"one",
        "z.b.txt": b"two",
        "w.a.txt": b"alone",
        "v.json": b'{"a": "one", "b": "two"}',
    }
    job = import_file(world, slug, "pairs.zip", archive(files))
    assert (job["rows_added"], job["state"]) == (3, "done")
    reasons = {error["name"]: error["reason"] for error in job["errors"]}
    assert "side 'b' of the pair: the text is empty" in reasons["y"] and "has no side 'b'" in reasons["w"]
    items = take(world, slug)
    assert items.keys() == {"x", "z", "v.json"}
    picture, sound = (items["x"]["pair"][side]["media"] for side in ("a", "b"))
    assert fetch(world, picture).content_type == "image/png" and fetch(world, sound).content_type == "audio/wav"
    assert import_file(world, slug, "again.zip", archive(files))["rows_known"] == 3


def test_values_come_in_by_columns_and_go_out_by_columns(world: World) -> None:
    years = world.project("years", category="regression", kind="number", labels=[])
    job = import_file(world, years, "a.csv", b"id,size,label\nr1,3,4.5\nr2,4,big\nr3,5,\n")
    assert job["rows_added"] == 2 and "number 'big'" in job["errors"][0]["reason"]
    assert [line.get("value") for line in exported(world, years, "all")] == [{"number": 4.5}, None]
    boxes = world.project("boxes", category="object-detection", kind="boxes")
    value = '{"marks":[{"id":"m1","label":"owl","shape":"box","where":[0.0,0.0,0.5,0.5]}]}'
    quoted = '"' + value.replace('"', '""') + '"'
    job = import_file(world, boxes, "a.csv", f"id,link,value\nb1,https://example.org/a.png,{quoted}\n".encode())
    assert job["errors"] == []
    out = world.admin.raw("GET", f"/projects/{boxes}/export?format=csv").get_data(as_text=True)
    assert quoted in out
    again = world.project("again", category="object-detection", kind="boxes")
    assert import_file(world, again, "b.csv", out.encode())["rows_added"] == 1
    assert exported(world, again)[0]["value"] == json.loads(value)
