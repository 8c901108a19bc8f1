"""One ONNX file of a trained model, with the answers of `predict_proba`: checked before it is given out.

Owns the choice of the graph, the check and the facts in the file. Must never pickle, and never give out a file whose answers
differ. Called by the command `labelloop export-model`. The file is opset 17 (trees: ai.onnx.ml 3), IR version 8. Its input `x` is
float32: (n, d) features of the encoder that the facts name, or (n, h, w, c) pixels in the range of training; its output
`probabilities` is (n, n_labels), calibrated as the model is. What is missing in x counts as it does in `predict_proba`.

Bad input                                        Answer
keras-cnn, models of regions, models by packages InvalidInputError naming the model: they have no graph here
fine-tune without `shape` or `x`                 InvalidInputError: the network takes any picture, a file one size
`x` of another width or shape than in training   InvalidInputError naming both
answers further apart than `tolerance`           IntegrityError naming how far, and no file
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from labelloop.errors import IntegrityError, InvalidInputError
from learning.algorithms.base import Model
from learning.algorithms.constant import ConstantModel
from learning.algorithms.contest import BestOfModel
from learning.algorithms.fine_tune import FineTuneModel
from learning.algorithms.linear_model import LinearModel
from learning.algorithms.small_cnn import SmallCnnModel
from learning.algorithms.svm import SvmModel
from learning.algorithms.tree_model import TreeModel
from learning.transfer import onnx_graph
from learning.transfer.calibration import CalibratedModel, inner

if TYPE_CHECKING:
    from onnx import ModelProto

TOLERANCE = 1e-4
FACTS = "labelloop"
_ROWS = 8  # random rows of the check
Shape = tuple[int | None, ...]


class Exported(NamedTuple):
    """`data` is the file; `shape` of one input; `difference` the largest between its answers and the model's on `rows` rows."""

    data: bytes
    shape: Shape
    difference: float
    rows: int


def export(
    model: Model,
    x: NDArray[Any] | None = None,
    shape: tuple[int, ...] | None = None,
    facts: Mapping[str, Any] | None = None,
    tolerance: float = TOLERANCE,
    seed: int = 0,
) -> Exported:
    """Return `model` as ONNX after comparing its answers on x, None = on random rows with some values missing.

    shape: of one picture (h, w, c), needed by fine-tune where there is no x. facts: what the file shall say of itself, JSON under
    the metadata key `labelloop`. Raises InvalidInputError and IntegrityError, see the module.
    """
    from onnx import helper

    bare = _bare(model)
    one = _shape(bare, x, shape)
    rows = _random_rows(bare, one, seed) if x is None else np.asarray(x, dtype=np.float32).reshape(-1, *one)
    written = _written(bare, model, one)
    helper.set_model_props(written, {FACTS: msgspec.json.encode(dict(facts or {})).decode()})
    data: bytes = written.SerializeToString()
    difference = _difference(data, _reference(bare, model), rows)
    if not difference <= tolerance:
        raise IntegrityError(f"the ONNX file's answers are up to {difference:.2g} from the model's, allowed is {tolerance:g}")
    return Exported(data, one, difference, len(rows))


def _bare(model: Model) -> Model:
    """Return what answers: without calibration, and of several members the winner."""
    bare = inner(model)
    return bare.winner if isinstance(bare, BestOfModel) else bare


def _written(bare: Model, model: Model, one: Shape) -> ModelProto:
    graph = onnx_graph.Graph()
    proba = _probabilities(graph, bare, one)
    if isinstance(model, CalibratedModel):
        proba = onnx_graph.calibrated(graph, proba, model.calibration)
    return graph.model(proba, one, model.n_labels)


def _probabilities(graph: onnx_graph.Graph, bare: Model, one: Shape) -> str:
    match bare:
        case LinearModel():
            return onnx_graph.linear(graph, onnx_graph.INPUT, bare)
        case SvmModel():
            return onnx_graph.svm(graph, onnx_graph.INPUT, bare)
        case TreeModel():
            return onnx_graph.trees(graph, onnx_graph.INPUT, bare)
        case ConstantModel():
            return onnx_graph.constant(graph, onnx_graph.INPUT, bare)
        case SmallCnnModel() | FineTuneModel():
            from learning.transfer.onnx_torch import network

            return network(graph, onnx_graph.INPUT, bare, one)  # type: ignore[arg-type]
    raise _unknown(bare)


def _unknown(model: Model) -> InvalidInputError:
    return InvalidInputError(
        f"a {type(model).__name__} has no ONNX graph here: export models of logistic-regression, linear-head, svm, random-forest, "
        "gradient-boosting, small-cnn, distilled or fine-tune (keras-cnn keeps its own .keras file)"
    )


def _shape(bare: Model, x: NDArray[Any] | None, shape: tuple[int, ...] | None) -> Shape:
    """Return the shape of one input. Raises InvalidInputError where model, x and `shape` do not agree or leave it open."""
    fixed = _trained_shape(bare)
    given = shape if shape is not None else None if x is None else np.asarray(x).shape[1:]
    if fixed is None:
        if given is None or len(given) != 3 or given[2] not in (1, 3):
            raise InvalidInputError(f"one picture's shape (height, width, 1 or 3 channels) is needed for fine-tune, got {given}")
        return tuple(given)
    is_alike = given is None or None in fixed or int(np.prod(given)) == int(np.prod(fixed))  # type: ignore[arg-type]
    if not is_alike:
        raise InvalidInputError(f"the model was trained on {fixed} an item, got {given}: use the same encoder")
    return fixed


def _trained_shape(bare: Model) -> Shape | None:
    match bare:
        case LinearModel() | TreeModel():
            return (len(bare.mean),)
        case SvmModel():
            return (len(bare.arrays["mean"]),)
        case ConstantModel():
            return (None,)
        case SmallCnnModel():
            return bare.pixels.shape
        case FineTuneModel():
            return None
    raise _unknown(bare)


def _random_rows(bare: Model, one: Shape, seed: int) -> NDArray[np.float32]:
    """Return rows like those of training: pictures over their range, features around their means; a tenth of two is missing."""
    rng = np.random.default_rng(seed)
    size = (_ROWS, *(3 if n is None else n for n in one))
    if isinstance(bare, SmallCnnModel | FineTuneModel):
        top = 255.0 / bare.unit if isinstance(bare, FineTuneModel) else 255.0
        x = rng.random(size) * top
    else:
        mean = bare.arrays["mean"] if isinstance(bare, SvmModel) else getattr(bare, "mean", np.float32(0))
        x = mean + rng.normal(size=size) * (np.abs(mean) + 0.1)
    x[:2][rng.random(x[:2].shape) < 0.1] = np.nan
    return x.astype(np.float32)


def _reference(bare: Model, model: Model) -> Model:
    """Return the model that the file must equal: a network on the CPU in float32, also where this machine has a GPU."""
    if not isinstance(bare, SmallCnnModel | FineTuneModel):
        return model
    from learning.transfer.onnx_torch import on_cpu

    here = on_cpu(bare)
    return CalibratedModel(here, model.calibration) if isinstance(model, CalibratedModel) else here


def _difference(data: bytes, model: Model, rows: NDArray[np.float32]) -> float:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    found = session.run([onnx_graph.OUTPUT], {onnx_graph.INPUT: rows})[0]
    return float(np.abs(found - model.predict_proba(rows)).max(initial=0.0))
