"""Reading links to files and data: URLs: what is allowed, what is refused, what is named."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from intake.fetch import fetch
from labelloop.errors import (
    InvalidInputError,
    LabelloopError,
    NotFoundError,
    TooLargeError,
    UnreadableItemError,
    UnsafeLinkError,
)
from labelloop.settings import IntakeSettings

# ---------------------------------------------------------------- file


def test_a_file_below_an_allowed_folder_is_read(tmp_path: Path) -> None:
    name = "ein bild #1 100%.txt"
    (tmp_path / name).write_bytes(b"inside")
    link = f"file://{quote(str(tmp_path / name))}"
    assert fetch(link, IntakeSettings(allowed_folders=(str(tmp_path),))) == (b"inside", "text/plain")


def test_a_symlinked_allowed_folder_works(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a").write_bytes(b"a")
    (tmp_path / "alias").symlink_to(tmp_path / "real")
    assert fetch(f"file://{tmp_path}/alias/a", IntakeSettings(allowed_folders=(f"{tmp_path}/alias",))).data == b"a"


@pytest.mark.parametrize(
    "path", ["out/secret", "in/link", "in/../out/secret", "in/deep/secret", "in2/secret", "in/missing/../../out/secret"]
)
def test_a_file_outside_is_refused_whatever_the_way(tmp_path: Path, path: str) -> None:
    for name in ("in", "out", "in2"):
        (tmp_path / name).mkdir()
    (tmp_path / "out" / "secret").write_bytes(b"secret")
    (tmp_path / "in2" / "secret").write_bytes(b"secret")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out" / "secret")
    (tmp_path / "in" / "deep").symlink_to(tmp_path / "out")
    with pytest.raises(UnsafeLinkError, match="not below an allowed folder"):
        fetch(f"file://{tmp_path}/{path}", IntakeSettings(allowed_folders=(str(tmp_path / "in"),)))


def test_no_file_is_allowed_without_a_folder(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"a")
    with pytest.raises(UnsafeLinkError):
        fetch(f"file://{tmp_path}/a", IntakeSettings())


@pytest.mark.parametrize("link", ["file://host/a", "file:a", "file:///a%00b", "file:///a?b"])
def test_a_malformed_file_link_is_refused(link: str) -> None:
    with pytest.raises(UnsafeLinkError):
        fetch(link, IntakeSettings(allowed_folders=("/",)))


def test_a_pipe_or_folder_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    settings = IntakeSettings(allowed_folders=(str(tmp_path),))
    for name in ("pipe", ""):
        with pytest.raises(UnsafeLinkError, match="not a regular file"):
            fetch(f"file://{tmp_path}/{name}", settings)


def test_a_missing_or_oversized_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 3000)
    settings = IntakeSettings(allowed_folders=(str(tmp_path),), max_item_bytes=2048)
    with pytest.raises(NotFoundError, match="missing"):
        fetch(f"file://{tmp_path}/missing", settings)
    with pytest.raises(TooLargeError, match="big"):
        fetch(f"file://{tmp_path}/big", settings)


# ---------------------------------------------------------------- data:


@pytest.mark.parametrize(
    ("link", "data", "media_type"),
    [
        ("data:,A%20brief%20note", b"A brief note", "text/plain;charset=us-ascii"),
        ("data:text/plain;charset=utf-8;base64,aGk=", b"hi", "text/plain;charset=utf-8"),
        ("data:text/plain;base64,aGk", b"hi", "text/plain"),
        ("data:text/plain;base64,aGk%3D", b"hi", "text/plain"),
        ('data:application/json,{"a":1,"b":"x,y"}', b'{"a":1,"b":"x,y"}', "application/json"),
        ("DATA:text/plain;charset=utf-8,%E4%BD%A0", "你".encode(), "text/plain;charset=utf-8"),
        ("data:text/plain;charset=utf-8,你", "你".encode(), "text/plain;charset=utf-8"),
        ("data:;charset=utf-8,x", b"x", "text/plain;charset=utf-8"),
    ],
)
def test_a_data_url_is_read(link: str, data: bytes, media_type: str) -> None:
    assert fetch(link, IntakeSettings()) == (data, media_type)


def test_a_broken_or_oversized_data_url_is_refused() -> None:
    with pytest.raises(UnreadableItemError, match="base64"):
        fetch("data:;base64,****", IntakeSettings())
    with pytest.raises(InvalidInputError, match="comma"):
        fetch("data:text/plain", IntakeSettings())
    with pytest.raises(TooLargeError):
        fetch("data:," + "x" * 3000, IntakeSettings(max_item_bytes=2048))


@pytest.mark.parametrize(
    "link", ["file://[", "http://[", "http://[::1", "http://:80", "http://", "https://%00/", "data:,\udc80", "http://a:b/"]
)
def test_a_malformed_link_is_an_input_error(link: str) -> None:
    with pytest.raises(InvalidInputError):
        fetch(link, IntakeSettings(allowed_folders=("/",)))


@given(st.sampled_from(["data:", "file:", "file://", "file:///", "http://127.0.0.1:1/", "http://127.0.0.1:1", "x"]), st.text())
def test_any_link_gives_bytes_or_one_of_our_errors(start: str, rest: str) -> None:
    try:
        fetch(start + rest, IntakeSettings(allowed_folders=("/nowhere",)))
    except LabelloopError as exc:
        assert str(exc)
