"""The model of every tree algorithm: an ONNX tree ensemble, run by onnxruntime, with nothing of scikit-learn in the file.

Owns the translation of scikit-learn's tree arrays to ONNX (`ai.onnx.ml.TreeEnsembleRegressor`). Must never import scikit-learn.
Called by random-forest and gradient-boosting.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from labelloop.errors import IntegrityError
from learning.algorithms.base import Files, Model, check_width, need
from learning.algorithms.linear_model import softmax

FILE = "trees.onnx"
_FACTS = "labelloop"
Link = Literal["mean", "softmax", "independent"]


class Tree(NamedTuple):
    """One tree: `left`, `right`, `feature` (nodes,) with left -1 at leaves, `threshold` (nodes,), `value` (nodes, k)."""

    left: NDArray[np.int64]
    right: NDArray[np.int64]
    feature: NDArray[np.int64]
    threshold: NDArray[np.float32]
    value: NDArray[np.float32]


class TreeModel(Model):
    """Sum of the trees' leaf values; `link` makes probabilities of it: 'mean' and 'softmax' sum to 1, 'independent' do not."""

    def __init__(self, data: bytes) -> None:
        import onnxruntime
        from onnxruntime.capi import onnxruntime_pybind11_state as refusals

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
            facts = msgspec.json.decode(self._session.get_modelmeta().custom_metadata_map[_FACTS])
            self.mean = np.array(facts["mean"], dtype=np.float32)
            self.link, self.n_labels = facts["link"], facts["n_labels"]
        except (
            KeyError,
            msgspec.MsgspecError,
            refusals.Fail,
            refusals.InvalidArgument,
            refusals.InvalidGraph,
            refusals.InvalidProtobuf,
            refusals.RuntimeException,
        ) as exc:
            raise IntegrityError(f"{FILE} is no tree model of this build: {exc}") from exc
        self._data = data

    def predict_proba(self, x: NDArray[Any]) -> NDArray[np.float32]:
        x = check_width(x, len(self.mean))
        if not len(x):
            return np.empty((0, self.n_labels), dtype=np.float32)
        out: NDArray[np.float32] = self._session.run(None, {"x": np.ascontiguousarray(fill(x, self.mean))})[0]
        if self.link == "softmax":
            return softmax(out)
        np.clip(out, 0, 1, out=out)
        return out if self.link == "independent" else out / out.sum(axis=1, keepdims=True)

    def files(self) -> dict[str, bytes]:
        return {FILE: self._data}


def load(files: Files) -> TreeModel:
    """Return the model in `files`. Raises IntegrityError when it is not one."""
    return TreeModel(need(files, FILE))


def column_means(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the mean of the known values of each column: (d,) float32, 0 for a column without any."""
    known = np.isfinite(x)
    total = np.where(known, x, 0).sum(axis=0, dtype=np.float64)
    return (total / np.maximum(known.sum(axis=0), 1)).astype(np.float32)


def fill(x: NDArray[np.float32], mean: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return x with every missing (NaN or infinite) value replaced by its column's `mean`; x itself when nothing is missing."""
    with np.errstate(over="ignore", invalid="ignore"):
        is_whole = np.isfinite(x.sum())
    return x if is_whole else np.where(np.isfinite(x), x, mean)


def read_tree(tree: Any, value: NDArray[Any]) -> Tree:
    """Return scikit-learn's `tree` (its `tree_`) with leaf values (nodes, k) that the caller has worked out."""
    wide = np.asarray(tree.threshold, dtype=np.float64)
    threshold = wide.astype(np.float32)
    up = threshold > wide  # x <= threshold must decide alike for every float32 x: round down
    threshold[up] = np.nextafter(threshold[up], np.float32(-np.inf))
    left, right = tree.children_left.astype(np.int64), tree.children_right.astype(np.int64)
    return Tree(left, right, np.maximum(tree.feature, 0).astype(np.int64), threshold, value.astype(np.float32))


def build(trees: Sequence[Tree], base: NDArray[Any], mean: NDArray[np.float32], link: Link) -> TreeModel:
    """Return the model whose raw output is `base` (k,) plus the sum of the trees' values."""
    from onnx import TensorProto, helper

    sizes = [len(tree.left) for tree in trees]
    ids = np.concatenate([np.arange(size) for size in sizes])
    of_tree = np.repeat(np.arange(len(trees)), sizes)
    left = np.concatenate([tree.left for tree in trees])
    is_leaf = left < 0
    k = len(base)
    values = np.concatenate([tree.value for tree in trees])[is_leaf]
    node = helper.make_node(
        "TreeEnsembleRegressor",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        n_targets=k,
        aggregate_function="SUM",
        post_transform="NONE",
        base_values=[float(v) for v in base],
        nodes_treeids=of_tree.tolist(),
        nodes_nodeids=ids.tolist(),
        nodes_featureids=np.concatenate([tree.feature for tree in trees]).tolist(),
        nodes_modes=np.where(is_leaf, "LEAF", "BRANCH_LEQ").tolist(),
        nodes_values=np.where(is_leaf, np.float32(0), np.concatenate([tree.threshold for tree in trees])).tolist(),
        nodes_truenodeids=np.maximum(left, 0).tolist(),
        nodes_falsenodeids=np.maximum(np.concatenate([tree.right for tree in trees]), 0).tolist(),
        target_treeids=np.repeat(of_tree[is_leaf], k).tolist(),
        target_nodeids=np.repeat(ids[is_leaf], k).tolist(),
        target_ids=np.tile(np.arange(k), int(is_leaf.sum())).tolist(),
        target_weights=values.ravel().tolist(),
    )
    graph = helper.make_graph(
        [node],
        "trees",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, len(mean)])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, k])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 3)])
    model.ir_version = 8
    facts = {"link": link, "n_labels": k, "mean": [float(v) for v in mean]}
    helper.set_model_props(model, {_FACTS: msgspec.json.encode(facts).decode()})
    return TreeModel(model.SerializeToString())
