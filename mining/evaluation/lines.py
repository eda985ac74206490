"""Straight lines between points of a surface."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from mining import InputError
from mining.directions.base import Direction
from mining.directions.update_rule import UpdateRule
from mining.evaluation.curves import SINGLE, Curve
from mining.evaluation.grid import grid_with_origin
from mining.evaluation.points import Points
from mining.landscape import Landscape

Coordinates = tuple[float, float]


def evaluate_line(
    landscape: Landscape,
    axes: tuple[Direction, Direction],
    ends: tuple[Coordinates, Coordinates],
    points: Tensor,
    *,
    test: Iterable[Any] | None = None,
    rule: UpdateRule | None = None,
    chunk: int | None = None,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Curve:
    """Evaluate loss and accuracy on the line through two points of the plane of two directions.

    Args:
        landscape: The point θ, the loss and its examples.
        axes: The directions x and y of the plane.
        ends: (α, β) of the point at which the curve is 0, and of the one at which it is 1.
        points: Where it is evaluated, shape ``(T,)``, strictly increasing; 0 is added where it is
            missing.
        test: A second set of examples, evaluated with the same batch-norm statistics.
        rule: How α and β move θ, if not to θ + αx + βy.
        chunk: Points evaluated together; ``None`` chooses a number.
        watch: Called before the first and after every chunk, with the number of finished points
            and of all points. What it raises ends the evaluation.

    Returns:
        The curve; its θ is the point at 0.

    Raises:
        InputError: If the ends are one point or not finite, or the points do not increase.
    """
    (a, b), (c, d) = ends
    if not all(map(math.isfinite, (a, b, c, d))) or (a, b) == (c, d):
        raise InputError(f"A line joins two different, finite points, got {ends[0]} and {ends[1]}.")
    points = grid_with_origin(torch.as_tensor(points))
    rows = [[a + t * (c - a), b + t * (d - b)] for t in points.tolist()]
    sets = [landscape.batches] + ([] if test is None else [landscape.hold(test)])
    size = landscape.points_together() if chunk is None else chunk
    evaluated = Points(
        landscape,
        sets,
        [direction.vector for direction in axes],
        rows,
        chunk=size,
        journal=None,
        done={},
        bar=tqdm(disable=True),
        rule=rule,
    )
    found = []
    for start in range(0, len(rows), size):
        watch(start, len(rows))
        found.append(evaluated.evaluate(range(start, min(start + size, len(rows)))))
    watch(len(rows), len(rows))
    values = torch.cat(found)
    names = ("loss", "accuracy", "loss_test", "accuracy_test")[: 2 * len(sets)]
    known = {n: v for n, v in zip(names, values.T, strict=False) if not _is_absent(n, landscape)}
    return Curve(
        alphas=points,
        name=f"from ({a:.3g}, {b:.3g}) to ({c:.3g}, {d:.3g})",
        chance_loss=landscape.chance_loss,
        rounding=max(SINGLE, float(torch.finfo(landscape.theta.dtype).eps)),
        **known,
    )


def _is_absent(name: str, landscape: Landscape) -> bool:
    return name.startswith("accuracy") and not landscape.scores_classes
