"""From a problem to directions; those that take long are computed once and kept."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch

from mining import ranks
from mining.directions import Direction, DirectionSource
from mining.directions.base import as_normalization
from mining.directions.scaling import stretch, with_scales
from mining.directions.storage import load_directions, read_directions, save_directions
from mining.evaluation.curves import Curve
from mining.functional.memory import check_memory
from mining.landscape import Landscape
from mining.pipelines.jobs import finish
from mining.pipelines.problem import Problem
from mining.pipelines.targets import Target
from mining.storage.files import drop_if_damaged


def find_directions(problem: Problem, target: Target, num: int) -> list[Direction]:
    """Return the directions of a source, zero on the parameters that ``freeze`` names.

    Expensive ones are computed once and kept, as they are without ``freeze`` and normalization.

    Args:
        problem: Where they start, how far they are followed, and the generator.
        target: The source: ``direction``, ``x_direction`` or ``y_direction`` of the settings.
        num: How many.
    """
    landscape, grid, settings = problem.landscape, problem.grid, problem.settings
    check_memory(
        3 * num * landscape.theta.nbytes,  # made, stacked and written
        torch.device("cpu"),
        f"num_directions={num}",
        "ask for fewer",
    )
    source = problem.source(target)
    source.check_grid(grid.betas if target.key == "y_direction" else grid.alphas, grid.scale)
    if source.kept_by is None:
        bound = source.bind(replace(problem.checkpoints, asked_by=target.key))
        found = _of_first(
            landscape, lambda: bound.directions(landscape, num, generator=problem.generator)
        )
    else:
        found = _find_kept(problem, source, target, num)
    if settings.freeze is None:
        return found
    return [direction.frozen(landscape.space, settings.freeze) for direction in found]


def _find_kept(
    problem: Problem, source: DirectionSource, target: Target, num: int
) -> list[Direction]:
    """Load directions of a run of their own, which is computed first where it is missing."""
    landscape, settings = problem.landscape, problem.settings
    assert source.kept_by is not None
    kept = replace(
        settings,
        pipeline=source.kept_by,
        direction=target,
        num_directions=num,
        split="test" if settings.split == "test" else "train",
    )
    path = finish(kept, "directions.pt").directory / "directions.pt"
    found = load_directions(path, landscape)
    if source.normalization is None:
        return found
    normalize = as_normalization(source.normalization)
    theta, space = landscape.theta, landscape.space
    return [replace(d, vector=normalize(d.vector, theta, space)) for d in found]


def take_directions(problem: Problem, find: Callable[[], list[Direction]]) -> list[Direction]:
    """Take the directions that an interrupted run had, or find and store them.

    Args:
        problem: Where they start, and the scale of the grid, which is kept with them.
        find: Finds them anew.

    Returns:
        The directions, each as long as it is to be followed.
    """
    stored, landscape = problem.run.directory / "directions.pt", problem.landscape
    group = ranks.current()

    def is_stored() -> bool:
        drop_if_damaged(stored, read_directions)
        return stored.exists()

    if not group.from_first(is_stored):
        directions = find()
        found = _of_first(landscape, lambda: with_scales(landscape, directions, problem.grid.scale))
        ranks.on_first(partial(save_directions, stored, found, landscape))
    group.wait_for_first()  # which has written them by then
    return [stretch(direction) for direction in load_directions(stored, landscape)]


def _of_first(landscape: Landscape, find: Callable[[], Sequence[Direction]]) -> list[Direction]:
    """Find directions on the first of several ranks, where they are those of one process."""
    group = ranks.current()
    if group.size == 1:
        return list(find())
    found = group.from_first(lambda: [replace(d, vector=d.vector.cpu()) for d in find()])
    return [replace(d, vector=d.vector.to(landscape.device)) for d in found]


def find_template(problem: Problem, curve: Curve) -> list[tuple[float, float]] | None:
    """Return α and loss of the points that curves are made to follow; ``None`` if there are none.

    Args:
        problem: Of a run of curves.
        curve: One of them, for the chance-level loss and the loss of θ during mining.
    """
    own = curve.loss_at_theta
    own = float(curve.loss[curve.origin]) if own is None else own
    points = problem.source(problem.settings.direction).target_curve(own, curve.chance_loss)
    scale = 1.0 if curve.scale is None else curve.scale
    return None if points is None else [(alpha / scale, loss) for alpha, loss in points]
