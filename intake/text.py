"""Text bytes to one clean string, by declared and versioned steps.

Owns decoding and cleaning of text. Must never fetch or tokenise. Called by `intake.decode`.
"""

from __future__ import annotations

import codecs
import re
import unicodedata

from labelloop.errors import UnreadableItemError

VERSION = 1
STEPS = ("decode", "nfc", "control-characters-out", "white-space-to-one-space", "cut")
STEPS_IN_PLACE = ("decode", "each-control-character-and-white-space-to-a-space", "cut")

_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_CHARSET = re.compile(r"charset\s*=\s*\"?([A-Za-z0-9._:-]+)", re.IGNORECASE)
_SPACE = re.compile(r"\s+")
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f\x80-\x84\x86-\x9f\u200b\u2060\ufeff\ufffe\uffff\ud800-\udfff]")
_EACH_BLANK = re.compile(rf"\s|{_CONTROL.pattern}")
_HAN = re.compile(r"[\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]")


def decode_text(data: bytes, media_type: str) -> str:
    """Return `data` as a string: byte order mark, declared charset, UTF-8, then GB 18030 where that gives Chinese, Windows-1252.

    Raises UnreadableItemError for binary data.
    """
    for bom, encoding in _BOMS:
        if data.startswith(bom):
            return _strictly(data, encoding)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = _in_another_charset(data, media_type)
    if "\0" in text:
        raise UnreadableItemError("not a text: it contains NUL bytes")
    return text


def _strictly(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as exc:
        raise UnreadableItemError(f"not a text in {encoding}, as its first bytes say: {exc.reason}") from exc


def _in_another_charset(data: bytes, media_type: str) -> str:
    named = _CHARSET.search(media_type)
    if named:
        try:
            return data.decode(codecs.lookup(named[1]).name)
        except (LookupError, UnicodeDecodeError):
            pass  # a wrong claim: guess as if there were none
    try:
        text = data.decode("gb18030")
        n_foreign = sum(ord(c) > 127 for c in text)
        if len(_HAN.findall(text)) >= 0.8 * n_foreign:
            return text
    except UnicodeDecodeError:
        pass  # not Chinese
    return data.decode("cp1252", "replace")


def clean_text(text: str, max_chars: int) -> str:
    """Return `text` after `STEPS`; raises UnreadableItemError when nothing is left."""
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    text = _SPACE.sub(" ", _CONTROL.sub("", text)).strip()[:max_chars].rstrip()
    if not text:
        raise UnreadableItemError("the text is empty; leave out items without content")
    return text


def clean_in_place(text: str, max_chars: int) -> str:
    """Return `text` after `STEPS_IN_PLACE`: each code point keeps its place, because spans count them.

    Raises UnreadableItemError when nothing but blanks is there.
    """
    text = _EACH_BLANK.sub(" ", text[:max_chars])
    if text.isspace() or not text:
        raise UnreadableItemError("the text is empty; leave out items without content")
    return text
