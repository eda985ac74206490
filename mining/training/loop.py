"""One loop for every stochastic optimization: of weights and of directions."""

import io
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from mining import InputError, ranks
from mining.functional.algorithms import deterministic_algorithms
from mining.storage.checkpoints import read_tensors
from mining.storage.files import write_atomically
from mining.storage.fingerprint import Fingerprint
from mining.training.isolation import isolated
from mining.training.optimization import Recipe, make_optimizer, make_scheduler

#: Minimum time between two saves of the state, seconds.
_SAVE_INTERVAL = 1.0
#: Minimum time between two saves, as a multiple of the time that a save takes.
_SAVE_PAUSE = 20.0
#: Version of the layout of a saved state.
_LAYOUT = 2

Batch = TypeVar("Batch")


class DivergenceError(ArithmeticError):
    """The loss left its scale during an optimization."""


class Objective(ABC, Generic[Batch]):
    """What a loop minimizes, batch by batch, with the state that belongs to it."""

    #: What is done, shown in front of the progress bar.
    task: ClassVar[str]
    #: Why the state of another optimization is refused; begins after the path.
    refusal: ClassVar[str]

    @property
    @abstractmethod
    def variables(self) -> Sequence[Tensor]:
        """The leaves that the optimizer changes."""

    @property
    @abstractmethod
    def modules(self) -> Sequence[nn.Module]:
        """The models that the loss runs."""

    @property
    @abstractmethod
    def generators(self) -> Sequence[torch.Generator]:
        """The generators, other than the global ones, from which the optimization draws."""

    @abstractmethod
    def batches(self, epoch: int) -> Iterator[Batch]:
        """Pass once over the examples.

        Args:
            epoch: Number of the epoch, counted from 0.
        """

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """Compute the loss on a batch, shape ``()``, differentiable by ``variables``."""

    def check_step(self) -> None:
        """Inspect the gradients of ``variables`` before a step.

        Raises:
            DivergenceError: If the step must not be taken.
        """

    @abstractmethod
    def end_epoch(self, history: Sequence[Mapping[str, float]]) -> dict[str, float]:
        """Summarize the epoch that just ended.

        Args:
            history: The rows of the epochs before it.

        Returns:
            The columns of its row in the history.

        Raises:
            DivergenceError: If the loss left its scale in this epoch.
        """

    @abstractmethod
    def shown(self, row: Mapping[str, float]) -> dict[str, str]:
        """Choose what the progress bar shows of a row of the history."""

    @abstractmethod
    def state_dict(self) -> dict[str, Any]:
        """Return all that changes from epoch to epoch: tensors, plain values, generator states."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned, in place."""


#: Called after each epoch. Whatever it does with the model, the optimizer or random numbers, the
#: optimization goes on as without it.
Callback = Callable[["Loop[Any]"], None]
#: Takes the loss of a step, shape (), and its batch; returns the loss that is minimized instead,
#: for example with a term added. The history shows the original loss.
LossHook = Callable[[Tensor, Any], Tensor]


@runtime_checkable
class Stateful(Protocol):
    """A loss hook that must know, in a training that goes on, what it did before."""

    def state_dict(self) -> dict[str, Any]:
        """Return what changes from step to step: tensors and plain values."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""


class Loop(Generic[Batch]):
    """Minimizes an objective in epochs, can be interrupted, and resumes to the same result.

    Args:
        objective: What is minimized.
        recipe: Optimizer, learning rate and number of epochs.
        path: File of the state, written at intervals and at the end; ``None``: not kept.
        mark: Which optimization it is; required with ``path``.
        callbacks: Called in this order after each epoch, isolated from the optimization.
        loss_hook: Adds a term to the loss of each step, or replaces it. Its state is kept if it is
            ``Stateful``.

    Attributes:
        objective: What is minimized.
        optimizer: The optimizer; its learning rate is already that of the next epoch.
        epoch: Finished epochs.
        history: A row per finished epoch: ``epoch``, ``lr``, the columns of the objective and
            ``seconds``.
    """

    def __init__(
        self,
        objective: Objective[Batch],
        recipe: Recipe,
        *,
        path: Path | None = None,
        mark: Fingerprint | None = None,
        callbacks: Sequence[Callback] = (),
        loss_hook: LossHook | None = None,
    ) -> None:
        self.objective = objective
        self.optimizer = make_optimizer(recipe, objective.variables)
        self.epoch = 0
        self.history: list[dict[str, float]] = []
        self._scheduler: LRScheduler = make_scheduler(recipe, self.optimizer)
        self._epochs = recipe.epochs
        self._path, self._mark = path, mark
        self._callbacks, self._loss_hook = callbacks, loss_hook
        hook: object = loss_hook
        self._stateful = hook if isinstance(hook, Stateful) else None
        self._saved_epoch: int | None = None
        self._next_save = time.monotonic() + _SAVE_INTERVAL

    def run(self, *, progress: bool) -> None:
        """Take the remaining epochs.

        Args:
            progress: Whether to draw a progress bar on stderr.

        Raises:
            DivergenceError: If the objective diverged.
        """
        bar = tqdm(
            range(self.epoch, self._epochs),
            initial=self.epoch,
            total=self._epochs,
            desc=self.objective.task,
            unit="epoch",
            disable=not (progress and ranks.current().first),
            dynamic_ncols=True,
        )
        for _ in bar:
            self._run_epoch()
            if self._callbacks and ranks.current().first:
                with (
                    ranks.alone(),
                    isolated(
                        self.objective.modules,
                        self.objective.variables,
                        self.optimizer,
                        self.objective.generators,
                    ) as restore,
                ):
                    for callback in self._callbacks:
                        callback(self)
                        restore()
            if time.monotonic() > self._next_save:
                self.save()
            bar.set_postfix(self.objective.shown(self.history[-1]), refresh=False)
        if self._saved_epoch != self.epoch:
            self.save()

    def _run_epoch(self) -> None:
        started = time.monotonic()
        row = {"epoch": self.epoch + 1, "lr": float(self.optimizer.param_groups[0]["lr"])}
        # The same steps in every run.
        with deterministic_algorithms():
            for batch in self.objective.batches(self.epoch):
                loss = self.objective.loss(batch)
                if self._loss_hook is not None:
                    loss = self._loss_hook(loss, batch)
                self.optimizer.zero_grad(set_to_none=True)
                torch.autograd.backward(loss)
                self.objective.check_step()
                self.optimizer.step()
            row |= self.objective.end_epoch(self.history)
        self._scheduler.step()
        self.epoch += 1
        self.history.append(row | {"seconds": time.monotonic() - started})

    def save(self) -> None:
        """Write the state to the file of this loop, if it has one; of several ranks the first."""
        if self._path is None or not ranks.current().first:
            return
        started = time.monotonic()
        buffer = io.BytesIO()
        content = {
            "layout": _LAYOUT,
            "mark": str(self._mark),
            "objective": self.objective.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self._scheduler.state_dict(),
            "epoch": self.epoch,
            "history": self.history,
        }
        if self._stateful is not None:
            content["loss_hook"] = self._stateful.state_dict()
        torch.save(content, buffer)
        write_atomically(self._path, buffer.getbuffer())
        finished = time.monotonic()
        self._next_save = finished + max(_SAVE_INTERVAL, _SAVE_PAUSE * (finished - started))
        self._saved_epoch = self.epoch

    def resume(self) -> bool:
        """Continue from the file of this loop; return whether there is one.

        Raises:
            InputError: If it is damaged, or belongs to another optimization.
        """
        content = ranks.current().from_first(self._stored)
        if content is None:
            return False
        stateless = self._stateful is not None and "loss_hook" not in content
        if self._mark is None or stateless or not self._mark.matches(content["mark"]):
            raise InputError(f"{self._path} {self.objective.refusal}")
        self.objective.load_state_dict(content["objective"])
        self.optimizer.load_state_dict(content["optimizer"])
        self._scheduler.load_state_dict(content["scheduler"])
        if self._stateful is not None:
            self._stateful.load_state_dict(content["loss_hook"])
        self.epoch, self.history = content["epoch"], content["history"]
        self._saved_epoch = self.epoch
        return True

    def _stored(self) -> dict[str, Any] | None:
        """Read the file of this loop, if there is one."""
        if self._path is None or not self._path.exists():
            return None
        return read_state(self._path)


def read_state(path: Path) -> dict[str, Any]:
    """Read the state that a loop saved.

    Raises:
        FileNotFoundError: If there is no such file.
        InputError: If it is damaged, or was written by another version.
    """
    content = read_tensors(path)
    if not isinstance(content, dict) or content.get("layout") != _LAYOUT:
        raise InputError(
            f"{path} holds no state of an optimization that this version can continue. Remove it "
            "to start again."
        )
    return content
