"""One attempt at a run, from its claim to the run's end: load, fit, evaluate, publish, gate.

Owns the order of these steps. Must never write below another attempt's folder, nor
publish once it has seen a higher attempt, a cancellation or an end. Called by the training child.
"""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Literal, NoReturn

import numpy as np

from datastore_layout.models import (
    Manifest,
    Pointer,
    list_versions,
    publish_model,
    read_manifest,
    verified_model_dir,
    write_verdict,
)
from datastore_layout.root import TaskFolder
from datastore_layout.runs import (
    Attempt,
    Checkpoint,
    RunSpec,
    cancel_reason,
    claim_attempt,
    finish,
    newest_checkpoint,
    read_finish,
    read_run,
)
from datastore_layout.training_sets import TrainingSet, read_training_set
from intake.pipeline import preprocess_record
from labelloop.errors import CancelledError, LabelloopError, NotReadyError
from labelloop.settings import Settings
from learning.algorithms import Model, Training, find_algorithm
from learning.transfer.calibration import calibrate
from roles.hints import RunHint
from roles.train.crew import Crew
from roles.train.evaluation import Standing, held_out_metrics, stand, stand_without
from roles.train.fitting import Fitting, Stepper
from roles.train.gate import Gate, judge
from roles.train.gate_view import gate_view
from roles.train.lease import Lease
from roles.train.owner import Owner, SpreadError
from roles.train.publishing import settle
from roles.train.samples import Part, Samples, load_features, load_samples
from roles.train.sharing import Here, fingerprint_of
from roles.train.soft_labels import learnable, soften
from roles.train.views import STEPS

logger = logging.getLogger(__name__)

LIBRARIES = {"sklearn": "scikit-learn", "torch": "torch", "tensorflow": "tensorflow-cpu"}


class SupersededError(LabelloopError):
    """A higher attempt was claimed or the run has ended: this attempt stops without another word."""

    code = "conflict"


class Stopwatch:
    """Seconds of each named step, for the log of the run."""

    def __init__(self) -> None:
        self.began_s = time.perf_counter()
        self.steps: dict[str, float] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the block's seconds to `name`."""
        since_s = time.perf_counter()
        try:
            yield
        finally:
            self.steps[name] = self.steps.get(name, 0.0) + time.perf_counter() - since_s

    def sentence(self) -> str:
        """Return "load 0.012 s, fit 0.040 s, ..."."""
        return ", ".join(f"{name} {seconds:.3f} s" for name, seconds in self.steps.items())


def library_versions(framework: str) -> dict[str, str]:
    """Return the versions that a manifest names for a model of `framework`."""
    found = {"python": platform.python_version(), "numpy": np.__version__}
    for name in (LIBRARIES.get(framework, framework), "labelloop"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def run_attempt(folder: TaskFolder, hint: RunHint, settings: Settings, here: Here | None = None) -> str:
    """Claim the hinted attempt and bring its run to an end; return one sentence for the log. `here` None = nobody can help.

    Raises retryable errors of the datastore and what a defect raises: the supervisor starts the next attempt then.
    """
    if read_finish(folder, hint.run) is not None:
        return f"run {hint.run} has ended already"
    algorithm = find_algorithm(read_run(folder, hint.run).algorithm)
    is_led = algorithm.sharing == "processes" and not settings.train.distribute_from_s and here is not None and bool(here.others())
    if not is_led:
        algorithm.preload()  # before there is a lease that a long import would let die
    checkpoint = newest_checkpoint(folder, hint.run) if hint.attempt > 1 else None
    attempt = claim_attempt(folder, hint.run, hint.attempt, checkpoint)
    if attempt is None:
        return f"attempt {hint.attempt} of run {hint.run} was claimed by another worker"
    lease = Lease(attempt, settings.train.lease_s / 3)
    try:
        work = Work(folder, read_run(folder, hint.run), attempt, settings, here or Here())
        return work.lead() if is_led else work.do()
    except SpreadError as exc:
        logger.info("run %d goes on in processes of several nodes: %s", hint.run, exc)
        return work.lead()
    except SupersededError as exc:
        return str(exc)
    finally:
        lease.close()


class Work:
    """The steps of one claimed attempt; of these, `load` and `start` are every rank's."""

    def __init__(self, folder: TaskFolder, spec: RunSpec, attempt: Attempt, settings: Settings, here: Here) -> None:
        self._folder = folder
        self._run = spec
        self._attempt = attempt
        self._settings = settings
        self._here = here
        self._watch = Stopwatch()
        self._algorithm = find_algorithm(spec.algorithm)
        self._serving: dict[str, tuple[Model, Manifest]] = {}
        self._last_point: tuple[int, float | None] = (0, None)

    def do(self) -> str:
        """Do all steps; return how the run ended."""
        try:
            return self._do()
        except CancelledError as exc:
            return self._end("cancelled", str(exc))
        except LabelloopError as exc:
            if exc.is_retryable or isinstance(exc, SupersededError):
                raise
            logger.error("run %d fails: %s", self._run.run, exc)
            return self._end("failed", str(exc))

    def _do(self) -> str:
        with self._watch.step("load"):
            frozen, samples = self.load()
        version = self._published_before()
        if version is None:
            model, reason = self._fit(frozen, samples)
            version = self._publish(frozen, samples, model, reason)
        else:
            model = self._load(version)[0]
        with self._watch.step("gate"):
            verdict = self._gate(frozen, samples, model, version)
        return self._end("done", verdict, version)

    def lead(self) -> str:
        """Let processes on several nodes do all steps; return how that ended."""
        from roles.train.lead import Lead

        try:
            _, samples = self.load()
            crew = Crew(self._attempt, self._here, self._settings.train, fingerprint_of(samples, 0, False), 0, self._stop_if_over)
            return Lead(crew, self._settings.train, self._stop_if_over).run()
        except CancelledError as exc:
            return self._end("cancelled", str(exc))

    # ------------------------------------------------------------ steps

    def load(self) -> tuple[TrainingSet, Samples]:
        """Return what the run learns from. Raises NotReadyError while it is not written, InvalidInputError when it does not do."""
        frozen = read_training_set(self._folder, self._run.run)
        if frozen is None:
            raise NotReadyError(f"the training set of run {self._run.run} is not there yet")
        share = self._settings.train.held_out_share
        seen = learnable(frozen, share)
        samples = load_samples(self._folder, seen, self._run.encoder, share, self._settings.intake)
        return frozen, soften(samples, frozen.spec, self._algorithm.has_soft_labels)

    def start(self, frozen: TrainingSet, samples: Samples) -> tuple[Training, bool]:
        """Return the training at step 0 and whether it starts from the serving version's weights."""
        extra, run, start_from = frozen.spec.extra, self._run, self._start_from(frozen)
        part, is_multilabel = samples.train, extra.kind == "multilabel"
        with self.begin():
            training = self._algorithm.start(
                part.x, part.y, len(extra.labels), is_multilabel, run.parameters, run.epoch, run.seed, start_from
            )
        return training, start_from is not None

    def _fit(self, frozen: TrainingSet, samples: Samples) -> tuple[Model, str]:
        train = self._settings.train
        with self._watch.step("fit"):
            training, has_start = self.start(frozen, samples)
            stepper = self.stepper(training, samples, has_start)
            fitting = Fitting(stepper, self._attempt, samples.held_out, train.checkpoint_s, self._stop_if_over)
            checkpoint = self.checkpoint()
            if checkpoint is not None:
                fitting.resume(checkpoint)
            model, reason = fitting.run()
            self._last_point = training.steps, fitting.loss
        with self._watch.step("calibrate"):
            model, how = _calibrated(model, samples.held_out)
        return model, "; ".join(said for said in (reason, training.note, how) if said)

    def begin(self) -> AbstractContextManager[object]:
        """Return what a training is started in."""
        return nullcontext()

    def stepper(self, training: Training, samples: Samples, has_start: bool) -> Stepper:
        """Return who takes the steps."""
        train = self._settings.train
        fingerprint = fingerprint_of(samples, training.steps, has_start)
        crew = Crew(self._attempt, self._here, train, fingerprint, training.step, self._stop_if_over)
        return Owner(training, crew, train, self._algorithm.sharing, len(samples.train.rows), self._stop_if_over)

    def checkpoint(self) -> Checkpoint | None:
        """Return the checkpoint to go on from."""
        return self._attempt.start_checkpoint()

    def _start_from(self, frozen: TrainingSet) -> Model | None:
        """Return the serving model's weights for an incremental algorithm, None where they do not fit or are gone."""
        if not self._algorithm.is_incremental or not self._run.start_version:
            return None
        try:
            manifest = read_manifest(self._folder, self._run.start_version)
            wanted = (self._run.algorithm, self._run.encoder, frozen.spec.extra.labels)
            if (manifest.algorithm, manifest.encoder, manifest.labels) != wanted:
                return None
            return self._load(self._run.start_version)[0]
        except LabelloopError as exc:
            logger.warning("run %d starts from nothing, %s cannot be loaded: %s", self._run.run, self._run.start_version, exc)
            return None

    def _publish(self, frozen: TrainingSet, samples: Samples, model: Model, reason: str) -> str:
        with self._watch.step("evaluate"):
            metrics = held_out_metrics(model, samples.held_out)
        self._stop_if_over()
        seconds = time.perf_counter() - self._watch.began_s
        manifest = Manifest(
            task=self._folder.task,
            category=frozen.spec.category,
            labels=frozen.spec.extra.labels,
            algorithm=self._run.algorithm,
            encoder=self._run.encoder,
            parameters=self._run.parameters,
            preprocess=preprocess_record(frozen.spec, self._run.encoder, self._folder),
            label_position=self._run.label_position,
            n_labels=len(samples.train.rows) + len(samples.held_out.rows),
            metrics=metrics,
            parent=self._run.start_version,
            run=self._run.run,
            libraries=library_versions(self._algorithm.framework),
            seconds=round(seconds, 4),
        )
        with self._watch.step("publish"), tempfile.TemporaryDirectory(prefix="labelloop-model-") as source:
            model.save(Path(source))
            version = publish_model(self._folder, manifest, Path(source))
        step, loss = self._last_point
        self._attempt.write_metrics(step, loss, {STEPS: step, **metrics})
        logger.info("version %s is published: %s", version, reason)
        return version

    def _gate(self, frozen: TrainingSet, samples: Samples, model: Model, version: str) -> str:
        part, labels = samples.held_out, frozen.spec.extra.labels
        everywhere = np.ones(len(part.rows), dtype=np.bool_)
        new = stand(model, read_manifest(self._folder, version), part, part.x, everywhere, labels)
        old: dict[str, Standing | None] = {"": None}

        def ask(pointer: Pointer | None, moved_by_person: bool) -> tuple[Gate, str]:
            serving = pointer.version if pointer else ""
            if serving not in old:
                old[serving] = self._standing_of(serving, frozen, part)
            self._stop_if_over()
            return judge(gate_view(new, old[serving], part, serving, frozen.pointer, pointer, moved_by_person))

        settled = settle(self._folder, version, ask, frozen.pointer)
        write_verdict(self._folder, version, settled.is_served, settled.reason)
        return settled.reason

    def _standing_of(self, version: str, frozen: TrainingSet, part: Part) -> Standing:
        """Return how the serving version does on the same held-out items; wrong everywhere when it cannot be loaded."""
        try:
            model, manifest = self._load(version)
        except LabelloopError as exc:
            logger.error("the serving version %s cannot be loaded, so it counts as wrong everywhere: %s", version, exc)
            return stand_without(part)
        x, keep = part.x, np.ones(len(part.rows), dtype=np.bool_)
        if manifest.encoder != self._run.encoder:
            rows, x = load_features(self._folder, frozen.spec, manifest.encoder, part.rows, self._settings.intake)
            has = {row.item_id for row in rows}
            keep = np.array([row.item_id in has for row in part.rows])
        return stand(model, manifest, part, x, keep, frozen.spec.extra.labels)

    # ------------------------------------------------------------ what others did meanwhile

    def _load(self, version: str) -> tuple[Model, Manifest]:
        if version not in self._serving:
            manifest = read_manifest(self._folder, version)
            model = find_algorithm(manifest.algorithm).load(verified_model_dir(self._folder, version))
            self._serving[version] = model, manifest
        return self._serving[version]

    def _published_before(self) -> str | None:
        """Return the version that an earlier attempt of this run published before it died, None = none did."""
        if self._attempt.k == 1:
            return None
        for version in reversed(list_versions(self._folder)):
            try:
                manifest = read_manifest(self._folder, version)
            except LabelloopError:  # a damaged or vanished neighbour is not ours
                continue
            if manifest.run == self._run.run:
                return version
        return None

    def _stop_if_over(self) -> None:
        if (reason := cancel_reason(self._folder, self._run.run)) is not None:
            raise CancelledError(reason)
        if not self._attempt.is_latest():
            self._superseded("a higher attempt was claimed")
        if read_finish(self._folder, self._run.run) is not None:
            self._superseded("the run has ended")

    def _superseded(self, why: str) -> NoReturn:
        raise SupersededError(f"attempt {self._attempt.k} of run {self._run.run} stops: {why}")

    def _end(self, state: Literal["done", "failed", "cancelled"], reason: str, version: str = "") -> str:
        seconds = round(time.perf_counter() - self._watch.began_s, 4)
        text = f"run {self._run.run} attempt {self._attempt.k} {state} in {seconds:.3f} s ({self._watch.sentence()}): {reason}"
        finish(self._folder, self._run.run, state, reason, version, seconds)
        self._attempt.append_log(f"{text}\n")
        return text


def _calibrated(model: Model, part: Part) -> tuple[Model, str]:
    """Return the model with calibrated probabilities and what was done; the confidence of regions is their algorithm's own."""
    return (model, "") if isinstance(part.y, list) else calibrate(model, part.x, part.y)
