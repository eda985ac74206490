"""Directions and the interface of their sources."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.linalg import vector_norm

from mining import InputError
from mining.directions.normalization import Name, Normalization, orthogonalize
from mining.landscape import Landscape


@dataclass(frozen=True, eq=False)
class Direction:
    """A vector in parameter space and its origin.

    Raises:
        InputError: If the vector is not flat, not finite, or zero.
    """

    vector: Tensor  # (D,)
    source: str
    index: int = 0
    metadata: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.vector, Tensor) or not self.vector.is_floating_point():
            kind = self.vector.dtype if isinstance(self.vector, Tensor) else type(self.vector)
            raise InputError(
                f"A direction must be a tensor of floating-point numbers, got {kind} "
                f"({self.name}): torch.as_tensor(vector, dtype=theta.dtype) makes one."
            )
        # A column of a matrix has gaps in memory, and a parameter a graph.
        object.__setattr__(self, "vector", self.vector.detach().contiguous())
        if self.vector.dim() != 1:
            raise InputError(
                f"A direction must have shape (D,), got {tuple(self.vector.shape)} ({self.name})."
            )
        if not torch.isfinite(self.vector).all():
            raise InputError(f"Direction {self.name} has entries that are not finite.")
        if not self.vector.any():
            raise InputError(f"Direction {self.name} has norm zero, so it defines no line.")

    @property
    def name(self) -> str:
        """The name of the source and the number of the direction, counted from 1."""
        return f"{self.source} {self.index + 1}"

    def orthogonal_to(self, other: "Direction") -> "Direction":
        """Remove the component along ``other`` and keep the norm.

        The original angle between the two, in degrees, is stored as ``metadata["angle_before"]``.

        Raises:
            InputError: If the two are parallel.
        """
        angle = math.degrees(math.acos(cosine(self.vector, other.vector)))
        vector = orthogonalize(self.vector, other.vector)
        return replace(self, vector=vector, metadata={**self.metadata, "angle_before": angle})


def cosine(a: Tensor, b: Tensor) -> float:
    """Compute the cosine of the angle between two vectors, shape ``(D,)`` each, in float64."""
    a, b = a.double(), b.double()
    return float((a @ b / (vector_norm(a) * vector_norm(b))).clamp(-1, 1))


class DirectionSource(ABC):
    """Yields directions at the θ of a landscape.

    Final subclasses are frozen dataclasses whose fields are their validated settings. They do not
    change the landscape, and take all randomness from the given generator.
    """

    @abstractmethod
    def directions(
        self, landscape: Landscape, num: int, *, generator: torch.Generator
    ) -> list[Direction]:
        """Return ``num`` directions.

        Args:
            landscape: The point θ and the loss.
            num: Number of directions, at least 1.
            generator: Source of randomness, on the CPU, so that the same seed gives the same
                direction on every device.

        Returns:
            ``num`` directions of shape ``(D,)`` on the device of θ.

        Raises:
            InputError: If the source has fewer directions.
        """


def as_normalization(normalization: Normalization | Name) -> Normalization:
    """Accept a normalization or its name."""
    if isinstance(normalization, Normalization):
        return normalization
    return Normalization(normalization)


def check_num(num: int, most: int | None = None, why: str = "") -> None:
    """Raise ``InputError`` unless ``1 <= num <= most``."""
    if num < 1 or (most is not None and num > most):
        allowed = {None: "at least 1", 1: "1"}.get(most, f"between 1 and {most}")
        raise InputError(f"num_directions must be {allowed}{why}, got {num}.")
