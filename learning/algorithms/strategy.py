"""TensorFlow's strategy over several processes: a training started inside its scope takes its steps together with the others.

Owns the door to tf.distribute. Must never be entered twice in a process: TensorFlow fixes the members once, so that a change of
membership needs new processes. Called by a process that the train role started for one generation of a run.

M. Abadi et al., "TensorFlow: A System for Large-Scale Machine Learning", OSDI 2016; the strategy is MultiWorkerMirroredStrategy,
with a loop of our own on `strategy.run`, because Keras 3's `fit` fails under it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import msgspec


def cluster_of(addresses: Sequence[str], index: int) -> str:
    """Return what TensorFlow expects in TF_CONFIG: all workers as host:port, and which of them this process is."""
    config = {"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": index}}
    return msgspec.json.encode(config).decode()


def strategy_scope(addresses: Sequence[str], index: int) -> AbstractContextManager[Any]:
    """Connect this process, number `index`, with the others and return the scope to start the training in.

    Blocks until all have come. Each process uses one GPU, or its CPU.
    """
    os.environ["TF_CONFIG"] = cluster_of(addresses, index)
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        tf.config.set_visible_devices(gpus[:1], "GPU")
    tf.config.experimental.enable_op_determinism()
    scope: AbstractContextManager[Any] = tf.distribute.MultiWorkerMirroredStrategy().scope()
    return scope
