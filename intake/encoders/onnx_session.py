"""Models run by ONNX Runtime, one item at a time on one core each.

Owns the sessions. Must never batch: measured on two cores, single items on two threads are as fast as batches of 32 on both
(MiniLM 220 against 214 a second, EfficientNet 167 against 117 for one session on both), and a row can then not depend on its
neighbours, on the number of cores or on dynamic quantisation over a batch. Called by the neural encoders.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


def open_session(path: Path) -> Any:
    """Return a single-threaded `onnxruntime.InferenceSession`; its `run` may be called from several threads."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
