"""How a training of the command line is regularized."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mining.training.hessian_trace import HessianTrace, Method
from mining.training.loop import LossHook


class Regularizer(ABC):
    """The options of a change to the loss of every step that a configuration can give."""

    @abstractmethod
    def hook(self, model: nn.Module, seed: int) -> LossHook:
        """Make the hook of a training with cross-entropy.

        Args:
            model: The model that is trained.
            seed: Of all random numbers that it draws.

        Raises:
            InputError: If the options do not fit the model.
        """


class Penalized:
    """The loss of each step with a penalty added: the ``loss_hook`` of a training.

    Args:
        penalty: The penalty on a batch.
    """

    def __init__(self, penalty: HessianTrace) -> None:
        self.penalty = penalty

    def __call__(self, loss: Tensor, batch: Any) -> Tensor:
        """Add the penalty on the batch to its loss."""
        penalty: Tensor = self.penalty(batch)
        return loss + penalty

    def state_dict(self) -> dict[str, Any]:
        """Return what the penalty needs to go on."""
        return self.penalty.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on as after the calls before ``state_dict``."""
        self.penalty.load_state_dict(state)


@dataclass(frozen=True)
class HessianTraceSettings(Regularizer):
    """The options of a ``HessianTrace`` that a configuration can give.

    Args:
        gamma: Factor of the trace.
        every: Steps from one penalty to the next.
        layers: ``all``, ``middle``, names of layers, or a weight for each.
        method: ``hutchinson``, ``sampled_labels`` or ``per_class``.
        probes: Random draws that are averaged.
    """

    gamma: float = 1e-2
    every: int = 50
    layers: str | Sequence[str] | Mapping[str, float] = "all"
    method: Method = "hutchinson"
    probes: int = 1

    def hook(self, model: nn.Module, seed: int) -> Penalized:
        """Make the hook of a training with cross-entropy.

        Args:
            model: The model that is trained.
            seed: Of all random numbers of the penalty.

        Raises:
            InputError: If an option is out of its range, or a layer does not exist.
        """
        penalty = HessianTrace(
            model,
            nn.CrossEntropyLoss(),
            gamma=self.gamma,
            every=self.every,
            layers=self.layers,
            method=self.method,
            probes=self.probes,
            seed=seed,
        )
        return Penalized(penalty)
