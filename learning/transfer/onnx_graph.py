"""The graph of each family of models whose prediction is a few matrices, written by hand: no library of theirs is needed to run it.

Owns `Graph` and one function a family: from the name of an input to the name of its probabilities. Must never import scikit-learn
or torch. Called by `onnx_export`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from learning.algorithms.constant import ConstantModel
from learning.algorithms.linear_model import UNSEEN, LinearModel
from learning.algorithms.svm import SvmModel
from learning.algorithms.tree_model import TreeModel
from learning.transfer.calibration import FARTHEST_LOGIT, Calibration

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

OPSET, ML_OPSET, IR = 17, 3, 8
INPUT, OUTPUT = "x", "probabilities"


class Graph:
    """Nodes and constants in the order they were added; names of values are numbered."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[Any] = []
        self._count = 0

    def name(self) -> str:
        """Return a name not used before."""
        self._count += 1
        return f"labelloop_{self._count}"

    def constant(self, value: Any, dtype: Any = np.float32) -> str:
        """Return the name of a constant array."""
        from onnx import numpy_helper

        name = self.name()
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype=dtype).reshape(np.shape(value)), name))
        return name

    def add(self, operator: str, *inputs: str, **attributes: Any) -> str:
        """Return the name of what `operator` makes of `inputs`."""
        from onnx import helper

        name = self.name()
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def model(self, output: str, shape: tuple[int | None, ...], n_labels: int) -> ModelProto:
        """Return the whole as a model from `x`, a batch of `shape`, to `probabilities` (n, n_labels)."""
        from onnx import TensorProto, helper

        self.nodes.append(helper.make_node("Identity", [output], [OUTPUT]))
        graph = helper.make_graph(
            self.nodes,
            "labelloop",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["n", *shape])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, ["n", n_labels])],
            self.constants,
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)]
        model = helper.make_model(graph, opset_imports=opsets)
        model.ir_version = IR
        return model


def filled(graph: Graph, x: str, mean: Any) -> str:
    """Return `x` with what is missing, NaN or infinite, replaced by `mean`, which broadcasts."""
    is_missing = graph.add("Or", graph.add("IsNaN", x), graph.add("IsInf", x))
    return graph.add("Where", is_missing, graph.constant(mean), x)


def linear(graph: Graph, x: str, model: LinearModel) -> str:
    """Return the probabilities of a linear model."""
    product = graph.add("MatMul", filled(graph, x, model.mean), graph.constant(model.weights))
    logits = graph.add("Add", product, graph.constant(model.bias))
    return graph.add("Sigmoid", logits) if model.is_multilabel else graph.add("Softmax", logits, axis=1)


def svm(graph: Graph, x: str, model: SvmModel) -> str:
    """Return the probabilities of support vectors: kernel, pairwise decisions, mean decision of each class, temperature."""
    arrays = model.arrays
    off = graph.add("Sub", filled(graph, x, arrays["mean"]), graph.constant(arrays["mean"]))
    z = graph.add("Mul", off, graph.constant(arrays["factor"]))
    vectors = arrays["vectors"]
    own = graph.add("ReduceSum", graph.add("Mul", z, z), graph.constant([1], np.int64), keepdims=1)
    cross = graph.add("MatMul", z, graph.constant(-2 * vectors.T))
    squares = graph.add("Add", graph.add("Add", own, cross), graph.constant((vectors**2).sum(axis=1)))
    kernel = graph.add("Exp", graph.add("Mul", graph.add("Relu", squares), graph.constant(-model.gamma)))
    pairwise = graph.add("Add", graph.add("MatMul", kernel, graph.constant(arrays["weights"])), graph.constant(arrays["bias"]))
    clipped = graph.add("Clip", pairwise, graph.constant(-2), graph.constant(2))
    place, bias = _votes(model)
    logits = graph.add("Add", graph.add("MatMul", clipped, graph.constant(place)), graph.constant(bias))
    return graph.add("Softmax", logits, axis=1)


def _votes(model: SvmModel) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return (pairs, n_labels) from decisions to logits, and the bias that keeps classes never seen at 0."""
    pairs, classes = model.arrays["pairs"], model.arrays["classes"]
    place = np.zeros((len(pairs), model.n_labels), dtype=np.float32)
    unit = model.temperature / (len(classes) - 1)
    place[np.arange(len(pairs)), classes[pairs[:, 0]]], place[np.arange(len(pairs)), classes[pairs[:, 1]]] = unit, -unit
    bias = np.full(model.n_labels, UNSEEN, dtype=np.float32)
    bias[classes] = 0
    return place, bias


def trees(graph: Graph, x: str, model: TreeModel) -> str:
    """Return the probabilities of trees: the ensemble as it is, then its link."""
    from onnx import load_from_string

    whole = filled(graph, x, model.mean)
    (node,) = load_from_string(model.files()["trees.onnx"]).graph.node
    out = graph.name()
    node.input[0], node.output[0] = whole, out
    graph.nodes.append(node)
    if model.link == "softmax":
        return graph.add("Softmax", out, axis=1)
    clipped = graph.add("Clip", out, graph.constant(0), graph.constant(1))
    if model.link == "independent":
        return clipped
    return graph.add("Div", clipped, graph.add("ReduceSum", clipped, graph.constant([1], np.int64), keepdims=1))


def constant(graph: Graph, x: str, model: ConstantModel) -> str:
    """Return the same probabilities for every row."""
    n = graph.add("Slice", graph.add("Shape", x), *(graph.constant([place], np.int64) for place in (0, 1)))
    shape = graph.add("Concat", n, graph.constant([model.n_labels], np.int64), axis=0)
    return graph.add("Expand", graph.constant(model.proba[None, :]), shape)


def calibrated(graph: Graph, proba: str, calibration: Calibration) -> str:
    """Return `proba` with its logits divided by the temperature, as `calibration.temper` does."""
    unit = graph.constant(1 / calibration.temperature)
    if not calibration.is_multilabel:
        return graph.add("Softmax", graph.add("Mul", graph.add("Log", proba), unit), axis=1)
    rest = graph.add("Log", graph.add("Sub", graph.constant(1), proba))
    logits = graph.add("Sub", graph.add("Log", proba), rest)
    near = graph.add("Clip", logits, graph.constant(-FARTHEST_LOGIT), graph.constant(FARTHEST_LOGIT))
    return graph.add("Sigmoid", graph.add("Mul", near, unit))
