"""Adaptive refinement: surfaces evaluated only where interpolation fails."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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

    def corners(self) -> list[Point]:
        """Return the four corners."""
        return [(row, column) for row in self.rows for column in self.columns]

    def tested(self) -> list[Point]:
        """Return the corners and the centre, at which the interpolation is tested."""
        rows, columns = self.split()
        return [*self.corners(), (rows[len(rows) // 3], columns[len(columns) // 3])]

    def parts(self) -> list["_Cell"]:
        """Return the cells into which this one is subdivided; none if it is smallest."""
        rows, columns = self.split()
        if len(rows) == len(columns) == 2:
            return []
        return [_Cell(r, c) for r in pairwise(rows) for c in pairwise(columns)]


@dataclass(frozen=True)
class Interpolation:
    """A grid of which some points are evaluated and the others interpolated between them.

    Args:
        shape: Points along each axis, (A, B).
        points: The K evaluated points, by their indices.
        cap: Loss c above which logarithms are interpolated: u = c (1 + log(L / c)) in place of L.
        differences: How far the interpolation was off where it was last tested near each point,
            shape ``(A·B, C)``; 0 at evaluated points. Of losses above the cap it is that of u.
    """

    shape: Point
    points: Sequence[Point]
    cap: float
    differences: Tensor

    @property
    def numbers(self) -> list[int]:
        """The evaluated points, numbered row by row."""
        return [row * self.shape[1] + column for row, column in self.points]

    @property
    def evaluated(self) -> Tensor:
        """Which points of the grid are evaluated, shape ``(A·B,)``."""
        evaluated = torch.zeros(self.shape[0] * self.shape[1], dtype=torch.bool)
        evaluated[self.numbers] = True
        return evaluated

    def fill(self, values: Tensor) -> Tensor:
        """Interpolate the values of the evaluated points, shape ``(K, C)``, to ``(A·B, C)``."""
        found = _interpolate(self.shape, self.points, _compress(values, self.cap))
        filled = torch.from_numpy(_expand(found, self.cap)).flatten(0, 1)
        filled[self.numbers] = values
        return filled

    @cached_property
    def shares(self) -> Tensor:
        """What a value 1 of each evaluated point adds to each point, shape ``(A·B, K)``."""
        unit = np.eye(len(self.points))
        found = torch.from_numpy(_interpolate(self.shape, self.points, unit)).flatten(0, 1)
        found[self.numbers] = torch.from_numpy(unit)
        return found

    def weights(self, losses: Tensor) -> Tensor:
        """Find what the loss of each evaluated point adds to that of each point of the grid.

        Args:
            losses: Of the evaluated points, shape ``(K,)``. One that is not finite adds nothing.

        Returns:
            Shape ``(A·B, K)``: the derivative of ``fill`` by the losses.
        """
        filled = self.fill(losses[:, None])[:, 0]
        found = self.shares * self.slope(filled)[:, None] / self.slope(losses)
        found[:, ~losses.isfinite()] = 0.0
        found[self.numbers] = torch.eye(len(self.points), dtype=found.dtype)
        return found

    def slope(self, losses: Tensor) -> Tensor:
        """Give dL / du: 1 up to the cap, and L / c above it."""
        return (losses / self.cap).clamp(min=1.0)


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
        cap: Loss above which nothing is resolved: there, logarithms are interpolated, and no cell
            is subdivided for the difference at a point if loss and prediction both lie above.
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
        between, values = self.explore(measure)
        return between.fill(values), between.evaluated

    def explore(self, measure: Measure) -> tuple[Interpolation, Tensor]:
        """Evaluate points of the grid until the others can be interpolated.

        Args:
            measure: Evaluates points of the grid.

        Returns:
            Which points those are, and their values, shape ``(K, C)``.
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
        differences = np.zeros((*self.shape, len(next(iter(known.values())))))
        while cells:
            values = _compress(torch.stack(list(known.values())), self.cap)
            predicted, before = _interpolate(self.shape, list(known), values), set(known)
            evaluate(point for cell in cells for point in cell.tested())
            found = self._differences(known, predicted)
            missed = self._missed(known, predicted[..., 0]) - before
            _note(cells, found, differences)
            # A point on a side belongs to the cells on both sides of it, and the other points of
            # a cell to its neighbours.
            near = {q for cell in cells if missed & cell.points() for q in cell.points()}
            cells = [part for cell in cells if near & cell.points() for part in cell.parts()]
        differences[tuple(zip(*known, strict=True))] = 0.0
        flat = torch.from_numpy(differences).flatten(0, 1)
        return Interpolation(self.shape, list(known), self.cap, flat), torch.stack(
            [*known.values()]
        )

    def _differences(self, known: Mapping[Point, Tensor], predicted: Array) -> dict[Point, Array]:
        """Find how far each known point is from what was predicted, shape ``(C,)`` each."""
        values = _compress(torch.stack(list(known.values())), self.cap)
        return {p: np.abs(row - predicted[p]) for p, row in zip(known, values, strict=True)}

    def _missed(self, known: Mapping[Point, Tensor], predicted: Array) -> set[Point]:
        losses = _compress(torch.stack(list(known.values())), self.cap)[:, 0].clip(max=self.cap)
        bound = self.deviation * float(losses.max() - losses.min())
        expected = [min(float(predicted[point]), self.cap) for point in known]
        found = zip(known, losses, expected, strict=True)
        return {point for point, loss, value in found if abs(loss - value) > bound}


def _note(cells: Sequence[_Cell], found: Mapping[Point, Array], differences: Array) -> None:
    """Write down, for all points of each cell, the largest difference in it and its neighbours."""
    at_corner: dict[Point, Array] = {}
    largest = {cell: np.max([found[point] for point in cell.tested()], axis=0) for cell in cells}
    for cell, value in largest.items():
        for corner in cell.corners():
            at_corner[corner] = np.fmax(at_corner.get(corner, value), value)
    for cell in cells:
        rows, columns = (slice(low, high + 1) for low, high in (cell.rows, cell.columns))
        near = np.fmax.reduce([at_corner[corner] for corner in cell.corners()])
        differences[rows, columns] = near


def _interpolate(shape: Point, points: Sequence[Point], values: Array) -> Array:
    """Interpolate values at some points, shape ``(K, C)``, over the whole grid: ``(A, B, C)``."""
    places = np.array(points, dtype=np.float64)
    measured = ~np.isnan(values).all(0)  # where there is no accuracy, there is none between
    smooth = CloughTocher2DInterpolator(places, values[:, measured], rescale=True)
    rows, columns = np.meshgrid(*map(np.arange, shape), indexing="ij")
    found = np.full((*shape, values.shape[1]), np.nan)
    found[..., measured] = smooth(rows, columns)
    return found


def _compress(values: Tensor, cap: float) -> Array:
    """Take logarithms of the losses, every second column, above the cap; see ``Interpolation``.

    Those that are not finite count as the largest that is.
    """
    found: Array = values.double().numpy().copy()
    losses = found[:, ::2]
    finite = losses[np.isfinite(losses)]
    losses[~np.isfinite(losses) & ~np.isnan(losses).all(0)] = finite.max(initial=0.0)
    above = losses > cap
    losses[above] = cap * (1 + np.log(losses[above] / cap))
    return found


def _expand(values: Array, cap: float) -> Array:
    """Undo ``_compress``; the last axis has the columns."""
    losses = values[..., ::2]
    above = losses > cap
    losses[above] = cap * np.exp(losses[above] / cap - 1)
    return values


def _coarse(num: int, origin: int) -> list[int]:
    """Choose indices of an axis at equal distances, both ends and θ among them."""
    step = 1
    while (num - 1) // (2 * step) >= _COARSEST:
        step *= 2
    return sorted({*range(0, num, step), num - 1, origin})


def _halve(low: int, high: int) -> list[int]:
    return [low, high] if high - low < 2 else [low, (low + high) // 2, high]
