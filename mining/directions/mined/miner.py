"""Directions found by stochastic optimization."""

import hashlib
import io
import logging
import time
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

import pandas as pd
import torch
from torch import Tensor
from torch.linalg import vector_norm
from tqdm import tqdm

from mining import InputError
from mining.directions.base import Direction, DirectionSource, SharedSearch, check_num
from mining.functional.fingerprints import update_digest
from mining.functional.minibatches import LossOnBatch, MiniBatches
from mining.functional.random_vectors import stream
from mining.landscape import Landscape
from mining.storage.checkpoints import read_tensors
from mining.storage.files import write_atomically
from mining.storage.fingerprint import Fingerprint
from mining.training.optimization import (
    OptimizerName,
    ScheduleName,
    check_recipe,
    learning_rate,
    make_optimizer,
)

#: Minimum time between two saves of the state, seconds.
_SAVE_INTERVAL = 1.0
#: Minimum time between two saves, as a multiple of the time that a save takes.
_SAVE_PAUSE = 20.0
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
) -> Mined:
    """Find one direction by stochastic optimization.

    Mining has diverged when a value overflows, or when the mean objective of an epoch exceeds both
    the chance level and ten times the objective of the first epoch (in the first epoch: of the
    first step). It then ends with the last direction before the overflow or before that epoch. The
    name of its source and ``metadata["diverged_epoch"]`` state the epoch.

    Args:
        miner: The objective and the optimizer settings.
        landscape: The point θ and the examples.
        generator: Source of randomness, on the CPU.
        checkpoint: A file for the state of the optimization. Interrupted mining continues from it
            to the same result. The file is kept.
        autocast: A lower precision of the forward passes than that of the landscape.
        progress: Whether to draw a progress bar on stderr.

    Raises:
        InputError: If ``checkpoint`` belongs to other mining, the problem is degenerate, or the
            loss at its starting point is not finite.
    """
    descent = miner.descent
    checkpoint = None if checkpoint is None else Path(checkpoint)
    own = stream(generator)
    settings = f"{miner!r} {autocast} {own.initial_seed()}"
    search = miner.search(landscape, own)
    variable = search.start.clone()
    state = _State(variable, variable.clone(), make_optimizer(descent, [variable]), own)
    if checkpoint is not None:
        state.mark = _fingerprint(settings, landscape, variable)
        if checkpoint.exists():
            state.load(checkpoint)
    batches = landscape.mini_batches(descent.batch_size, autocast)
    next_save = time.monotonic() + _SAVE_INTERVAL
    bar = tqdm(
        range(state.epoch, descent.epochs),
        initial=state.epoch,
        total=descent.epochs,
        desc="mine",
        unit="epoch",
        disable=not progress,
        dynamic_ncols=True,
    )
    for epoch in bar:
        started = time.monotonic()
        lr = learning_rate(descent, epoch)
        # The same steps in every run, as in training.
        with torch.backends.cudnn.flags(enabled=True, deterministic=True, benchmark=False):
            share = (epoch + 1) / descent.epochs
            value = _run_epoch(state, search.step, batches, lr, share, landscape.chance_loss)
        if value is None:
            break
        norm = float(vector_norm(search.direction(variable).vector))
        seconds = time.monotonic() - started
        row = {"epoch": epoch + 1, "lr": lr, "objective": value, "norm": norm, "seconds": seconds}
        state.history.append(row)
        state.epoch = epoch + 1
        bar.set_postfix(objective=f"{value:.4g}", norm=f"{norm:.3g}", refresh=False)
        if checkpoint is not None and time.monotonic() > next_save:
            started = time.monotonic()
            state.save(checkpoint)
            finished = time.monotonic()
            next_save = finished + max(_SAVE_INTERVAL, _SAVE_PAUSE * (finished - started))
    if checkpoint is not None:
        state.save(checkpoint)
    return _result(state, search, descent)


@dataclass
class _State:
    """The full state of the optimization, from which it continues to the same result."""

    variable: Tensor
    finite: Tensor  # the variable when the objective was last seen to be finite
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    epoch: int = 0
    diverged_epoch: int | None = None
    history: list[dict[str, float]] = field(default_factory=list)
    mark: Fingerprint | None = None  # what it belongs to, where it is kept

    def save(self, path: Path) -> None:
        buffer = io.BytesIO()
        content = {
            "mark": str(self.mark),
            "variable": self.variable,
            "finite": self.finite,
            "optimizer": self.optimizer.state_dict(),
            "generator": self.generator.get_state(),
            "epoch": self.epoch,
            "diverged_epoch": self.diverged_epoch,
            "history": self.history,
        }
        torch.save(content, buffer)
        write_atomically(path, buffer.getbuffer())

    def load(self, path: Path) -> None:
        content = read_tensors(path)
        stored = content.get("mark") if isinstance(content, dict) else None
        if self.mark is None or not self.mark.matches(stored):
            raise InputError(
                f"{path} belongs to other mining: its miner, settings, seed, θ, loss or examples "
                "differ. Use another file, or remove this one."
            )
        self.variable.copy_(content["variable"])
        self.finite.copy_(content["finite"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.generator.set_state(content["generator"].cpu())
        self.epoch, self.history = content["epoch"], content["history"]
        self.diverged_epoch = content["diverged_epoch"]

    def diverge(self, last: Tensor) -> None:
        """End in this epoch with an earlier variable, shape ``(D,)``."""
        self.variable.copy_(last)
        self.diverged_epoch = self.epoch + 1


def _run_epoch(
    state: _State, step: Step, batches: MiniBatches, lr: float, share: float, chance: float | None
) -> float | None:
    """Run one epoch; return the mean objective, or ``None`` if it diverged."""
    if state.diverged_epoch is not None:
        return None
    before = state.variable.clone()
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    values: list[Tensor] = []
    for loss in batches.shuffled(state.generator):
        value, gradient = step(loss, state.variable, share, state.generator)
        if not bool(torch.isfinite(value) & torch.isfinite(gradient).all()):
            state.diverge(state.finite)
            return None
        state.finite.copy_(state.variable)
        state.variable.grad = gradient
        state.optimizer.step()
        values.append(value)
    if not torch.isfinite(vector_norm(state.variable)):
        state.diverge(state.finite)
        return None
    objective = float(torch.stack(values).double().mean())
    first = state.history[0]["objective"] if state.history else float(values[0])
    if objective > max(_LEFT_SCALE * abs(first), chance or 0.0):
        state.diverge(before)
        return None
    return objective


def _result(state: _State, search: Search, descent: Descent) -> Mined:
    when = state.diverged_epoch
    if when is not None and torch.equal(state.variable, search.start):
        raise InputError(
            "Mining diverged in its first steps: the loss at the starting point is not finite, or "
            f"the learning rate ({descent.lr:g}) is too high."
        )
    direction = search.direction(state.variable.detach())
    metadata = {**direction.metadata, "norm": float(vector_norm(direction.vector))}
    if state.history:
        metadata["objective"] = state.history[-1]["objective"]
    if when is not None:
        log.warning(
            "%s diverged in epoch %d of %d; the last direction before is kept. Lower the learning "
            "rate (%g).",
            direction.source,
            when,
            descent.epochs,
            descent.lr,
        )
        metadata["diverged_epoch"] = when
        direction = replace(direction, source=f"{direction.source}, diverged in epoch {when}")
    elif state.history[-1]["objective"] >= state.history[0]["objective"]:
        log.warning(
            "%s: the objective did not fall (%.4g in the first epoch, %.4g in the last). Try more "
            "epochs or another learning rate (%g).",
            direction.source,
            state.history[0]["objective"],
            state.history[-1]["objective"],
            descent.lr,
        )
    columns = ["epoch", "lr", "objective", "norm", "seconds"]
    history = pd.DataFrame(state.history, columns=columns).astype({"epoch": int})
    return Mined(replace(direction, metadata=metadata), history, when)


def _fingerprint(settings: str, landscape: Landscape, start: Tensor) -> Fingerprint:
    digest = hashlib.sha256(f"{settings} {landscape.fingerprint()}".encode())
    update_digest(digest, start)
    return landscape.identify(digest.hexdigest())
