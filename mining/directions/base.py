"""Directions and the interface of their sources."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, Self

import torch
from torch import Tensor
from torch.linalg import vector_norm

from mining import InputError
from mining.directions.normalization import Name, Normalization, orthogonalize
from mining.functional.parameters import ParameterSpace
from mining.landscape import Landscape

Scale = float | Literal["curvature"]


@dataclass(frozen=True)
class Convergence:
    """How the iteration that found a direction ended."""

    converged: bool  # whether it reached its tolerance
    residual: float | None = None  # ‖Hv - λv‖ of an eigenvector
    diverged_epoch: int | None = None  # of mining that diverged; the direction is of before


@dataclass(frozen=True, eq=False)
class Direction:
    """A vector in parameter space, with its source and what is known about it.

    Raises:
        InputError: If the vector is not flat, not finite, or zero.
    """

    vector: Tensor  # (D,)
    source: str
    index: int = 0
    metadata: Mapping[str, float] = field(default_factory=dict)  # numbers that only records show
    scale: float | None = None  # factor by which it is to be multiplied; ``stretch`` does so
    stretched: bool = False  # whether the vector has been multiplied by ``scale``
    other_alpha: float | None = None  # α of the other end, such as another checkpoint
    loss_at_theta: float | None = None  # nats, when the direction was mined to follow a curve
    convergence: Convergence | None = None  # of the iteration that found it, if it has a criterion

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

    def record(self) -> dict[str, float]:
        """Return all numbers known of the direction by name, as records show them."""
        numbers = dict(self.metadata)
        for name in ("scale", "other_alpha", "loss_at_theta"):
            if (value := getattr(self, name)) is not None:
                numbers[name] = value
        if self.stretched:
            numbers["stretched"] = 1.0
        if self.convergence is not None:
            if self.convergence.diverged_epoch is not None:
                numbers["diverged_epoch"] = self.convergence.diverged_epoch
            else:
                numbers["converged"] = float(self.convergence.converged)
            if self.convergence.residual is not None:
                numbers["residual"] = self.convergence.residual
        return numbers

    @classmethod
    def from_record(
        cls, vector: Tensor, source: str, index: int, numbers: Mapping[str, float]
    ) -> "Direction":
        """Make the direction that has the vector, shape ``(D,)``, and the numbers of a record."""
        rest = dict(numbers)
        fields = {n: rest.pop(n, None) for n in ("scale", "other_alpha", "loss_at_theta")}
        stretched, residual = bool(rest.pop("stretched", 0)), rest.pop("residual", None)
        convergence = None
        if "diverged_epoch" in rest:
            convergence = Convergence(False, residual, int(rest.pop("diverged_epoch")))
        elif "converged" in rest:
            convergence = Convergence(bool(rest.pop("converged")), residual)
        return cls(
            vector, source, index, rest, stretched=stretched, convergence=convergence, **fields
        )

    def frozen(self, space: ParameterSpace, parameters: str | Sequence[str]) -> "Direction":
        """Leave some parameters where they are: set their entries to zero, and keep the others.

        Args:
            space: The parameters of the ``D`` entries.
            parameters: Which ones, in the format of ``ParameterSpace.select``.

        Raises:
            InputError: If a name matches no parameter, or no entry is left that is not zero.
        """
        kept = {name: piece.clone() for name, piece in space.unflatten(self.vector).items()}
        for name in space.select(parameters).names:
            kept[name].zero_()
        vector = space.flatten(kept).to(self.vector)
        # The other end, a checkpoint for instance, is not on the line any more.
        moved = not torch.equal(vector, self.vector)
        return replace(self, vector=vector, other_alpha=None if moved else self.other_alpha)

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


class Checkpoints(Protocol):
    """Where a source finds the checkpoints of trainings."""

    def at(self, epoch: int | None, *, independent: bool = False) -> Path:
        """Find the weights at an epoch; a training that has not finished is run first.

        Args:
            epoch: The epoch; ``None``: the last.
            independent: Whether of a training with another seed, instead of the training of θ.

        Raises:
            InputError: If there is no such training, or that epoch is not kept.
        """

    def trajectory(self) -> Sequence[Path]:
        """Find all weights that the training of θ kept, in the order of their epochs.

        Raises:
            InputError: If θ is of no such training.
        """

    def optimizer_state(self, epoch: int | None) -> Mapping[str, Any]:
        """Read ``state`` and ``param_groups`` of the optimizer of the training of θ.

        Args:
            epoch: The epoch; ``None``: that of θ if it is a file, otherwise the last.

        Raises:
            InputError: If the file holds no such state, as that of the initialization.
        """


@dataclass(frozen=True)
class SharedSearch:
    """One search that finds the directions of both axes of a surface."""

    num: int  # directions to find
    positions: tuple[int, int]  # of the first and the second axis among them
    options: Mapping[str, object] = field(default_factory=dict)  # that replace the first axis' own


class DirectionSource(ABC):
    """Computes directions at the θ of a landscape.

    Final subclasses are frozen dataclasses whose fields are their validated settings. They do not
    change the landscape, and draw all random numbers from the given generator. Only
    ``directions`` must be defined; the other members declare what a source needs and how its
    directions are used.
    """

    #: The pipeline that computes the directions once and keeps them; ``None``: they are cheap.
    kept_by: ClassVar[Literal["eigenvectors", "mine"] | None] = None
    #: How the directions are normalized; ``None``: the source sets their length itself.
    normalization: Normalization | Name | None = None

    @abstractmethod
    def directions(
        self, landscape: Landscape, num: int, *, generator: torch.Generator
    ) -> list[Direction]:
        """Return ``num`` directions.

        Args:
            landscape: The point θ and the loss.
            num: Number of directions, at least 1.
            generator: Source of random numbers, on the CPU, so that the same seed gives the same
                direction on every device.

        Returns:
            ``num`` directions of shape ``(D,)`` on the device of θ.

        Raises:
            InputError: If the source has fewer than ``num`` directions.
        """

    def bind(self, checkpoints: Checkpoints) -> Self:
        """Return this source with the checkpoints that it needs; by default it needs none."""
        return self

    def check_grid(self, alphas: Tensor, scale: Scale = 1.0) -> None:  # noqa: B027
        """Raise ``InputError`` if the directions cannot be followed on a grid.

        Args:
            alphas: Points of the grid, shape ``(T,)``.
            scale: Factor on the directions.
        """

    def target_curve(self, own: float, chance: float | None) -> list[tuple[float, float]] | None:
        """Return points (α, loss) of the curve that the directions are optimized to follow.

        Args:
            own: The loss of θ, nats.
            chance: The chance-level loss, if there is one.

        Returns:
            The points; ``None``, the default, if there is no such curve.
        """
        return None

    def waypoints(self, landscape: Landscape) -> Mapping[str, Tensor] | None:
        """Return the points of a path that surfaces of these directions show, by their names.

        Args:
            landscape: The point θ and the loss.

        Returns:
            Shape ``(D,)`` each, in order; ``None``, the default, if there is no path.
        """
        return None

    def shared_search(self, other: "DirectionSource") -> SharedSearch | None:
        """Describe one search for the directions of this source and of ``other``.

        Args:
            other: The source of the second axis of a surface whose first axis is of this one. If
                both have the same options, it is this source itself.

        Returns:
            The search; ``None``, the default, if each source computes its own direction.

        Raises:
            InputError: If both give the same direction.
        """
        return None


def as_normalization(normalization: Normalization | Name) -> Normalization:
    """Accept a normalization or its name."""
    if isinstance(normalization, Normalization):
        return normalization
    return Normalization(normalization)


def same_input(one: object, other: object) -> bool:
    """Whether two sources were given the same object, or the same paths."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same_input, one, other))
    return one is other or (isinstance(one, str | Path) and one == other)


def check_num(num: int, most: int | None = None, why: str = "") -> None:
    """Raise ``InputError`` unless ``1 <= num <= most``."""
    if num < 1 or (most is not None and num > most):
        allowed = {None: "at least 1", 1: "1"}.get(most, f"between 1 and {most}")
        raise InputError(f"num_directions must be {allowed}{why}, got {num}.")
