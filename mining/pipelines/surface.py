"""Evaluate and draw a surface."""

import logging
import math
from dataclasses import replace
from functools import partial

from torch import Tensor

from mining import InputError, ranks
from mining.directions import AdamMoments, Direction, DirectionSource, UpdateRule, cosine
from mining.evaluation.curves import Surface
from mining.evaluation.paths import with_path
from mining.evaluation.storage import load_surface, save_surface
from mining.explain.basins import find_basins
from mining.explain.critical_point import classify_critical_point
from mining.pipelines.explosions import Explosions
from mining.pipelines.finding import find_directions, take_directions
from mining.pipelines.pictures import save_picture
from mining.pipelines.problem import Problem
from mining.pipelines.titles import EPOCH, describe_point
from mining.plotting import draw_surface

log = logging.getLogger(__name__)

_ADAM = "θ moves by α times a step of Adam whose second moment is multiplied by 1 + β."


def run(problem: Problem) -> None:
    """Evaluate loss and accuracy over the plane of two directions."""
    grid = problem.grid
    evaluator = problem.evaluator()
    rule = find_rule(problem)
    x, y = take_directions(problem, lambda: _directions(problem))
    surface = evaluator.surface(x, y, grid.alphas, grid.betas, rule)
    if rule is None:
        surface = _with_path(problem, surface, x, y)
    ranks.on_first(partial(_finish, problem, surface, x, y, rule))


def _finish(
    problem: Problem, surface: Surface, x: Direction, y: Direction, rule: UpdateRule | None
) -> None:
    """Write and draw the surface, and record what it shows."""
    landscape = problem.landscape
    scales = [direction.scale for direction in (x, y)]
    names = surface.names
    axes = [f"{n} × {s:.3g}" if s else n for n, s in zip(names, scales, strict=True)]
    surface = replace(surface, names=(axes[0], axes[1]))
    save_surface(problem.run.directory / "surface.npz", surface)
    draw(problem)
    row, column = int((surface.alphas == 0).nonzero()), int((surface.betas == 0).nonzero())
    accuracy, kind = surface.accuracy, classify_critical_point(surface)
    log.info("%s × %s: %s", *names, kind)
    basins = find_basins(surface) if bool(surface.loss.isfinite().any()) else []
    explosions = Explosions(problem, problem.settings.x_direction)

    def point(at: tuple[float, float]) -> Tensor:
        if rule is None:
            return landscape.at([x.vector, y.vector], at)
        return landscape.theta + rule.displacement(landscape.theta, x.vector, y.vector, *at)

    problem.run.finish(
        {
            "loss_at_theta": surface.loss[row, column].item(),
            "accuracy_at_theta": None if accuracy is None else accuracy[row, column].item(),
            "directions": list(names),
            "scales": scales,
            "critical_point": kind.kind.value,
            "critical_point_probability": kind.probability,
            "labels": {name: str(shape) for name, shape in kind.lines.items()},
            "label_probabilities": {
                name: shape.label_probability for name, shape in kind.lines.items()
            },
            "basins": [basin.record() for basin in basins],
            "angle": math.degrees(math.acos(cosine(x.vector, y.vector))),
            "angle_before": y.metadata.get("angle_before"),
            "nonfinite": surface.nonfinite,
            "relative_error": surface.relative_error,
            "evaluated": None if surface.evaluated is None else int(surface.evaluated.sum()),
            "explained_variance": [d.metadata.get("explained_variance") for d in (x, y)],
            "path": _describe_path(surface),
            "explosion": explosions.describe(surface, " × ".join(names), point),
            **problem.record(),
        },
        device=str(landscape.device),
    )


def draw(problem: Problem) -> None:
    """Draw ``surface.npz`` as filled contours and in 3-D."""
    settings, directory = problem.settings, problem.run.directory
    title = f"{directory.parent.name}, {describe_point(settings, 'test in surface.npz')}"
    picture = draw_surface(
        load_surface(directory / "surface.npz"),
        title=title,
        about=EPOCH if settings.update is None else f"{EPOCH} {_ADAM}",
        **settings.picture.of_losses,
    )
    save_picture(problem, picture, "surface")


def find_rule(problem: Problem) -> UpdateRule | None:
    """Return the rule that moves θ; ``None``: addition."""
    settings = problem.settings
    if settings.update is None:
        return None
    x, y = (problem.source(target) for target in (settings.x_direction, settings.y_direction))
    if not (isinstance(x, AdamMoments) and isinstance(y, AdamMoments) and x.start == 1):
        raise InputError(
            "update=adameq moves theta along the moments of Adam: set x_direction=adam_moments "
            "y_direction=adam_moments orthogonalize=false."
        )
    rule = x.bind(replace(problem.checkpoints, asked_by="x_direction")).rule(problem.landscape)
    return rule if settings.freeze is None else rule.frozen(settings.freeze)


def _with_path(problem: Problem, surface: Surface, x: Direction, y: Direction) -> Surface:
    """Add the path that the source of an axis has, if one has any."""
    for target in (problem.settings.x_direction, problem.settings.y_direction):
        source = problem.source(target)
        if type(source).waypoints is DirectionSource.waypoints:
            continue  # to bind it could train the network whose checkpoints it needs
        source = source.bind(replace(problem.checkpoints, asked_by=target.key))
        points = source.waypoints(problem.landscape)
        if points:
            return with_path(surface, problem.landscape.theta, x, y, points)
    return surface


def _describe_path(surface: Surface) -> dict[str, object] | None:
    if surface.path is None or surface.path_deviation is None or surface.path_names is None:
        return None
    return {
        "names": list(surface.path_names),
        "coefficients": surface.path.tolist(),
        "deviations": surface.path_deviation.tolist(),
    }


def _directions(problem: Problem) -> list[Direction]:
    x_target, y_target = problem.settings.x_direction, problem.settings.y_direction
    source = problem.source(x_target)
    same = x_target.record() == y_target.record()
    shared = source.shared_search(source if same else problem.source(y_target))
    if shared is not None:
        search = x_target.with_options(**shared.options)
        found = find_directions(problem, search, shared.num)
        x, y = (found[position] for position in shared.positions)
    else:
        # One generator for both: two random directions must differ.
        (x,), (y,) = (find_directions(problem, target, 1) for target in (x_target, y_target))
    y = replace(y, index=y.index + (y.name == x.name))  # two of a source are numbered 1 and 2
    return [x, y.orthogonal_to(x) if problem.settings.orthogonalize else y]
