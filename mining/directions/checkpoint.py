"""Differences between checkpoints."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm

from mining import InputError
from mining.directions.base import Direction, DirectionSource, as_normalization, check_num
from mining.directions.normalization import Name, Normalization
from mining.landscape import Landscape
from mining.storage.checkpoints import fitting_state


@dataclass(frozen=True, eq=False)
class CheckpointDelta(DirectionSource):
    """The difference θ' - θ to another checkpoint of the same architecture.

    A later checkpoint of the same training tends to give a v-side, an independently trained one a
    w-basin: Xu et al. (2024), Secs. 2.3 and 2.4. Unnormalized, α = 1 is the other checkpoint.

    Args:
        checkpoint: A file, tensors by parameter name, or a module; buffers are ignored.
        label: Name of the other checkpoint in legends, ``E=200`` for instance.
        normalization: A normalization or its name.
        away: Whether to reverse the direction to θ - θ', so that α = -1 is the other checkpoint.
            Relative to an earlier checkpoint this is the direction in which training moved.
    """

    checkpoint: str | Path | Mapping[str, Tensor] | nn.Module
    label: str = "checkpoint"
    normalization: Normalization | Name = "none"
    away: bool = False

    def __post_init__(self) -> None:
        as_normalization(self.normalization)
        if not isinstance(self.checkpoint, str | Path | Mapping | nn.Module):
            raise InputError(
                "checkpoint must be a file, tensors by parameter name, or a module, got "
                f"{type(self.checkpoint).__name__}."
            )

    def directions(
        self, landscape: Landscape, num: int, *, generator: torch.Generator
    ) -> list[Direction]:
        """Return the difference; see ``DirectionSource.directions``.

        ``metadata["other_alpha"]`` is the α of the other checkpoint, if normalization leaves it on
        the line.

        Raises:
            InputError: If ``num`` is not 1, or the checkpoint is θ itself or belongs to another
                architecture.
        """
        check_num(num, 1, " for the difference of two checkpoints")
        space, theta = landscape.space, landscape.theta
        given = self.checkpoint
        given = given.state_dict() if isinstance(given, nn.Module) else given
        state = fitting_state(landscape.model, given)
        other = space.flatten({name: state[name] for name in space.names}).to(theta)
        delta = other - theta
        if not delta.any():
            raise InputError(
                f"The other checkpoint ({self.label}) is θ itself: use an earlier θ, epoch=EPOCH."
            )
        normalize = as_normalization(self.normalization)
        vector = normalize(delta, theta, space)
        metadata = {"distance": float(vector_norm(delta))}
        if normalize.name in ("none", "model"):
            metadata["other_alpha"] = float(vector_norm(delta) / vector_norm(vector))
            metadata["other_alpha"] *= -1 if self.away else 1
        name = f"{'from' if self.away else 'to'} {self.label}"
        return [Direction(-vector if self.away else vector, name, 0, metadata)]
