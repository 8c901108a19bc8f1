"""A zip that grows file by file, with its directory in a file beside it: flat memory at a million entries, resumable at any entry.

Owns the zip's bytes (APPNOTE.TXT 6.3.10, with ZIP64). Python's zipfile keeps every entry in memory and writes the directory at the
end only, so a killed one is lost. Called by the writers.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from webapp.transfer.writers.parts import COPY_BYTES, Parts, copy_into

_STORED, _DEFLATED = 0, 8
_UTF8 = 0x800
_DATE = (1 << 5) | 1  # 1980-01-01: the same labels make the same bytes
_MOST_32, _MOST_16 = 0xFFFFFFFF, 0xFFFF
BODY, DIRECTORY = "zip-body", "zip-directory"
_LEVEL = 1


class ZipStream:
    """The two files. `n` entries are in it; names must be told once each."""

    def __init__(self, parts: Parts, n: int = 0) -> None:
        self._parts = parts
        self.n = n

    def add(self, name: str, data: bytes, is_packed: bool = True) -> None:
        """Add a small file; `is_packed` for what is not compressed already."""
        packed = data
        if is_packed:
            deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -15)
            packed = deflate.compress(data) + deflate.flush()
        head = _Head(name, _DEFLATED if is_packed else _STORED, zlib.crc32(data), len(packed), len(data))
        self._keep(head, self._parts.append(BODY, head.local()))
        self._parts.append(BODY, packed)

    def add_path(self, name: str, path: Path) -> None:
        """Add a file as it is, piece by piece."""
        crc, size = 0, 0
        with path.open("rb") as file:
            while piece := file.read(COPY_BYTES):
                crc, size = zlib.crc32(piece, crc), size + len(piece)
        head = _Head(name, _STORED, crc, size, size)
        self._keep(head, self._parts.append(BODY, head.local()))
        with path.open("rb") as file:
            while piece := file.read(COPY_BYTES):
                self._parts.append(BODY, piece)

    def finish(self, out: Path) -> None:
        """Write the whole zip to `out`."""
        with out.open("wb") as file:
            copy_into(file, self._parts.path(BODY))
            begin = file.tell()
            copy_into(file, self._parts.path(DIRECTORY))
            file.write(_end(begin, file.tell() - begin, self.n))

    def _keep(self, head: _Head, offset: int) -> None:
        self._parts.append(DIRECTORY, head.central(offset))
        self.n += 1


class _Head:
    """What both headers of an entry say."""

    def __init__(self, name: str, method: int, crc: int, packed: int, size: int) -> None:
        self._name = name.encode()
        self._is_large = max(packed, size) >= _MOST_32
        self._fields = (45 if self._is_large else 20, _UTF8, method, 0, _DATE, crc)
        self._sizes = (packed, size)

    def local(self) -> bytes:
        sizes, extra = self._sizes, b""
        if self._is_large:
            extra = struct.pack("<HHQQ", 1, 16, sizes[1], sizes[0])
            sizes = (_MOST_32, _MOST_32)
        head = struct.pack("<IHHHHHIIIHH", 0x04034B50, *self._fields, *sizes, len(self._name), len(extra))
        return head + self._name + extra

    def central(self, offset: int) -> bytes:
        wide = [v for v in (self._sizes[1], self._sizes[0]) if self._is_large]
        shown = offset
        if offset >= _MOST_32:
            wide.append(offset)
            shown = _MOST_32
        extra = struct.pack(f"<HH{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
        sizes = (_MOST_32, _MOST_32) if self._is_large else self._sizes
        unix = 0o100644 << 16
        tail = struct.pack("<HHHHHII", len(self._name), len(extra), 0, 0, 0, unix, shown)
        return struct.pack("<IHHHHHHIII", 0x02014B50, 0x0300 | 45, *self._fields, *sizes) + tail + self._name + extra


def _end(begin: int, length: int, n: int) -> bytes:
    large = b""
    if max(begin, length) >= _MOST_32 or n >= _MOST_16:
        record = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, n, n, length, begin)
        large = record + struct.pack("<IIQI", 0x07064B50, 0, begin + length, 1)
    counts = (min(n, _MOST_16),) * 2
    return large + struct.pack("<IHHHHIIH", 0x06054B50, 0, 0, *counts, min(length, _MOST_32), min(begin, _MOST_32), 0)
