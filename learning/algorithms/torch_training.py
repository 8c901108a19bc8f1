"""One training loop for all torch algorithms: AdamW, warm-up and cosine, exact resume.

Owns device, optimizer, randomness and state. Must never import torch at module level (listing algorithms stays cheap) nor use
torch.save (pickle). Called by linear-head, small-cnn and fine-tune, which bring the network and the batch.
On a GPU the forward pass runs in bfloat16 and weights stay float32; on a CPU everything is float32 and bit-reproducible.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from labelloop.errors import IntegrityError, InvalidInputError
from learning.algorithms.base import Files, Model, Training, is_soft, need
from learning.algorithms.batches import Batches, step_rng
from learning.algorithms.collective import Collective, part_of
from learning.algorithms.early_stop import EarlyStop
from learning.algorithms.tensors import pack, unpack
from learning.threads import few_torch_threads

if TYPE_CHECKING:
    import torch

STATE = "state.safetensors"
_KEPT_ROWS = 32  # samples kept aside that pass together
_WARM_UP = 0.1  # share of the steps over which the rate rises


class Group(NamedTuple):
    """Parameters trained at one `rate`, with AdamW's `decay`."""

    parameters: Sequence[torch.nn.Parameter]
    rate: float
    decay: float


class Network(NamedTuple):
    """What an algorithm brings.

    `module` holds every weight that trains; `logits(rows, part, rng)` its output for `rows[part]` of the training set; it draws
    from `rng` for all `rows`, so that a sample is augmented alike whoever computes it. `penalty()` is added to each loss;
    `make_model()` reads the model off the weights; `work` is multiply-adds of a step's forward. No layer may keep statistics
    of a batch: a rank sees only a part of it. `stop` ends the training early, see `TorchTraining`; `loss(logits, rows)`, a mean
    over the rows, stands in for `loss_of` where it is not the labels' cross entropy.
    """

    module: torch.nn.Module
    groups: Sequence[Group]
    logits: Callable[[NDArray[np.int64], slice, np.random.Generator], torch.Tensor]
    penalty: Callable[[], torch.Tensor] | None
    make_model: Callable[[], Model]
    work: float
    stop: EarlyStop | None = None
    loss: Callable[[torch.Tensor, NDArray[np.int64]], torch.Tensor] | None = None


class TorchTraining(Training):
    """Drives a `Network` over the batches of (seed, step).

    With `Network.stop` the samples kept aside are judged at the beginning of a step, so that their loss travels with that step's
    gradients and all ranks decide alike; one step more than there are batches judges the last weights. The step that ends the
    training changes no weight but goes back to the best ones: `steps` is then what was done.
    """

    def __init__(self, network: Network, y: NDArray[Any], batches: Batches, steps: int, seed: int) -> None:
        import torch

        self._network, self._batches, self._seed = network, batches, seed
        self.steps = self._planned = steps + (network.stop is not None)
        self._device = next(network.module.parameters()).device
        self._is_soft = is_soft(y)
        target = torch.from_numpy(y.astype(np.float32) if y.ndim == 2 else y)
        self._target = target.to(self._device)
        groups = [{"params": list(g.parameters), "lr": g.rate, "weight_decay": g.decay} for g in network.groups]
        self._optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.99))
        self._rates = [g.rate for g in network.groups]
        self._collective: Collective | None = None

    def share(self, collective: Collective | None) -> None:
        self._collective = collective

    def advance(self) -> float:
        with few_torch_threads(self._network.work):
            return self._advance()

    def _advance(self) -> float:
        if self.step >= self.steps:
            raise InvalidInputError(f"this training is done: its {self.steps} steps are taken")
        stop = self._network.stop
        if stop is not None and (stop.looks_at(self.step) or self.step == self._planned - 1):
            return self._advance_or_stop(stop)
        return self._learn([])

    def _advance_or_stop(self, stop: EarlyStop) -> float:
        """Judge the weights as they are; then learn from one more batch, or end with the best weights."""
        kept = self._kept_loss(stop)
        if self.step < self._planned - 1:
            loss = self._learn([kept], is_applied=lambda: not stop.is_over(self.step, float(kept), self._weights))
            if self.step < self.steps:
                return loss
        else:
            if self._collective is not None:
                self._collective.sum_([kept], 0)
            loss = float(kept)
            stop.is_over(self.step, loss, self._weights)
            self.step += 1
        if stop.weights:
            load_weights(self._network.module, stop.weights)
        return loss

    def _weights(self) -> dict[str, NDArray[Any]]:
        return {name: read(value) for name, value in self._network.module.state_dict().items()}

    def _learn(self, also: list[torch.Tensor], is_applied: Callable[[], bool] | None = None) -> float:
        """Learn from the step's batch; `also` is summed over the ranks with its gradients. `is_applied` False = end instead."""
        import torch

        rng = step_rng(self._seed, self.step)
        rows = self._batches.rows(self.step)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * _schedule(self.step, self._planned)
        self._network.module.train()
        part = slice(None) if self._collective is None else part_of(self._collective.rank, self._collective.size)
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(int(rng.integers(2**62)))
            self._optimizer.zero_grad(set_to_none=True)
            loss = self._backward(rows, part, rng)
            if self._collective is not None:
                self._collective.sum_([loss, *also, *self._gradients()], len(rows[part]))
            if is_applied is None or is_applied():
                self._optimizer.step()
            else:
                self.steps = self.step + 1
        self.step += 1
        self.n_seen += len(rows[part])
        return float(loss)

    def _backward(self, rows: NDArray[np.int64], part: slice, rng: np.random.Generator) -> torch.Tensor:
        """Leave the gradients of this rank's part of the global batch's mean loss; return that part of the loss."""
        import torch

        mine = rows[part]
        if not len(mine):  # the last batch of an epoch may have fewer samples than there are ranks
            return torch.zeros((), device=self._device)
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._device.type == "cuda"):
            logits = self._network.logits(rows, part, rng)
        loss = self._loss_of(logits.float(), mine)
        if self._collective is not None:
            loss = loss * (len(mine) / len(rows))
        if self._network.penalty is not None and (self._collective is None or self._collective.rank == 0):
            loss = loss + self._network.penalty()
        loss.backward()
        return loss.detach()

    def _loss_of(self, logits: torch.Tensor, rows: NDArray[np.int64]) -> torch.Tensor:
        import torch

        if self._network.loss is not None:
            return self._network.loss(logits, rows)
        return loss_of(logits, self._target[torch.from_numpy(rows).to(self._device)], self._is_soft)

    def _kept_loss(self, stop: EarlyStop) -> torch.Tensor:
        """Return this rank's part of the mean loss on the samples kept aside."""
        import torch

        mine = stop.rows if self._collective is None else stop.rows[part_of(self._collective.rank, self._collective.size)]
        total = torch.zeros((), device=self._device)
        rng = step_rng(self._seed, self.step)
        self._network.module.eval()
        with torch.no_grad(), torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=self._device.type == "cuda"):
            for begin in range(0, len(mine), _KEPT_ROWS):
                rows = mine[begin : begin + _KEPT_ROWS]
                logits = self._network.logits(rows, slice(None), rng)
                total += self._loss_of(logits.float(), rows) * (len(rows) / len(stop.rows))
        return total

    def _gradients(self) -> list[torch.Tensor]:
        """Return the gradient of each trained parameter, zeros where this rank's part was empty."""
        import torch

        for parameter in self._parameters():
            if parameter.requires_grad and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        return [parameter.grad for parameter in self._parameters() if parameter.grad is not None]

    def state(self) -> dict[str, bytes]:
        arrays = {f"weight.{name}": read(value) for name, value in self._network.module.state_dict().items()}
        for place, parameter in enumerate(self._parameters()):
            kept = self._optimizer.state.get(parameter)
            if kept:
                arrays[f"first.{place}"], arrays[f"second.{place}"] = read(kept["exp_avg"]), read(kept["exp_avg_sq"])
        facts: dict[str, Any] = {"step": self.step, "steps": self._planned}
        if self._network.stop is not None:
            arrays.update(self._network.stop.arrays())
            facts |= {"end": self.steps, **self._network.stop.facts()}
        return {STATE: pack(arrays, facts)}

    def restore(self, state: Files) -> None:
        import torch

        arrays, facts = unpack(need(state, STATE))
        if facts.get("steps") != self._planned:
            raise IntegrityError(f"the state is of a training of {facts.get('steps')} steps, this one has {self._planned}")
        load_weights(self._network.module, {k.removeprefix("weight."): v for k, v in arrays.items() if k.startswith("weight.")})
        self._optimizer.state.clear()
        for place, parameter in enumerate(self._parameters()):
            if f"first.{place}" in arrays:
                self._optimizer.state[parameter] = {
                    "step": torch.tensor(float(facts["step"])),
                    "exp_avg": torch.from_numpy(arrays[f"first.{place}"].copy()).to(parameter),
                    "exp_avg_sq": torch.from_numpy(arrays[f"second.{place}"].copy()).to(parameter),
                }
        self.step = int(facts["step"])
        if self._network.stop is not None:
            try:
                self.steps = int(facts["end"])
                self._network.stop.restore(arrays, facts)
            except KeyError as exc:
                raise IntegrityError(f"the state lacks {exc}: it is of a training that does not stop early") from exc

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [parameter for group in self._optimizer.param_groups for parameter in group["params"]]

    def model(self) -> Model:
        self._network.module.eval()
        return self._network.make_model()


def _schedule(step: int, steps: int) -> float:
    warm = max(1, round(steps * _WARM_UP))
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm))) * 0.98 + 0.02


def loss_of(logits: torch.Tensor, target: torch.Tensor, is_soft: bool = False) -> torch.Tensor:
    """Return cross entropy for class numbers (n,) or soft labels (n, k), mean binary cross entropy for several labels (n, k)."""
    import torch.nn.functional as functional

    if target.ndim == 2 and not is_soft:
        return functional.binary_cross_entropy_with_logits(logits, target)
    return functional.cross_entropy(logits, target)


def choose_device() -> torch.device:
    """Return the GPU where there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def seeded(seed: int, make: Callable[[], Any]) -> Any:
    """Return `make()` with torch's generator at `seed`, leaving the process's own generator as it was."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def read(tensor: torch.Tensor) -> NDArray[Any]:
    """Return a tensor's values as a numpy array of its own."""
    out: NDArray[Any] = tensor.detach().cpu().numpy().copy()
    return out


def load_weights(module: torch.nn.Module, weights: dict[str, NDArray[Any]]) -> None:
    """Copy `weights` into `module`. Raises IntegrityError when names or shapes differ."""
    import torch

    try:
        module.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights.items()})
    except RuntimeError as exc:
        raise IntegrityError(f"weights do not fit the network: {str(exc).splitlines()[0]}") from exc


def to_proba(logits: torch.Tensor, is_multilabel: bool) -> NDArray[np.float32]:
    """Return probabilities (n, k) float32 on the CPU."""
    wide = logits.float()
    out: NDArray[np.float32] = (wide.sigmoid() if is_multilabel else wide.softmax(dim=1)).cpu().numpy()
    return out
