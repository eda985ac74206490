"""Curves and surfaces: a landscape evaluated over grids."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from tqdm import tqdm

from mining.curves import Curve, Surface, grid_with_origin
from mining.directions.base import Direction
from mining.landscape import Landscape


@dataclass(frozen=True)
class Grid:
    """The points of a curve or surface, in units of the direction's length.

    The second axis, of surfaces only, is like the first where nothing else is said. Each
    direction is followed ``scale`` times its length, or as far as its curvature shows; see
    ``with_scales``.

    Raises:
        ValueError: If a range is not finite or increasing, or has fewer than two points, or the
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
                raise ValueError(
                    f"grid.{prefix}low must lie below grid.{prefix}high, got {low} and {high}."
                )
            if num < 2:
                raise ValueError(f"grid.{prefix}num must be at least 2 points, got {num}.")
        if self.scale != "curvature" and not 0 < self.scale < math.inf:
            raise ValueError(f"grid.scale must be positive or curvature, got {self.scale}.")

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


class Evaluator:
    """Evaluates loss and accuracy of a landscape along directions.

    Args:
        landscape: The point θ, the loss and its examples.
        test: A second set of examples, evaluated in the same pass with the same batch-norm
            statistics.
        progress: Whether to draw a progress bar on stderr.
        journal: A file to which every finished point of one curve, set of curves or surface is
            written at once. After an interruption the same call with the same file goes on from
            there; a file of other directions, grid, model or data is refused.
    """

    def __init__(
        self,
        landscape: Landscape,
        *,
        test: Iterable[tuple[Tensor, Tensor]] | None = None,
        progress: bool = True,
        journal: str | Path | None = None,
    ) -> None:
        self.landscape = landscape
        self._test = None if test is None else landscape.hold(test)
        self._progress = progress
        self._journal = None if journal is None else Path(journal)

    def curve(self, direction: Direction, alphas: Tensor) -> Curve:
        """Evaluate along one direction.

        Args:
            direction: Of shape ``(D,)``.
            alphas: Points, shape ``(T,)``, strictly increasing. The point 0 is added where it is
                missing.

        Returns:
            Loss and accuracy at θ + αε; at α = 0 exactly those of θ under the landscape's
            batch-norm policy.
        """
        return self.curves([direction], alphas)[0]

    def curves(self, directions: Sequence[Direction], alphas: Tensor) -> list[Curve]:
        """Evaluate along several directions; see ``curve``. θ itself is evaluated once."""
        alphas = grid_with_origin(torch.as_tensor(alphas))
        origin = int((alphas == 0).nonzero())
        points = [[0.0] * len(directions)]  # θ first: every direction shares it
        for k in range(len(directions)):
            for t, alpha in enumerate(alphas.tolist()):
                if t != origin:
                    points.append([alpha if j == k else 0.0 for j in range(len(directions))])
        values = self._evaluate(directions, points, "curves")
        theta, rest = values[:1], values[1:].view(len(directions), len(alphas) - 1, -1)
        return [
            Curve(
                alphas=alphas,
                name=name,
                chance_loss=self.landscape.chance_loss,
                info=direction.info,
                **self._fields(torch.cat([rest[k, :origin], theta, rest[k, origin:]])),
            )
            for k, (direction, name) in enumerate(zip(directions, _names(directions), strict=True))
        ]

    def surface(self, x: Direction, y: Direction, alphas: Tensor, betas: Tensor) -> Surface:
        """Evaluate over the plane of two directions, taken as they are.

        Args:
            x: First direction, shape ``(D,)``.
            y: Second direction, shape ``(D,)``; ``y.orthogonal_to(x)`` is orthogonal.
            alphas: Points along ``x``, shape ``(A,)``; 0 is added where it is missing.
            betas: Points along ``y``, shape ``(B,)``; 0 is added where it is missing.

        Returns:
            Loss and accuracy at θ + αx + βy, shape ``(A, B)``.
        """
        alphas, betas = (grid_with_origin(torch.as_tensor(axis)) for axis in (alphas, betas))
        points = [[a, b] for a in alphas.tolist() for b in betas.tolist()]
        values = self._evaluate([x, y], points, "surface")
        names = _names([x, y])
        return Surface(
            alphas=alphas,
            betas=betas,
            names=(names[0], names[1]),
            chance_loss=self.landscape.chance_loss,
            **self._fields(values.view(len(alphas), len(betas), -1)),
        )

    def _evaluate(
        self, directions: Sequence[Direction], points: Sequence[Sequence[float]], name: str
    ) -> Tensor:
        """Evaluate at θ + Σ c_k ε_k for each row c of ``points``; four values a row, (P, 4)."""
        for direction in directions:
            self.landscape.space.check(direction.vector)
        rows = torch.full((len(points), 4), math.nan, dtype=torch.float64)
        journal = None
        done: dict[int, list[float]] = {}
        if self._journal is not None:
            journal = Journal(self._journal, self._fingerprint(directions, points))
            done = journal.read()
        bar = tqdm(
            range(len(points)),
            desc=name,
            unit="point",
            disable=not self._progress,
            dynamic_ncols=True,
        )
        for index in bar:
            if index in done:
                values = done[index]
            else:
                values = self._point(directions, points[index])
                if journal is not None:
                    journal.append(index, values)
            rows[index] = torch.tensor(values, dtype=torch.float64)
        return rows

    def _point(self, directions: Sequence[Direction], coefficients: Sequence[float]) -> list[float]:
        theta = self.landscape.theta
        for coefficient, direction in zip(coefficients, directions, strict=True):
            if coefficient != 0.0:
                theta = torch.add(theta, direction.vector.to(theta), alpha=coefficient)
        statistics = self.landscape.statistics(theta)
        found = [self.landscape.evaluate(theta, statistics=statistics)]
        if self._test is not None:
            found.append(self.landscape.evaluate(theta, self._test, statistics))
        values: list[float] = []
        for loss, accuracy in found:
            values += [loss.item(), math.nan if accuracy is None else accuracy.item()]
        return values + [math.nan] * (4 - len(values))

    def _fields(self, values: Tensor) -> dict[str, Tensor]:
        """Name the last axis of ``values``, leaving out what was not measured."""
        measured = {"loss": values[..., 0]}
        classes = self.landscape.scores_classes
        if classes:
            measured["accuracy"] = values[..., 1]
        if self._test is not None:
            measured["loss_test"] = values[..., 2]
            if classes:
                measured["accuracy_test"] = values[..., 3]
        return measured

    def _fingerprint(
        self, directions: Sequence[Direction], points: Sequence[Sequence[float]]
    ) -> str:
        digest = hashlib.sha256(self.landscape.fingerprint(self._test or ()).encode())
        for direction in directions:
            digest.update(direction.vector.cpu().view(torch.uint8).numpy().data)
        digest.update(repr(points).encode())
        return digest.hexdigest()


class Journal:
    """Finished points, appended to a text file as they come.

    A line is the number of a point and its values; the presence of the number, not any value,
    says that it is finished. A line cut off by a kill is dropped when the file is read.

    Args:
        path: The file; made if absent.
        fingerprint: What the points belong to; the first line of the file.

    Raises:
        ValueError: If the file belongs to something else.
    """

    def __init__(self, path: Path, fingerprint: str) -> None:
        self._path = path
        content = path.read_text() if path.exists() else ""
        if "\n" not in content:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{fingerprint}\n")
            return
        if content.split("\n", 1)[0] != fingerprint:
            raise ValueError(
                f"{path} holds points of other directions, grid, model or data. Give every "
                "evaluation a file of its own, or remove this one."
            )
        if not content.endswith("\n"):
            path.write_text(content[: content.rindex("\n") + 1])

    def read(self) -> dict[int, list[float]]:
        """Return the values of each finished point by its number."""
        points = {}
        for line in self._path.read_text().splitlines()[1:]:
            index, *values = line.split(",")
            points[int(index)] = [float(value) for value in values]
        return points

    def append(self, index: int, values: Sequence[float]) -> None:
        """Write down one finished point."""
        with self._path.open("a") as file:
            file.write(",".join([str(index), *map(repr, values)]) + "\n")


def _names(directions: Sequence[Direction]) -> list[str]:
    """Name directions by their sources, numbered where a source occurs more than once."""
    sources = [direction.source for direction in directions]
    return [d.name if sources.count(d.source) > 1 else d.source for d in directions]


def _points(low: float, high: float, num: int) -> Tensor:
    return grid_with_origin(torch.linspace(low, high, num, dtype=torch.float64))
