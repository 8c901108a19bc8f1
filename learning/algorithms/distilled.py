"""distilled: a fine-tuned teacher, then a small network that learns from its probabilities and is quick enough to serve.

G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", NIPS Deep Learning Workshop 2015: the student's loss
mixes the labels' cross entropy with the distance to the teacher's probabilities, both softened by a temperature and scaled by its
square. The student is a small-cnn of the largest width that meets the latency asked for on this machine. Only the student becomes a
model. Steps are not shared over nodes: two machines would measure two students.

Bad input                                   Answer
no width quick enough                       InvalidInputError at the first step, naming what the quickest takes
a state of another plan                     IntegrityError
labels that are probabilities               InvalidInputError naming logistic-regression (the teacher is the soft labels here)
widths empty, not multiples of 8            InvalidInputError naming the parameter
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from labelloop.errors import IntegrityError, InvalidInputError
from learning.algorithms import fine_tune, small_cnn
from learning.algorithms.base import Algorithm, Files, Model, Parameters, Training, need
from learning.algorithms.small_cnn import SmallCnnModel, SmallCnnParameters
from learning.algorithms.tensors import pack, unpack
from learning.transfer.latency import Measure, batch_of, largest_within, measure_ms

if TYPE_CHECKING:
    import torch

STATE, TEACHER, STUDENT, RECORD = "distilled.safetensors", "teacher.safetensors", "student.safetensors", "student.json"
_LEAST_STEPS = 150
Width = Annotated[int, msgspec.Meta(ge=8, le=256, multiple_of=8)]
Teacher = Callable[[NDArray[Any], NDArray[Any], int, bool, Any, int], Training]


class DistilledParameters(Parameters, frozen=True, kw_only=True):
    """`soft_share` of the loss is the teacher's, the rest the labels'; `latency_ms` is for one call with `latency_batch` items."""

    teacher_depth: Annotated[Literal["head", "last-blocks", "all"], msgspec.Meta(description="How deep the teacher is tuned.")] = (
        "last-blocks"
    )
    teacher_blocks: Annotated[int, msgspec.Meta(ge=0, le=16, description="Blocks of the teacher where depth is last-blocks.")] = 1
    teacher_epoch: Annotated[int, msgspec.Meta(ge=0, description="Passes of the teacher; 0 = fine-tune's default.")] = 0
    temperature: Annotated[float, msgspec.Meta(ge=1, le=20, description="How much both sides' probabilities are softened.")] = 3.0
    soft_share: Annotated[float, msgspec.Meta(ge=0, le=1, description="Share of the loss that is the teacher's.")] = 0.7
    latency_ms: Annotated[float, msgspec.Meta(ge=0, description="Milliseconds a student may take; 0 = any.")] = 0.0
    latency_batch: Annotated[int, msgspec.Meta(ge=1, le=1024, description="Items in the call that is measured.")] = 1
    widths: Annotated[tuple[Width, ...], msgspec.Meta(min_length=1, description="Channels of the students to choose from.")] = (
        8,
        16,
        32,
        64,
    )
    side: Annotated[int, msgspec.Meta(ge=8, le=256, description="Longest side the student sees, pixels.")] = 64
    rate: Annotated[float, msgspec.Meta(gt=0, le=1, description="Largest step size of the student.")] = 0.003
    batch: Annotated[int, msgspec.Meta(ge=1, description="Samples in a step of the student.")] = 64

    def student(self, width: int) -> SmallCnnParameters:
        """Return the parameters of the student of `width`."""
        return SmallCnnParameters(width=width, side=self.side, rate=self.rate, batch=self.batch)


class DistilledModel(SmallCnnModel):
    """The student; `record` says how it was chosen."""

    def __init__(self, student: SmallCnnModel, record: dict[str, Any]) -> None:
        super().__init__(student.weights, student.pixels, student.n_labels, student.is_multilabel, student.width, student.side)
        self.record = record

    def files(self) -> dict[str, bytes]:
        return {**super().files(), RECORD: msgspec.json.encode(self.record)}


class DistilledTraining(Training):
    """First the teacher's steps, then the student's. The checkpoint holds whichever of the two is at work."""

    def __init__(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        n_labels: int,
        is_multilabel: bool,
        settings: DistilledParameters,
        epoch: int,
        seed: int,
        measure: Measure,
        teacher: Teacher,
    ) -> None:
        from learning.algorithms.batches import Batches

        self._x, self._y, self._n_labels, self._is_multilabel = x, y, n_labels, is_multilabel
        self._settings, self._epoch, self._seed, self._measure = settings, epoch, seed, measure
        self._begin_teacher: Callable[[], Training] = lambda: teacher(x, y, n_labels, is_multilabel, settings, seed)
        self._teacher: Training | None = self._begin_teacher()
        self._teacher_steps = self._teacher.steps
        self._student: Training | None = None
        self._soft: NDArray[np.float32] | None = None
        self._width = 0
        self.steps = self._teacher_steps + Batches(len(x), settings.batch, seed).steps(epoch, least_steps=_LEAST_STEPS)

    def advance(self) -> float:
        if self.step >= self.steps:
            raise InvalidInputError(f"this training is done: its {self.steps} steps are taken")
        self._choose()
        at_work = self._at_work()
        seen = at_work.n_seen
        loss = at_work.advance()
        self.step += 1
        self.n_seen += at_work.n_seen - seen
        return loss

    def _at_work(self) -> Training:
        if self.step < self._teacher_steps:
            assert self._teacher is not None
            return self._teacher
        if self._soft is None:
            assert self._teacher is not None
            self._soft = self._teacher.model().predict_proba(self._x)
            self._teacher = None  # its weights have said what they know
        return self._begin_student()

    def _begin_student(self) -> Training:
        if self._student is None:
            self._student = self._start(self._width, self._distance)
        return self._student

    def _start(self, width: int, loss: small_cnn.Loss | None = None) -> Training:
        return small_cnn.start(
            self._x,
            self._y,
            self._n_labels,
            self._is_multilabel,
            self._settings.student(width),
            self._epoch,
            self._seed,
            loss=loss,
        )

    def _choose(self) -> None:
        if self._width:
            return
        x = batch_of(self._x, self._settings.latency_batch)
        widths = sorted(set(self._settings.widths))
        took_ms = dict.fromkeys(widths, 0.0)
        if self._settings.latency_ms:
            took_ms = {width: self._measure(self._start(width).model().predict_proba, x) for width in widths}
        self._width, self.note = largest_within(took_ms, self._settings.latency_ms, self._settings.latency_batch)

    def _distance(self, logits: torch.Tensor, rows: NDArray[np.int64]) -> torch.Tensor:
        import torch

        assert self._soft is not None
        target, soft = (torch.from_numpy(part[rows]).to(logits.device) for part in (self._y, self._soft))
        return mixed_loss(logits, target, soft, self._settings.temperature, self._settings.soft_share)

    def state(self) -> dict[str, bytes]:
        facts = {"step": self.step, "steps": self.steps, "width": self._width, "note": self.note}
        files = {STATE: pack({} if self._soft is None else {"soft": self._soft}, facts)}
        if self._student is not None and self.step > self._teacher_steps:
            return {**files, STUDENT: self._student.state()[_TORCH]}
        return files if self._teacher is None else {**files, TEACHER: self._teacher.state()[_TORCH]}

    def restore(self, state: Files) -> None:
        arrays, facts = unpack(need(state, STATE))
        if facts.get("steps") != self.steps:
            raise IntegrityError(f"the state is of a training of {facts.get('steps')} steps, this one has {self.steps}")
        self.step, self._width, self.note = int(facts["step"]), int(facts["width"]), str(facts["note"])
        self._student, self._soft = None, arrays.get("soft")
        if TEACHER in state:
            self._teacher = self._begin_teacher()
            self._teacher.restore({_TORCH: state[TEACHER]})
        if STUDENT in state:
            self._begin_student().restore({_TORCH: state[STUDENT]})

    def model(self) -> Model:
        """Return the student, untrained while the teacher learns: only it is ever published."""
        self._choose()
        student = self._start(self._width) if self.step <= self._teacher_steps else self._begin_student()
        found = student.model()
        assert isinstance(found, SmallCnnModel)
        return DistilledModel(found, {"width": self._width, "reason": self.note})


_TORCH = "state.safetensors"


def mixed_loss(
    logits: torch.Tensor, target: torch.Tensor, soft: torch.Tensor, temperature: float, soft_share: float
) -> torch.Tensor:
    """Return `soft_share` x temperature^2 x KL(teacher || student), both softened, plus the rest x the labels' cross entropy.

    logits (n, k) of the student; target (n,) class numbers or (n, k) of 0/1; soft (n, k) the teacher's probabilities.
    """
    import torch.nn.functional as functional

    from learning.algorithms.torch_training import loss_of

    hard = loss_of(logits, target.float() if target.ndim == 2 else target)
    near = soft.double().clamp(1e-12, 1 - 1e-12)
    if target.ndim == 2:
        wanted = ((near.log() - (-near).log1p()) / temperature).sigmoid().float()
        distance = functional.binary_cross_entropy_with_logits(logits / temperature, wanted)
    else:
        wanted = (near.log() / temperature).log_softmax(dim=1).float()
        distance = functional.kl_div((logits / temperature).log_softmax(dim=1), wanted, reduction="batchmean", log_target=True)
    return soft_share * temperature**2 * distance + (1 - soft_share) * hard


def fine_tuned(
    x: NDArray[Any], y: NDArray[Any], n_labels: int, is_multilabel: bool, settings: DistilledParameters, seed: int
) -> Training:
    """Return the training of the teacher that `settings` asks for."""
    deep = fine_tune.FineTuneParameters(depth=settings.teacher_depth, blocks=settings.teacher_blocks)
    return fine_tune.ALGORITHM._start(x, y, n_labels, is_multilabel, deep, settings.teacher_epoch, seed, None)


class Distilled(Algorithm):
    """See the module. `measure` and `teacher` are what tests give their own of."""

    name = "distilled"
    title = "Small network taught by a fine-tuned one"
    framework = "torch"
    input = "pixels"
    has_multilabel = True
    parameters = DistilledParameters
    file_names = (small_cnn.FILE, RECORD)

    def __init__(self, measure: Measure = measure_ms, teacher: Teacher = fine_tuned) -> None:
        self._measure, self._teacher = measure, teacher

    def preload(self) -> None:
        fine_tune.ALGORITHM.preload()

    def _start(
        self,
        x: NDArray[Any],
        y: NDArray[Any],
        n_labels: int,
        is_multilabel: bool,
        settings: DistilledParameters,
        epoch: int,
        seed: int,
        start_from: Model | None,
    ) -> Training:
        return DistilledTraining(x, y, n_labels, is_multilabel, settings, epoch, seed, self._measure, self._teacher)

    def _load(self, files: Files) -> Model:
        student = small_cnn.ALGORITHM._load(files)
        assert isinstance(student, SmallCnnModel)
        try:
            return DistilledModel(student, msgspec.json.decode(need(files, RECORD), type=dict[str, Any]))
        except msgspec.MsgspecError as exc:
            raise IntegrityError(f"{RECORD} is malformed: {exc}") from exc


ALGORITHM = Distilled()
