"""Adaptive refinement: surfaces evaluated only where interpolation fails."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CloughTocher2DInterpolator
from torch import Tensor

#: Fewest intervals of an axis in the coarsest grid.
_COARSEST = 5

Array = NDArray[np.float64]
Point = tuple[int, int]
#: Evaluates n points of a grid, numbered row by row: C values each, shape (n, C), float64. Losses
#: and accuracies alternate; the first loss decides.
Measure = Callable[[Sequence[int]], Tensor]


@dataclass(frozen=True)
class _Cell:
    """A rectangle of a grid between four of its points, by their indices."""

    rows: Point
    columns: Point

    def split(self) -> tuple[list[int], list[int]]:
        """Return the indices of rows and columns after halving, if there are any between."""
        return _halve(*self.rows), _halve(*self.columns)

    def points(self) -> set[Point]:
        """Return the corners, and the midpoints of sides and cell if there are any."""
        rows, columns = self.split()
        return {(row, column) for row in rows for column in columns}

    def tested(self) -> list[Point]:
        """Return the corners and the centre, at which the interpolation is tested."""
        (low, *_, high), (left, *_, right) = rows, columns = self.split()
        corners = [(row, column) for row in (low, high) for column in (left, right)]
        return [*corners, (rows[len(rows) // 3], columns[len(columns) // 3])]

    def parts(self) -> list["_Cell"]:
        """Return the cells into which this one is subdivided; none if it is smallest."""
        rows, columns = self.split()
        if len(rows) == len(columns) == 2:
            return []
        return [_Cell(r, c) for r in pairwise(rows) for c in pairwise(columns)]


@dataclass(frozen=True)
class Refinement:
    """Evaluates a grid where interpolation fails, and interpolates the rest.

    A coarse grid is evaluated, and the centres of its cells are compared with the prediction of a
    smooth interpolation (Clough and Tocher, piecewise cubic). Cells in which it fails are
    subdivided, with their neighbours, and so on down to the full grid.

    Args:
        shape: Points along each axis, (A, B).
        origin: Indices of θ, which is always evaluated.
        deviation: Largest difference from the prediction, as a fraction of the range of the loss.
        cap: Loss above which nothing is resolved; interpolated losses are clipped to it.
    """

    shape: Point
    origin: Point
    deviation: float
    cap: float

    def __call__(self, measure: Measure) -> tuple[Tensor, Tensor]:
        """Evaluate the grid.

        Args:
            measure: Evaluates points of the grid.

        Returns:
            Values, shape ``(A·B, C)``, and which of the points were evaluated, shape ``(A·B,)``.
        """
        axes = [_coarse(num, zero) for num, zero in zip(self.shape, self.origin, strict=True)]
        known: dict[Point, Tensor] = {}

        def evaluate(points: Iterable[Point]) -> None:
            new = [point for point in dict.fromkeys(points) if point not in known]
            if new:
                found = measure([row * self.shape[1] + column for row, column in new])
                known.update(zip(new, found, strict=True))

        evaluate((row, column) for row in axes[0] for column in axes[1])
        cells = [_Cell(r, c) for r in pairwise(axes[0]) for c in pairwise(axes[1])]
        while cells:
            predicted, before = self._interpolate(known)[..., 0], set(known)
            evaluate(point for cell in cells for point in cell.tested())
            missed = self._missed(known, predicted) - before
            # A point on a side belongs to the cells on both sides of it, and the other points of
            # a cell to its neighbours.
            near = {q for cell in cells if missed & cell.points() for q in cell.points()}
            cells = [part for cell in cells if near & cell.points() for part in cell.parts()]
        evaluated = torch.zeros(self.shape, dtype=torch.bool)
        values = torch.from_numpy(self._interpolate(known))
        for point, found in known.items():
            evaluated[point], values[point] = True, found
        return values.flatten(0, 1), evaluated.flatten()

    def _missed(self, known: Mapping[Point, Tensor], predicted: Array) -> set[Point]:
        losses = dict(zip(known, self._capped(known)[:, 0], strict=True))
        bound = self.deviation * (max(losses.values()) - min(losses.values()))
        return {p for p, loss in losses.items() if abs(loss - predicted[p]) > bound}

    def _interpolate(self, known: Mapping[Point, Tensor]) -> Array:
        """Interpolate values known at some points over the whole grid, shape ``(A, B, C)``."""
        points = np.array(list(known), dtype=np.float64)
        smooth = CloughTocher2DInterpolator(points, self._capped(known), rescale=True)
        rows, columns = np.meshgrid(*map(np.arange, self.shape), indexing="ij")
        found: Array = smooth(rows, columns)
        return found

    def _capped(self, known: Mapping[Point, Tensor]) -> Array:
        """Cut losses off, every second column, and overflows to the largest that is finite."""
        values: Array = torch.stack(list(known.values())).numpy().copy()
        losses = values[:, ::2]
        finite = losses[np.isfinite(losses)]
        cap = min(self.cap, float(finite.max(initial=0.0)))
        losses[...] = np.minimum(np.where(np.isfinite(losses), losses, cap), cap)
        return values


def _coarse(num: int, origin: int) -> list[int]:
    """Choose indices of an axis at equal distances, both ends and θ among them."""
    step = 1
    while (num - 1) // (2 * step) >= _COARSEST:
        step *= 2
    return sorted({*range(0, num, step), num - 1, origin})


def _halve(low: int, high: int) -> list[int]:
    return [low, high] if high - low < 2 else [low, (low + high) // 2, high]
