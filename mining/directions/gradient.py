"""The negative gradient."""

from dataclasses import dataclass

import torch
from torch.linalg import vector_norm

from mining import InputError
from mining.directions.base import Direction, DirectionSource, as_normalization, check_num
from mining.directions.normalization import Name, Normalization
from mining.landscape import Landscape


@dataclass(frozen=True)
class Gradient(DirectionSource):
    """The negative gradient of the loss at θ, over all examples or a random batch.

    Xu et al. (2024), Sec. 2.3. By default it is not normalized, so that α is a learning rate.

    Args:
        batch_size: Examples per direction, drawn anew for each; ``None``: all examples, which
            yields a single direction.
        normalization: A normalization or its name.

    Raises:
        InputError: If ``batch_size`` is below 1.
    """

    batch_size: int | None = None
    normalization: Normalization | Name = "none"

    def __post_init__(self) -> None:
        as_normalization(self.normalization)
        if self.batch_size is not None and self.batch_size < 1:
            raise InputError(f"direction.batch_size must be positive, got {self.batch_size}.")

    def directions(
        self, landscape: Landscape, num: int, *, generator: torch.Generator
    ) -> list[Direction]:
        """Compute ``num`` gradients; see ``DirectionSource.directions``.

        The norm of each gradient before normalization is stored as ``metadata["gradient_norm"]``.
        """
        check_num(
            num,
            1 if self.batch_size is None else None,
            " for the full gradient (direction.batch_size gives several)",
        )
        normalize = as_normalization(self.normalization)
        found = []
        for index in range(num):
            batches = (
                None if self.batch_size is None else landscape.sample(self.batch_size, generator)
            )
            gradient = landscape.gradient(batches=batches)
            vector = normalize(-gradient, landscape.theta, landscape.space)
            metadata = {"gradient_norm": float(vector_norm(gradient))}
            found.append(Direction(vector, "negative gradient", index, metadata))
        return found
