"""Directions found by stochastic optimization."""

import hashlib
import logging
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import pandas as pd
import torch
from torch import Tensor, nn
from torch.linalg import vector_norm

from mining import InputError
from mining.directions.base import Convergence, Direction, DirectionSource, SharedSearch, check_num
from mining.functional.fingerprints import update_digest
from mining.functional.minibatches import LossOnBatch
from mining.functional.random_vectors import stream
from mining.landscape import Landscape
from mining.storage.fingerprint import Fingerprint
from mining.training.loop import Callback, DivergenceError, Loop, Objective
from mining.training.optimization import OptimizerName, ScheduleName, check_recipe

#: Mining has diverged when the objective exceeds this multiple of its first value, and the chance
#: level.
_LEFT_SCALE = 10.0
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Descent:
    """Optimizer settings of a miner; the defaults are plain SGD, as in Xu et al. (2024).

    The paper gives neither the epochs nor the learning rate of its miners; the defaults are those
    of its trainings (Appendix A.1).

    Args:
        epochs: Passes over the examples, the E of the algorithms.
        batch_size: Examples per step.
        optimizer: ``sgd``, ``adam`` or ``adamw``.
        lr: Initial learning rate η.
        momentum: For ``sgd`` only.
        weight_decay: L2 penalty on the optimized variable.
        schedule: ``constant``, ``cosine`` to zero, or ``step``.

    Raises:
        InputError: If a value is out of its range.
    """

    epochs: int = 200
    batch_size: int = 128
    optimizer: OptimizerName = "sgd"
    lr: float = 0.1
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: ScheduleName = "constant"

    def __post_init__(self) -> None:
        check_recipe(self, "descent")


#: Takes the loss on a mini-batch, the variable (D,), the share e/E of the epochs up to and with
#: this one, and a generator on the CPU; gives the objective () and what to descend along (D,).
Step = Callable[[LossOnBatch, Tensor, float, torch.Generator], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Search:
    """What a miner optimizes at one θ."""

    start: Tensor  # (D,) the variable at first
    step: Step
    direction: Callable[[Tensor], Direction]  # that belongs to a variable (D,)


class Miner(DirectionSource):
    """A source that finds each of its directions by stochastic optimization.

    Batch norm normalizes each mini-batch by its own statistics, as in training, unless the
    landscape is ``frozen``. The landscape and its θ are not changed.
    """

    kept_by: ClassVar[Literal["mine"]] = "mine"
    descent: Descent

    @abstractmethod
    def search(self, landscape: Landscape, generator: torch.Generator) -> Search:
        """Define the optimization problem at the θ of ``landscape``.

        Args:
            landscape: The point θ and the loss.
            generator: Source of randomness for the start, on the CPU.

        Raises:
            InputError: If the problem is degenerate, or the settings do not fit θ.
        """

    def directions(
        self, landscape: Landscape, num: int, *, generator: torch.Generator
    ) -> list[Direction]:
        """Mine ``num`` directions; see ``DirectionSource.directions`` and ``mine``."""
        check_num(num)
        return [
            replace(mine(self, landscape, generator=generator).direction, index=index)
            for index in range(num)
        ]

    def shared_search(self, other: DirectionSource) -> SharedSearch | None:
        """Mine two directions with the same options in one run, from two random starts."""
        return SharedSearch(2, (0, 1)) if self == other else None


@dataclass(frozen=True, eq=False)
class Mined:
    """A mined direction and the history of its optimization."""

    direction: Direction
    history: pd.DataFrame  # a row per epoch: epoch, lr, objective (mean over it), norm, seconds
    diverged_epoch: int | None  # epoch of divergence; the history ends before it


def mine(
    miner: Miner,
    landscape: Landscape,
    *,
    generator: torch.Generator,
    checkpoint: str | Path | None = None,
    autocast: torch.dtype | None = None,
    progress: bool = False,
    callbacks: Sequence[Callback] = (),
) -> Mined:
    """Find one direction by stochastic optimization.

    Mining has diverged when a value overflows, or when the mean objective of an epoch exceeds both
    the chance level and ten times the objective of the first epoch (in the first epoch: of the
    first step). It then ends with the last direction before the overflow or before that epoch. The
    name of its source and its ``convergence`` state the epoch.

    Args:
        miner: The objective and the optimizer settings.
        landscape: The point θ and the examples.
        generator: Source of randomness, on the CPU.
        checkpoint: A file for the state of the optimization. Interrupted mining continues from it
            to the same result. The file is kept.
        autocast: A lower precision of the forward passes than that of the landscape.
        progress: Whether to draw a progress bar on stderr.
        callbacks: Called with the ``Loop`` after each epoch. They cannot change what is found.

    Raises:
        InputError: If ``checkpoint`` belongs to other mining, the problem is degenerate, or the
            loss at its starting point is not finite.
    """
    descent = miner.descent
    checkpoint = None if checkpoint is None else Path(checkpoint)
    own = stream(generator)
    settings = f"{miner!r} {autocast} {own.initial_seed()}"
    search = miner.search(landscape, own)
    objective = _MiniBatchDescent(miner, landscape, search, own, autocast)
    loop = Loop(
        objective,
        descent,
        path=checkpoint,
        mark=None if checkpoint is None else _fingerprint(settings, landscape, search.start),
        callbacks=callbacks,
    )
    loop.resume()
    if objective.diverged_epoch is None:
        try:
            loop.run(progress=progress)
        except DivergenceError:
            objective.diverged_epoch = loop.epoch + 1
            loop.save()
    return _result(objective, loop.history, search, descent)


class _GivenGradient(torch.autograd.Function):
    """A value () whose gradient with respect to a variable (D,) is given."""

    @staticmethod
    def forward(ctx: Any, variable: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return outer[0] * gradient, None, None


class _MiniBatchDescent(Objective[LossOnBatch]):
    """The objective of a miner on random mini-batches."""

    task = "mine"
    refusal = (
        "belongs to other mining: its miner, settings, seed, θ, loss or examples differ. Use "
        "another file, or remove this one."
    )

    def __init__(
        self,
        miner: Miner,
        landscape: Landscape,
        search: Search,
        generator: torch.Generator,
        autocast: torch.dtype | None,
    ) -> None:
        self.variable = search.start.clone().requires_grad_()
        self.diverged_epoch: int | None = None
        self._landscape, self._search, self._generator = landscape, search, generator
        self._epochs = miner.descent.epochs
        self._batches = landscape.mini_batches(miner.descent.batch_size, autocast)
        self._share = 0.0  # of the epochs, up to and with this one
        self._values: list[Tensor] = []  # the objective at each step of this epoch
        self._before = search.start  # the variable at the start of this epoch
        # The variable when the objective was last seen to be finite.
        self._finite = search.start.clone()

    @property
    def variables(self) -> list[Tensor]:
        return [self.variable]

    @property
    def modules(self) -> list[nn.Module]:
        return [self._landscape.model]

    @property
    def generators(self) -> list[torch.Generator]:
        return [self._generator]

    def batches(self, epoch: int) -> Iterator[LossOnBatch]:
        self._share = (epoch + 1) / self._epochs
        self._before, self._values = self.variable.detach().clone(), []
        return self._batches.shuffled(self._generator)

    def loss(self, batch: LossOnBatch) -> Tensor:
        value, gradient = self._search.step(
            batch, self.variable.detach(), self._share, self._generator
        )
        self._values.append(value)
        return cast("Tensor", _GivenGradient.apply(self.variable, value, gradient))

    def check_step(self) -> None:
        gradient = self.variable.grad
        assert gradient is not None
        value = self._values[-1]
        # A sum is one pass over the gradient, a test of every entry five. A sum may overflow.
        if not torch.isfinite(value + gradient.sum()) and not (
            torch.isfinite(value) and torch.isfinite(gradient).all()
        ):
            self._diverge(self._finite)
        self._finite.copy_(self.variable.detach())

    def end_epoch(self, history: Sequence[Mapping[str, float]]) -> dict[str, float]:
        if not torch.isfinite(vector_norm(self.variable.detach())):
            self._diverge(self._finite)
        objective = float(torch.stack(self._values).double().mean())
        first = history[0]["objective"] if history else float(self._values[0])
        if objective > max(_LEFT_SCALE * abs(first), self._landscape.chance_loss or 0.0):
            self._diverge(self._before)
        direction = self._search.direction(self.variable.detach())
        return {"objective": objective, "norm": float(vector_norm(direction.vector))}

    def _diverge(self, last: Tensor) -> None:
        """End with an earlier variable, shape ``(D,)``."""
        self.variable.detach().copy_(last)
        raise DivergenceError

    def shown(self, row: Mapping[str, float]) -> dict[str, str]:
        return {"objective": f"{row['objective']:.4g}", "norm": f"{row['norm']:.3g}"}

    def state_dict(self) -> dict[str, Any]:
        return {
            "variable": self.variable.detach(),
            "finite": self._finite,
            "generator": self._generator.get_state(),
            "diverged_epoch": self.diverged_epoch,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.variable.detach().copy_(state["variable"])
        self._finite.copy_(state["finite"])
        self._generator.set_state(state["generator"].cpu())
        self.diverged_epoch = state["diverged_epoch"]


def _result(
    objective: _MiniBatchDescent,
    rows: Sequence[Mapping[str, float]],
    search: Search,
    descent: Descent,
) -> Mined:
    when, variable = objective.diverged_epoch, objective.variable.detach()
    if when is not None and torch.equal(variable, search.start):
        raise InputError(
            "Mining diverged in its first steps: the loss at the starting point is not finite, or "
            f"the learning rate ({descent.lr:g}) is too high."
        )
    direction = search.direction(variable)
    metadata = {**direction.metadata, "norm": float(vector_norm(direction.vector))}
    if rows:
        metadata["objective"] = rows[-1]["objective"]
    if when is not None:
        log.warning(
            "%s diverged in epoch %d of %d; the last direction before is kept. Lower the learning "
            "rate (%g).",
            direction.source,
            when,
            descent.epochs,
            descent.lr,
        )
        direction = replace(
            direction,
            source=f"{direction.source}, diverged in epoch {when}",
            convergence=Convergence(False, diverged_epoch=when),
        )
    elif rows[-1]["objective"] >= rows[0]["objective"]:
        log.warning(
            "%s: the objective did not fall (%.4g in the first epoch, %.4g in the last). Try more "
            "epochs or another learning rate (%g).",
            direction.source,
            rows[0]["objective"],
            rows[-1]["objective"],
            descent.lr,
        )
    columns = ["epoch", "lr", "objective", "norm", "seconds"]
    history = pd.DataFrame(rows, columns=columns).astype({"epoch": int})
    return Mined(replace(direction, metadata=metadata), history, when)


def _fingerprint(settings: str, landscape: Landscape, start: Tensor) -> Fingerprint:
    digest = hashlib.sha256(f"{settings} {landscape.fingerprint()}".encode())
    update_digest(digest, start)
    return landscape.identify(digest.hexdigest())
