"""Regular expressions in time linear in the text: the one door of google-re2.

R. Cox, "Regular Expression Matching Can Be Simple And Fast", 2007: an automaton instead of back-tracking, so that no pattern that a
person writes can hold a worker. Look-around and back references do not exist in it. Must never fall back to Python's `re`. Called
by `rules` and `conditions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import InvalidInputError, SettingsError

MAX_LENGTH = 2_000  # characters of a pattern
_MAX_MEM = 2 << 20  # bytes of one compiled automaton: refuses (((a{99}){99}){99})


def compile_pattern(pattern: str, is_case_sensitive: bool = True) -> Any:
    """Return the compiled pattern. Raises InvalidInputError naming what RE2 refuses, SettingsError where it is not installed."""
    if not pattern or len(pattern) > MAX_LENGTH:
        raise InvalidInputError(f"a regular expression has 1 to {MAX_LENGTH} characters, got {len(pattern)}")
    try:
        import re2
    except ImportError as exc:
        raise SettingsError("regular expressions need the package google-re2: install labelloop's extra 'node' or 'web'") from exc
    options = re2.Options()
    options.log_errors, options.max_mem, options.case_sensitive = False, _MAX_MEM, is_case_sensitive
    options.never_capture = True
    try:
        return re2.compile(pattern, options)
    except (re2.error, UnicodeEncodeError) as exc:
        said = exc.args[0] if exc.args else ""
        problem = said.decode(errors="replace") if isinstance(said, bytes) else str(said) or "not valid Unicode"
        raise InvalidInputError(
            f"regular expression {pattern[:80]!r} is refused: {problem}; look-around and back references do not exist here"
        ) from exc


def found_in(compiled: Any, texts: Sequence[bytes]) -> NDArray[np.bool_]:
    """Return where the pattern is found, (n,); texts are UTF-8."""
    return np.fromiter((compiled.search(text) is not None for text in texts), dtype=np.bool_, count=len(texts))
