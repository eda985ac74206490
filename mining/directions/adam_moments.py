"""The moments of Adam as directions."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch.linalg import vector_norm

from mining import InputError
from mining.directions.adam_state import UNMOVED, AdamState
from mining.directions.base import (
    Checkpoints,
    Direction,
    DirectionSource,
    SharedSearch,
    as_normalization,
    check_num,
    same_input,
)
from mining.directions.normalization import Name, Normalization
from mining.directions.update_rule import AdamRule
from mining.landscape import Landscape

_NAMES = ("first moment", "second moment")


@dataclass(frozen=True, eq=False)
class AdamMoments(DirectionSource):
    """The first and the second moment of an Adam or AdamW optimizer.

    The first moment (``exp_avg``) is a running mean of gradients, and Adam moves against it. The
    second (``exp_avg_sq``) is a running mean of their squares. Gabdullin (2024), Sec. 2.1. They
    are taken as they are stored, without the bias correction, which is one factor for each.

    Args:
        state: A file with the state of the optimizer, alone or in a checkpoint; or what
            ``optimizer.state_dict()`` returns; or the optimizer. See ``AdamState.read`` for how
            parameters are matched. ``None``: ``bind`` finds the state of ``epoch``.
        start: 1: the first moment, then the second; 2: the second moment only.
        epoch: Epoch of the training of θ; ``None``: that of θ if θ is a file, otherwise the last.
        normalization: A normalization or its name.
        lr: Learning rate of ``rule``; ``None``: that of the state, which is the one of the next
            step and zero at the end of most schedules.

    Raises:
        InputError: If ``start`` is neither 1 nor 2, ``lr`` is not positive, or the state is none.
    """

    state: str | Path | Mapping[str, Any] | torch.optim.Optimizer | None = None
    start: int = 1
    epoch: int | None = None
    normalization: Normalization | Name = "none"
    lr: float | None = None

    def __post_init__(self) -> None:
        as_normalization(self.normalization)
        if self.lr is not None and not 0 < self.lr < math.inf:
            raise InputError(f"direction.lr must be positive, got {self.lr}.")
        if self.start not in (1, 2):
            raise InputError(f"direction.start must be 1 or 2, got {self.start}.")
        if not isinstance(self.state, str | Path | Mapping | torch.optim.Optimizer | None):
            raise InputError(
                "direction.state must be a file, what optimizer.state_dict() returns, or an "
                f"optimizer, got {type(self.state).__name__}."
            )

    def bind(self, checkpoints: Checkpoints) -> Self:
        """Find the state of the optimizer, unless it is given."""
        if self.state is not None:
            return self
        return replace(self, state=checkpoints.optimizer_state(self.epoch))

    def directions(
        self, landscape: Landscape, num: int, *, generator: torch.Generator
    ) -> list[Direction]:
        """Read ``num`` moments; see ``DirectionSource.directions``.

        ``metadata`` contains the number of ``steps`` and the ``moment_norm`` before normalization.

        Raises:
            InputError: If there are fewer, or the state does not fit the model.
        """
        check_num(num, 3 - self.start, f" from moment {self.start} of two on")
        found = AdamState.read(self.state, landscape)
        normalize = as_normalization(self.normalization)
        moments = [*zip(_NAMES, (found.first, found.second), strict=True)][self.start - 1 :]
        return [
            Direction(
                normalize(vector, landscape.theta, landscape.space),
                name,
                metadata={"steps": found.steps, "moment_norm": float(vector_norm(vector))},
            )
            for name, vector in moments[:num]
        ]

    def rule(self, landscape: Landscape) -> AdamRule:
        """Return the rule by which the optimizer moves θ along its moments.

        Raises:
            InputError: If the state does not fit the model, or its learning rate is zero.
        """
        steps = AdamState.read(self.state, landscape).step_settings()
        if self.lr is not None:  # parameters that were never moved stay
            steps = tuple(replace(s, lr=self.lr) if s is not UNMOVED else s for s in steps)
        if all(step.lr == 0 for step in steps):
            raise InputError(
                "adameq: the learning rate in the state is 0, the end of its schedule, so nothing "
                "would move: set x_direction.lr, or take an earlier epoch."
            )
        return AdamRule(landscape.space, steps)

    def shared_search(self, other: DirectionSource) -> SharedSearch | None:
        """Take both moments from one state: by default x is the first and y the second.

        Raises:
            InputError: If both are the second moment.
        """
        if not isinstance(other, AdamMoments) or not (
            same_input(self.state, other.state)
            and self.epoch == other.epoch
            and self.normalization == other.normalization
        ):
            return None
        if self.start == other.start == 2:
            raise InputError("x_direction and y_direction are both the second moment.")
        first = self.start - 1
        return SharedSearch(2, (first, 1 - first), {"start": 1})
