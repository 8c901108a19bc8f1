"""Arrays and a few facts as one safetensors file.

Owns the only serialisation of weights and training states; never pickle. Called by the algorithms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from labelloop.errors import IntegrityError

_KEY = "facts"


def pack(arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> bytes:
    """Return one safetensors file of `arrays` with `facts` (JSON) in its header."""
    from safetensors.numpy import save

    return save(
        {name: np.ascontiguousarray(value).reshape(np.shape(value)) for name, value in arrays.items()},  # a scalar stays one
        {_KEY: msgspec.json.encode(dict(facts)).decode()},
    )


def unpack(data: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Return (arrays, facts) of `pack`. Raises IntegrityError on anything else."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        size = int.from_bytes(data[:8], "little")
        header = msgspec.json.decode(data[8 : 8 + size])
        return load(data), msgspec.json.decode(header["__metadata__"][_KEY])
    except (SafetensorError, msgspec.MsgspecError, KeyError, TypeError, ValueError) as exc:
        raise IntegrityError(f"not a weights file of this build: {exc}") from exc
