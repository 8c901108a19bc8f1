"""Decoding: images within their limits, texts by declared steps, table rows, and which addresses are public."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from intake.decode import decode, decoding_record
from intake.guard import why_not_reach
from intake.images import decode_image
from intake.limits import Fetched
from intake.tables import Column, Row, columns_of, declared_columns, decode_row
from intake.text import clean_in_place, clean_text, decode_text
from labelloop.errors import InvalidInputError, TooLargeError, UnreadableItemError
from labelloop.messages import CATEGORIES
from labelloop.settings import IntakeSettings

LIMIT = 64_000_000


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG of that size, with next to no data."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")


# ---------------------------------------------------------------- images


def test_a_huge_picture_is_refused_from_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*_: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(Image.Image, "load", load)
    with pytest.raises(TooLargeError, match="40000 x 40000"):
        decode_image(png_header(40_000, 40_000), LIMIT)


def test_a_picture_at_the_limit_is_decoded() -> None:
    data = encoded(Image.new("L", (100, 10)))
    assert decode_image(data, 1000).size == (100, 10)
    with pytest.raises(TooLargeError):
        decode_image(data, 999)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_a_picture_that_breaks_off_is_unreadable(kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    data = encoded(noise, kind)
    assert decode_image(data, LIMIT).size == (64, 64)
    for share in (0.1, 0.5):
        with pytest.raises(UnreadableItemError):
            decode_image(data[: int(len(data) * share)], LIMIT)


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"%PDF-1.4", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", b"\x89PNG\r\n\x1a\n", b"GIF89a"]
)
def test_what_is_no_picture_is_unreadable(data: bytes) -> None:
    with pytest.raises(UnreadableItemError):
        decode_image(data, LIMIT)


def test_any_flipped_byte_gives_a_picture_or_a_clear_error() -> None:
    """Whatever a broken file makes Pillow raise, a caller sees one of two errors."""
    rng = np.random.default_rng(1)
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP"):
        good = bytearray(encoded(Image.fromarray(rng.integers(0, 255, (20, 20, 3), np.uint8)), kind))
        for _ in range(60):
            bad = bytearray(good)
            for at in rng.integers(0, min(len(bad), 200), 3):
                bad[at] = rng.integers(0, 256)
            try:
                decode_image(bytes(bad), LIMIT)
            except (UnreadableItemError, TooLargeError):
                continue


@pytest.mark.parametrize(
    ("image", "mode", "pixel"),
    [
        (Image.new("L", (2, 2), 7), "L", 7),
        (Image.new("1", (2, 2), 1), "L", 255),
        (Image.new("RGB", (2, 2), (1, 2, 3)), "RGB", (1, 2, 3)),
        (Image.new("RGBA", (2, 2), (1, 2, 3, 0)), "RGB", (255, 255, 255)),
        (Image.new("RGBA", (2, 2), (1, 2, 3, 255)), "RGB", (1, 2, 3)),
        (Image.new("LA", (2, 2), (9, 0)), "L", 255),
        (Image.new("RGB", (2, 2), (9, 8, 7)).convert("P", palette=Image.Palette.ADAPTIVE), "RGB", (9, 8, 7)),
        (Image.fromarray(np.full((2, 2), 0x1234, np.uint16)), "L", 0x12),
    ],
)
def test_every_mode_becomes_gray_or_rgb(image: Image.Image, mode: str, pixel: object) -> None:
    found = decode_image(encoded(image), LIMIT)
    assert (found.mode, found.getpixel((0, 0))) == (mode, pixel)


def test_cmyk_and_float_pictures_are_read() -> None:
    assert decode_image(encoded(Image.new("CMYK", (4, 4), (0, 0, 0, 255)), "JPEG"), LIMIT).mode == "RGB"
    half = Image.fromarray(np.full((2, 2), 0.5, np.float32))
    assert decode_image(encoded(half, "TIFF"), LIMIT).getpixel((0, 0)) == 127


def test_a_picture_is_turned_as_its_camera_said() -> None:
    image = Image.new("RGB", (4, 2))
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode_image(encoded(image, "JPEG", exif=exif), LIMIT).size == (2, 4)


def test_a_large_jpeg_is_decoded_at_least_twice_the_wanted_side() -> None:
    data = encoded(Image.new("RGB", (1600, 1200)), "JPEG")
    assert min(decode_image(data, LIMIT, wanted_px=224).size) in range(448, 1200)
    assert decode_image(data, LIMIT).size == (1600, 1200)


# ---------------------------------------------------------------- texts


@pytest.mark.parametrize(
    ("data", "media_type", "text"),
    [
        ("Grüße".encode(), "", "Grüße"),
        ("\ufeffGrüße".encode(), "", "Grüße"),
        ("Grüße".encode("utf-16"), "", "Grüße"),
        ("Grüße".encode("cp1252"), "", "Grüße"),
        ("привет".encode("koi8-r"), "text/plain; charset=KOI8-R", "привет"),
        ("这家餐厅很好吃".encode("gb18030"), "", "这家餐厅很好吃"),
        ("Grüße".encode("cp1252"), "text/plain; charset=no-such", "Grüße"),
    ],
)
def test_a_text_is_decoded_by_mark_charset_or_guess(data: bytes, media_type: str, text: str) -> None:
    assert decode_text(data, media_type) == text


def test_cleaning_composes_drops_controls_and_joins_white_space() -> None:
    assert clean_text(" a\u0301\x07 b\r\n\t c\u200b \ufeff", 100) == "á b c"
    assert clean_text("x" * 50, 16) == "x" * 16


@pytest.mark.parametrize("data", [b"\x00\x01\x02", b"\x89PNG\r\n\x1a\n\0\0\0", b"\xff\xfea"])
def test_binary_data_is_no_text(data: bytes) -> None:
    with pytest.raises(UnreadableItemError):
        decode_text(data, "")


def test_an_empty_text_is_unreadable() -> None:
    with pytest.raises(UnreadableItemError, match="empty"):
        clean_text(" \n\x00", 100)


# ---------------------------------------------------------------- rows


def test_a_row_is_an_object_or_an_array() -> None:
    assert decode_row(b'{"a": 1, "b": "x", "c": null, "d": true, "e": "NaN"}') == Row(
        {"a": 1.0, "b": "x", "c": None, "d": 1.0, "e": None}
    )
    assert decode_row(b'[1.5, "x"]') == Row({"0": 1.5, "1": "x"})


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"3", b'"x"', b'{"a": [1]}', b'{"a": {"b": 1}}', b"a,b\n1,2", b"\xff"])
def test_anything_else_is_no_row(data: bytes) -> None:
    with pytest.raises(UnreadableItemError):
        decode_row(data)


def test_columns_are_declared_by_what_the_first_rows_hold() -> None:
    rows = [Row({"b": "3.5", "a": "red", "n": None}), Row({"b": None, "a": "7", "late": 2.0})]
    kinds = {"a": "category", "b": "number", "late": "number", "n": "number"}
    assert columns_of(rows) == tuple(Column(n, k) for n, k in kinds.items())  # type: ignore[arg-type]
    assert [c.name for c in columns_of([Row({str(i): 1.0 for i in range(12)})])] == [str(i) for i in range(12)]


def test_columns_may_be_declared_by_the_task() -> None:
    assert declared_columns({}) is None
    assert declared_columns({"columns": [{"name": "a", "kind": "number"}]}) == (Column("a", "number"),)
    with pytest.raises(InvalidInputError, match="kind"):
        declared_columns({"columns": [{"name": "a", "kind": "colour"}]})


@pytest.mark.parametrize("text", ["  Anna\n\nmet\tBob ", "cafe\u0301 e\x07 \u200bfin", "\u3000一\u2028二", "plain"])
def test_a_text_for_spans_keeps_every_code_point_in_its_place(text: str) -> None:
    clean = clean_in_place(text, 1000)
    assert len(clean) == len(text)
    assert all(a == b or b == " " for a, b in zip(text, clean, strict=True))
    assert "\n" not in clean and "\x07" not in clean
    assert clean_in_place(text, 3) == clean[:3]


def test_a_text_of_blanks_has_no_spans() -> None:
    for text in ("", " \n", "\u200b"):
        with pytest.raises(UnreadableItemError, match="empty"):
            clean_in_place(text, 10)


# ---------------------------------------------------------------- by category, addresses


def test_each_category_has_its_decoder_and_its_record() -> None:
    settings = IntakeSettings()
    assert decode("text-classification", Fetched(b" a ", ""), settings) == "a"
    assert decode("tables", Fetched(b"[1]", ""), settings) == Row({"0": 1.0})
    assert isinstance(decode("image-classification", Fetched(encoded(Image.new("L", (1, 1))), ""), settings), Image.Image)
    assert decode("token-classification", Fetched(b" a\tb ", ""), settings) == " a b "
    assert isinstance(decode("object-detection", Fetched(encoded(Image.new("L", (1, 1))), ""), settings), Image.Image)
    assert all(decoding_record(category)["version"] for category in CATEGORIES)
    with pytest.raises(InvalidInputError, match="video"):
        decode("video", Fetched(b"", ""), settings)


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"])
def test_a_public_address_may_be_reached(address: str) -> None:
    assert why_not_reach(address) is None
