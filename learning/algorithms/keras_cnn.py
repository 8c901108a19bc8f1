"""keras-cnn: the small network for sites that run TensorFlow; kept as `.keras`, loaded in safe mode only.

After Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-Based Learning Applied to Document Recognition", Proc. IEEE, 1998. A
loop of its own in place of Keras's `fit`, so that a step is a step and resuming is exact. Needs the extra `tensorflow`.
"""

from __future__ import annotations

import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from labelloop.errors import IntegrityError, InvalidInputError
from learning.algorithms.base import Algorithm, Files, Model, Parameters, Training, is_soft, need
from learning.algorithms.batches import Batches, step_rng
from learning.algorithms.collective import part_of
from learning.algorithms.pixels import Pixels, fit_pixels, shift
from learning.algorithms.tensors import pack, unpack

FILE = "network.keras"
SCALE = "keras-cnn.json"
_STATE = "state.safetensors"
_PREDICT_ROWS = 256


class KerasCnnParameters(Parameters, frozen=True, kw_only=True):
    """As small-cnn, without dropout."""

    rate: Annotated[float, msgspec.Meta(gt=0, le=1, description="Step size.")] = 0.002
    batch: Annotated[int, msgspec.Meta(ge=1, description="Samples in a step.")] = 64
    width: Annotated[int, msgspec.Meta(ge=4, le=256, description="Channels of the first convolution.")] = 32
    shift_px: Annotated[int, msgspec.Meta(ge=0, le=16, description="Augmentation: most pixels an image is moved.")] = 1
    decay: Annotated[float, msgspec.Meta(ge=0, description="Decoupled weight decay.")] = 0.01


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """What the network's file does not say."""

    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    factor: tuple[float, ...]
    n_labels: int
    is_multilabel: bool
    width: int

    def pixels(self) -> Pixels:
        return Pixels(self.shape, np.array(self.mean, dtype=np.float32), np.array(self.factor, dtype=np.float32))


class KerasCnnModel(Model):
    """A Keras network that answers logits."""

    def __init__(self, network: Any, scale: Scale) -> None:
        import tensorflow as tf

        self.network, self.scale, self.n_labels = network, scale, scale.n_labels
        self._pixels = scale.pixels()
        signature = [tf.TensorSpec([None, *scale.shape], tf.float32)]
        # no autograph: nothing here branches on a tensor, and it leaves its generated files behind in a process that is killed
        self._answer = tf.function(lambda x: network(x, training=False), input_signature=signature, autograph=False)

    def predict_proba(self, x: NDArray[Any]) -> NDArray[np.float32]:
        from learning.algorithms.linear_model import sigmoid, softmax

        out = np.empty((len(x), self.n_labels), dtype=np.float32)
        for begin in range(0, len(x), _PREDICT_ROWS):
            rows = slice(begin, begin + _PREDICT_ROWS)
            out[rows] = self._answer(self._pixels.accept(x[rows], "keras-cnn")).numpy()
        return sigmoid(out) if self.scale.is_multilabel else softmax(out)

    def files(self) -> dict[str, bytes]:
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():  # Keras writes to paths only
            warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)  # TensorFlow's, under numpy 2
            path = Path(folder) / FILE
            self.network.save(path)
            return {FILE: path.read_bytes(), SCALE: msgspec.json.encode(self.scale)}


class KerasCnn(Algorithm):
    """See the module."""

    name = "keras-cnn"
    title = "Small convolutional network (TensorFlow)"
    framework = "tensorflow"
    input = "pixels"
    is_incremental = True
    sharing = "processes"
    has_soft_labels = True
    parameters = KerasCnnParameters
    file_names = (FILE, SCALE)

    def preload(self) -> None:
        _tensorflow()

    def _start(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        n_labels: int,
        is_multilabel: bool,
        settings: KerasCnnParameters,
        epoch: int,
        seed: int,
        start_from: Model | None,
    ) -> Training:
        _tensorflow()
        fitted = fit_pixels(x)
        scale = Scale(
            shape=fitted.shape,
            mean=tuple(map(float, fitted.mean)),
            factor=tuple(map(float, fitted.factor)),
            n_labels=n_labels,
            is_multilabel=is_multilabel,
            width=settings.width,
        )
        network = _network(scale, seed)
        if isinstance(start_from, KerasCnnModel) and _kin(start_from.scale) == _kin(scale):
            scale = start_from.scale
            network.set_weights(start_from.network.get_weights())
        return KerasTraining(network, scale, x, y, settings, epoch, seed)

    def _load(self, files: Files) -> Model:
        _tensorflow()
        import keras

        data, facts = need(files, FILE), need(files, SCALE)
        try:
            scale = msgspec.json.decode(facts, type=Scale)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / FILE
                path.write_bytes(data)
                return KerasCnnModel(keras.saving.load_model(path, compile=False, safe_mode=True), scale)
        except (msgspec.MsgspecError, ValueError, TypeError, KeyError, OSError, zipfile.BadZipFile) as exc:
            raise IntegrityError(f"{FILE} does not load in safe mode: {str(exc).splitlines()[0]}") from exc


class KerasTraining(Training):
    """AdamW over the batches of (seed, step); started inside the scope of a strategy, each process takes its part of them."""

    def __init__(
        self, network: Any, scale: Scale, x: NDArray[Any], y: NDArray[Any], settings: KerasCnnParameters, epoch: int, seed: int
    ) -> None:
        import keras
        import tensorflow as tf

        self._network, self._scale, self._pixels = network, scale, scale.pixels()
        self._x, self._y, self._settings, self._seed = x, y, settings, seed
        self._batches = Batches(len(x), settings.batch, seed)
        self.steps = self._batches.steps(epoch, least_steps=150)
        self._optimizer = keras.optimizers.AdamW(settings.rate, weight_decay=settings.decay)
        self._optimizer.build(network.trainable_variables)
        strategy = tf.distribute.get_strategy()
        self._size = int(strategy.num_replicas_in_sync)
        self._rank = int(strategy.cluster_resolver.task_id) if self._size > 1 else 0

        is_probability = is_soft(y)
        of_classes, of_shares = tf.nn.sparse_softmax_cross_entropy_with_logits, tf.nn.softmax_cross_entropy_with_logits
        cross_entropy = of_shares if is_probability else of_classes

        def step(images: Any, labels: Any, weights: Any) -> Any:
            with tf.GradientTape() as tape:
                logits = network(images, training=True)
                each = cross_entropy(labels=labels, logits=logits)
                loss = tf.reduce_sum(each * weights)
            gradients = tape.gradient(loss, network.trainable_variables)
            together = tf.distribute.get_replica_context().all_reduce("sum", [loss, *gradients])
            self._optimizer.apply_gradients(zip(together[1:], network.trainable_variables, strict=True))
            return together[0]

        signature = [
            tf.TensorSpec([None, *scale.shape], tf.float32),
            tf.TensorSpec([None, scale.n_labels], tf.float32) if is_probability else tf.TensorSpec([None], tf.int64),
            tf.TensorSpec([None], tf.float32),
        ]
        self._step = tf.function(lambda *batch: strategy.run(step, args=batch), input_signature=signature, autograph=False)

    def advance(self) -> float:
        if self.step >= self.steps:
            raise InvalidInputError(f"this training is done: its {self.steps} steps are taken")
        rows, part = self._batches.rows(self.step), part_of(self._rank, self._size)
        n_mine, weight = len(rows[part]), np.float32(1 / len(rows))
        if not n_mine:  # the last batch of an epoch may have fewer samples than there are ranks: one that counts nothing
            part, weight = slice(0, 1), np.float32(0)
        mine = rows[part]
        rng = step_rng(self._seed, self.step)
        images = shift(self._pixels.normalise(self._x[mine]), self._settings.shift_px, rng, len(rows), part)
        loss = float(self._step(images, self._y[mine], np.full(len(mine), weight)).numpy())
        self.step += 1
        self.n_seen += n_mine
        return loss

    def state(self) -> dict[str, bytes]:
        arrays = {f"weight.{i}": value for i, value in enumerate(self._network.get_weights())}
        for i, variable in enumerate(self._optimizer.variables):
            arrays[f"optimizer.{i}"] = np.asarray(variable)
        return {_STATE: pack(arrays, {"step": self.step, "steps": self.steps})}

    def restore(self, state: Files) -> None:
        arrays, facts = unpack(need(state, _STATE))
        if facts.get("steps") != self.steps:
            raise IntegrityError(f"the state is of a training of {facts.get('steps')} steps, this one has {self.steps}")
        try:
            self._network.set_weights([arrays[f"weight.{i}"] for i in range(len(self._network.get_weights()))])
            for i, variable in enumerate(self._optimizer.variables):
                variable.assign(arrays[f"optimizer.{i}"])
        except (KeyError, ValueError) as exc:
            raise IntegrityError(f"the state does not fit the network: {exc}") from exc
        self.step = int(facts["step"])

    def model(self) -> Model:
        network = _network(self._scale, 0)  # a copy: the next step must not change a model already handed out
        network.set_weights(self._network.get_weights())
        return KerasCnnModel(network, self._scale)


def _kin(scale: Scale) -> tuple[Any, ...]:
    return scale.shape, scale.n_labels, scale.is_multilabel, scale.width


def _tensorflow() -> None:
    """Import TensorFlow with deterministic kernels. Raises InvalidInputError naming the extra that installs it."""
    try:
        import keras
        import tensorflow as tf
    except ImportError as exc:
        raise InvalidInputError(
            "keras-cnn needs TensorFlow, which this node lacks: install the extra 'tensorflow' "
            "(pip install 'labelloop[tensorflow]') or use small-cnn"
        ) from exc
    if keras.backend.backend() != "tensorflow":
        raise InvalidInputError(f"keras-cnn needs Keras on TensorFlow, it runs on {keras.backend.backend()}: unset KERAS_BACKEND")
    tf.config.experimental.enable_op_determinism()


def _network(scale: Scale, seed: int) -> Any:
    import keras

    def start(place: int) -> Any:
        return keras.initializers.HeUniform(seed=(seed * 8 + place) % 2**31)

    height, breadth, _ = scale.shape
    layers: list[Any] = [keras.layers.Input(scale.shape)]
    for place, width in enumerate((scale.width, 2 * scale.width, 2 * scale.width)):
        layers.append(keras.layers.Conv2D(width, 3, padding="same", activation="relu", kernel_initializer=start(place)))
        if min(height, breadth) >= 4:
            layers.append(keras.layers.MaxPooling2D(2))
            height, breadth = height // 2, breadth // 2
    if max(height, breadth) > 8:
        layers.append(keras.layers.GlobalAveragePooling2D())
    layers += [keras.layers.Flatten(), keras.layers.Dense(scale.n_labels, kernel_initializer=start(7))]
    return keras.Sequential(layers)


ALGORITHM = KerasCnn()
