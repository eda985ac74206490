"""Differences between checkpoints."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm

from mining import InputError
from mining.directions.base import (
    Checkpoints,
    Direction,
    DirectionSource,
    as_normalization,
    check_num,
)
from mining.directions.normalization import Name, Normalization
from mining.landscape import Landscape
from mining.storage.checkpoints import fitting_state


@dataclass(frozen=True, eq=False)
class CheckpointDelta(DirectionSource):
    """The difference θ' - θ to another checkpoint of the same architecture.

    A later checkpoint of the same training tends to give a v-side, an independently trained one a
    w-basin: Xu et al. (2024), Secs. 2.3 and 2.4. Without normalization the other checkpoint is at
    α = 1.

    Args:
        checkpoint: A file, tensors by parameter name, or a module; buffers are ignored. ``None``:
            ``bind`` finds the one selected by ``epoch`` and ``independent``.
        label: Name of the other checkpoint in legends, for instance ``E=200``.
        normalization: A normalization or its name.
        away: Whether to reverse the direction to θ - θ', so that α = -1 is the other checkpoint.
            Relative to an earlier checkpoint this is the direction in which training moved.
        epoch: Epoch of the other checkpoint; ``None``: the last.
        independent: Whether it belongs to an independent training instead of that of θ.
    """

    checkpoint: str | Path | Mapping[str, Tensor] | nn.Module | None = None
    label: str = "checkpoint"
    normalization: Normalization | Name = "none"
    away: bool = False
    epoch: int | None = None
    independent: bool = False

    def __post_init__(self) -> None:
        as_normalization(self.normalization)
        if not isinstance(self.checkpoint, str | Path | Mapping | nn.Module | None):
            raise InputError(
                "checkpoint must be a file, tensors by parameter name, or a module, got "
                f"{type(self.checkpoint).__name__}."
            )

    def bind(self, checkpoints: Checkpoints) -> Self:
        """Find the other checkpoint, unless it is given."""
        if self.checkpoint is not None:
            return self
        return replace(self, **find_other(checkpoints, self.epoch, independent=self.independent))

    def directions(
        self, landscape: Landscape, num: int, *, generator: torch.Generator
    ) -> list[Direction]:
        """Return the difference; see ``DirectionSource.directions``.

        ``other_alpha`` is the α of the other checkpoint, if normalization leaves it on the line.

        Raises:
            InputError: If ``num`` is not 1, or the checkpoint is θ itself or belongs to another
                architecture.
        """
        check_num(num, 1, " for the difference of two checkpoints")
        space, theta = landscape.space, landscape.theta
        delta = theta_of(self.checkpoint, landscape) - theta
        if not delta.any():
            raise InputError(
                f"The other checkpoint ({self.label}) is θ itself: use an earlier θ, epoch=EPOCH."
            )
        normalize = as_normalization(self.normalization)
        vector = normalize(delta, theta, space)
        metadata = {"distance": float(vector_norm(delta))}
        other = None
        if normalize.name in ("none", "model"):
            other = float(vector_norm(delta) / vector_norm(vector)) * (-1 if self.away else 1)
        name = f"{'from' if self.away else 'to'} {self.label}"
        vector = -vector if self.away else vector
        return [Direction(vector, name, metadata=metadata, other_alpha=other)]


def find_other(checkpoints: Checkpoints, epoch: int | None, *, independent: bool) -> dict[str, Any]:
    """Find the ``checkpoint`` of an epoch, and the ``label`` that names it in legends."""
    path = checkpoints.at(epoch, independent=independent)
    mark = "E'" if independent else "E"
    return {"checkpoint": path, "label": f"{mark}={int(path.stem[-4:])}"}


def theta_of(
    checkpoint: str | Path | Mapping[str, Tensor] | nn.Module | None, landscape: Landscape
) -> Tensor:
    """Read the parameters of another checkpoint, shape ``(D,)``, as θ of a landscape.

    Raises:
        InputError: If there is none, or it belongs to another architecture.
    """
    if checkpoint is None:
        raise InputError("checkpoint must be given: a file, or tensors by parameter name.")
    given = checkpoint.state_dict() if isinstance(checkpoint, nn.Module) else checkpoint
    state, space = fitting_state(landscape.model, given), landscape.space
    return space.flatten({name: state[name] for name in space.names}).to(landscape.theta)
