"""Principal components of a training's path."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from mining import InputError
from mining.directions.base import (
    Checkpoints,
    Direction,
    DirectionSource,
    SharedSearch,
    as_normalization,
    check_num,
    same_input,
)
from mining.directions.checkpoint import theta_of
from mining.directions.normalization import Name, Normalization
from mining.functional.memory import check_memory
from mining.landscape import Landscape

#: Columns of the matrix of checkpoints that are converted to float64 at a time.
_BLOCK = 2**18


@dataclass(frozen=True, eq=False)
class TrajectoryPCA(DirectionSource):
    """Principal components of the checkpoints of a training: the plane in which most of it moved.

    Li et al. (2018), Sec. 7. The components are those of the checkpoints about their mean, and
    orthogonal. Without normalization the length of each is the largest distance of a checkpoint
    from θ along it, and that checkpoint is on the positive side: the whole path lies between -1 and
    1. They are computed from the products of the n checkpoints with each other, without a matrix of
    D × D.

    Args:
        states: At least two checkpoints in the order of the path: files, tensors by parameter name,
            or modules. ``None``: ``bind`` takes all checkpoints of the training of θ.
        labels: Their names in pictures, for instance ``E=10``; ``None``: their numbers from 1.
        start: Number of the first component; 2 omits the first.
        normalization: A normalization or its name. One that rescales parts of a vector by different
            factors leaves directions that span another plane.

    Raises:
        InputError: If an option is invalid.
    """

    states: Sequence[str | Path | Mapping[str, Tensor] | nn.Module] | None = None
    labels: Sequence[str] | None = None
    start: int = 1
    normalization: Normalization | Name = "none"

    def __post_init__(self) -> None:
        as_normalization(self.normalization)
        if self.start < 1:
            raise InputError(f"direction.start must be at least 1, got {self.start}.")
        if self.states is None:
            return
        if isinstance(self.states, str | Path | Mapping | nn.Module) or len(self.states) < 2:
            raise InputError(
                "direction.states must be at least two checkpoints: files, tensors by parameter "
                "name, or modules."
            )
        if self.labels is not None and len(self.labels) != len(self.states):
            raise InputError(
                f"direction.labels must be one for each of {len(self.states)} states, got "
                f"{len(self.labels)}."
            )

    def bind(self, checkpoints: Checkpoints) -> Self:
        """Find the checkpoints of the training, unless they are given."""
        if self.states is not None:
            return self
        found = list(checkpoints.trajectory())
        return replace(self, states=found, labels=[f"E={int(path.stem[-4:])}" for path in found])

    def directions(
        self, landscape: Landscape, num: int, *, generator: torch.Generator
    ) -> list[Direction]:
        """Compute ``num`` components; see ``DirectionSource.directions``.

        ``metadata`` contains the ``explained_variance``, as a fraction, and the ``extent`` of the
        path, its largest distance from θ along the component.

        Raises:
            InputError: If the path has fewer components, or a checkpoint does not fit the model.
        """
        points, theta = torch.stack(list(self.waypoints(landscape).values())), landscape.theta.cpu()
        variances, mixtures = _components(points)
        last = len(variances)
        most = f", as the path of {len(points)} checkpoints spans {last} dimensions"
        if self.start > last:
            raise InputError(f"direction.start must be at most {last}{most}, got {self.start}.")
        check_num(num, last - self.start + 1, f"{most} and direction.start={self.start}")
        normalize = as_normalization(self.normalization)
        found = []
        for number in range(self.start - 1, self.start - 1 + num):
            vector = torch.cat([mixtures[:, number] @ block for block in _centred(points)])
            along = torch.stack([(point.double() - theta.double()) @ vector for point in points])
            extent = along[along.abs().argmax()]
            share = float(variances[number] / variances.sum())
            scaled = (vector * extent).to(landscape.theta)
            found.append(
                Direction(
                    normalize(scaled, landscape.theta, landscape.space),
                    f"PC{number + 1} ({share:.1%} of the variance)",
                    metadata={"explained_variance": share, "extent": float(extent.abs())},
                )
            )
        return found

    def waypoints(self, landscape: Landscape) -> dict[str, Tensor]:
        """Read the checkpoints by their labels, shape ``(D,)`` each, on the CPU."""
        if self.states is None:
            raise InputError(
                "direction.states must be given: files, tensors by parameter name, or modules."
            )
        check_memory(
            2 * len(self.states) * landscape.theta.nbytes,
            torch.device("cpu"),
            f"a path of {len(self.states)} checkpoints",
            "give fewer",
        )
        labels = self.labels or [str(n) for n in range(1, len(self.states) + 1)]
        pairs = zip(labels, self.states, strict=True)
        found = {label: theta_of(state, landscape).cpu() for label, state in pairs}
        if len(found) < len(self.states):
            raise InputError(f"direction.labels must differ from each other, got {labels}.")
        return found

    def shared_search(self, other: DirectionSource) -> SharedSearch | None:
        """Take both components from one analysis: by default x is the first and y the second."""
        if not isinstance(other, TrajectoryPCA) or not (
            same_input(self.states, other.states)
            and self.labels == other.labels
            and self.normalization == other.normalization
        ):
            return None
        first, last = sorted((self.start, other.start))
        second = other.start if other.start != self.start else self.start + 1
        return SharedSearch(
            max(last, second) - first + 1, (self.start - first, second - first), {"start": first}
        )


def _components(points: Tensor) -> tuple[Tensor, Tensor]:
    """Find the components of n points from their products with each other.

    Args:
        points: Shape ``(n, D)``.

    Returns:
        The sums of squares along the r components that are not zero, shape ``(r,)``, descending,
        and the unit components as mixtures of the centred points, shape ``(n, r)``.

    Raises:
        InputError: If all points are one.
    """
    products = torch.zeros(len(points), len(points), dtype=torch.float64)
    for block in _centred(points):
        products += block @ block.T
    values, vectors = torch.linalg.eigh(products)
    values, vectors = values.flip(0), vectors.flip(1)
    # Products are rounded in float64; a square of what the weights were rounded to is no component.
    rounding = max(torch.finfo(torch.float64).eps, torch.finfo(points.dtype).eps ** 2)
    kept = values > len(points) * rounding * values[0]
    if not bool(kept.any()):
        raise InputError("direction.states are all the same point, so they have no components.")
    return values[kept], vectors[:, kept] / values[kept].sqrt()


def _centred(points: Tensor) -> Iterator[Tensor]:
    """Give the points about their mean in blocks of columns, shape ``(n, d)``, float64."""
    for block in torch.split(points, _BLOCK, dim=1):
        columns = block.double()
        yield columns - columns.mean(0)
