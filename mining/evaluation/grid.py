"""The points at which a curve or surface is evaluated."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mining import InputError

#: Points of a grid: beyond it their bookkeeping alone takes gigabytes.
MOST_POINTS = 10**6


@dataclass(frozen=True)
class Grid:
    """The points of a curve or surface, in units of the direction's length.

    The second axis (surfaces only) is the same as the first by default. Each direction is
    multiplied by ``scale``, or by a factor from its curvature; see ``with_scales``.

    Raises:
        InputError: If a range is not finite or increasing, or has fewer than two points, or the
            scale is not positive.
    """

    low: float = -1.0
    high: float = 1.0
    num: int = 41
    y_low: float | None = None
    y_high: float | None = None
    y_num: int | None = None
    scale: float | Literal["curvature"] = 1.0

    def __post_init__(self) -> None:
        for prefix, (low, high, num) in {"": self._x, "y_": self._y}.items():
            if not (math.isfinite(low) and math.isfinite(high) and low < high):
                raise InputError(
                    f"grid.{prefix}low must lie below grid.{prefix}high, got {low} and {high}."
                )
            if num < 2:
                raise InputError(f"grid.{prefix}num must be at least 2 points, got {num}.")
            if num > MOST_POINTS:
                raise InputError(f"grid.{prefix}num must be at most {MOST_POINTS}, got {num}.")
        if self.scale != "curvature" and not 0 < self.scale < math.inf:
            raise InputError(f"grid.scale must be positive or curvature, got {self.scale}.")

    @property
    def alphas(self) -> Tensor:
        """The points of the first axis with 0 among them, shape ``(T,)``, float64."""
        return _points(*self._x)

    @property
    def betas(self) -> Tensor:
        """The points of the second axis with 0 among them, shape ``(B,)``, float64."""
        return _points(*self._y)

    @property
    def _x(self) -> tuple[float, float, int]:
        return self.low, self.high, self.num

    @property
    def _y(self) -> tuple[float, float, int]:
        return (
            self.low if self.y_low is None else self.y_low,
            self.high if self.y_high is None else self.y_high,
            self.num if self.y_num is None else self.y_num,
        )


def _points(low: float, high: float, num: int) -> Tensor:
    return grid_with_origin(torch.linspace(low, high, num, dtype=torch.float64))


def check_increasing(name: str, points: Tensor) -> None:
    """Raise ``InputError`` unless ``points`` are finite, at least two, and strictly increase."""
    if points.dim() != 1 or len(points) < 2:
        raise InputError(f"{name} must be at least two points, got shape {tuple(points.shape)}.")
    if not torch.isfinite(points).all() or not (points.diff() > 0).all():
        raise InputError(f"{name} must be finite and strictly increasing, got {points.tolist()}.")


def grid_with_origin(points: Tensor) -> Tensor:
    """Add 0 to increasing points, so that θ itself is always evaluated.

    A point within a millionth of the range of 0 becomes 0; otherwise 0 is inserted, and the grid
    is one point longer.

    Args:
        points: Shape ``(T,)``, strictly increasing.

    Returns:
        Shape ``(T,)`` or ``(T + 1,)``, float64, on the CPU.

    Raises:
        InputError: If the points are fewer than two, not finite, or do not increase.
    """
    check_increasing("alphas", points)
    points = points.detach().to("cpu", torch.float64)
    nearest = index_of_zero(points)
    if nearest is not None:
        points = points.clone()
        points[nearest] = 0.0
        return points
    return torch.cat([points, points.new_zeros(1)]).sort().values


def index_of_zero(points: Tensor) -> int | None:
    """Find the point that is 0 to a millionth of the range, if there is one."""
    nearest = int(points.abs().argmin())
    return nearest if abs(points[nearest]) <= 1e-6 * (points[-1] - points[0]) else None


def lines_through_origin(alphas: Tensor, betas: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
    """Find the axes of a grid, and its diagonals where more than two points lie on them.

    Args:
        alphas: Shape ``(A,)``, with 0 among them.
        betas: Shape ``(B,)``, with 0 among them.

    Returns:
        Rows and columns of the points of ``x``, ``y``, and of ``diagonal`` and ``antidiagonal``,
        where β is proportional to α as the extents of the axes are.

    Raises:
        InputError: If 0 is not among the points of an axis.
    """
    row, column = (index_of_zero(points) for points in (alphas, betas))
    if row is None or column is None:
        raise InputError("The points of both axes must contain 0, where θ is.")
    width, height = alphas[-1] - alphas[0], betas[-1] - betas[0]

    def diagonal(sign: float) -> tuple[Tensor, Tensor]:
        distance = (betas[None, :] - sign * alphas[:, None] * height / width).abs()
        i, j = (distance <= 1e-6 * height).nonzero(as_tuple=True)
        return i, j

    axes = {
        "x": (torch.arange(len(alphas)), torch.full((len(alphas),), column)),
        "y": (torch.full((len(betas),), row), torch.arange(len(betas))),
    }
    diagonals = {"diagonal": diagonal(1.0), "antidiagonal": diagonal(-1.0)}
    return axes | {name: line for name, line in diagonals.items() if len(line[0]) > 2}
