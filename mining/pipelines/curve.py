"""Evaluate, name and draw curves."""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial

from matplotlib.figure import Figure

from mining import ranks
from mining.directions import Direction
from mining.evaluation.curves import Curve, rmse
from mining.evaluation.storage import load_curves, save_curves
from mining.explain.curve_shape import CurveShape, classify
from mining.explain.falls import measure_falls
from mining.pipelines.explosions import Explosions
from mining.pipelines.finding import find_directions, find_template, take_directions
from mining.pipelines.pictures import save_picture
from mining.pipelines.problem import Problem
from mining.pipelines.titles import EPOCH, describe_point
from mining.plotting import STATIONARY, draw_curves, explain

log = logging.getLogger(__name__)


def run(problem: Problem) -> None:
    """Evaluate loss and accuracy along the configured directions."""
    settings = problem.settings
    evaluator = problem.evaluator()
    directions = take_directions(
        problem, lambda: find_directions(problem, settings.direction, settings.num_directions)
    )
    curves = evaluator.curves(directions, problem.grid.alphas)
    ranks.on_first(partial(_finish, problem, directions, curves))


def _finish(problem: Problem, directions: Sequence[Direction], curves: Sequence[Curve]) -> None:
    """Write and draw the curves, and record what they show."""
    settings, landscape = problem.settings, problem.landscape
    save_curves(problem.run.directory / "curves.npz", curves)
    draw(problem)
    template = find_template(problem, curves[0])
    shapes = [classify(curve) for curve in curves]
    explosions = Explosions(problem, settings.direction)
    pairs = list(zip(directions, curves, strict=True))
    falls = [measure_falls(landscape, direction, curve) for direction, curve in pairs]
    for curve, shape in zip(curves, shapes, strict=True):
        log.info("%s: %s", curve.name, shape.summary)
    origin, first = curves[0].origin, curves[0]
    problem.run.finish(
        {
            "loss_at_theta": first.loss[origin].item(),
            "accuracy_at_theta": None if first.accuracy is None else first.accuracy[origin].item(),
            "directions": [curve.name for curve in curves],
            "labels": [str(shape) for shape in shapes],
            "label_probabilities": [shape.label_probability for shape in shapes],
            "stationary_points": [shape.stationary_points for shape in shapes],
            "minimum_alpha": [shape.minimum_alpha for shape in shapes],
            "theta_is_minimum": [shape.theta_is_minimum for shape in shapes],
            "nonfinite": [curve.nonfinite for curve in curves],
            "relative_errors": [curve.relative_error for curve in curves],
            "features": [_features(shape) for shape in shapes],
            "falls": [asdict(fall) for fall in falls],
            "explosion": [
                explosions.describe(curve, curve.name, partial(landscape.at, [direction.vector]))
                for direction, curve in pairs
            ],
            "metadata": [curve.record() for curve in curves],
            "template": template,
            "rmse": [rmse(curve, template) for curve in curves] if template else None,
            **problem.record(),
        },
        device=str(landscape.device),
    )


def draw(problem: Problem) -> None:
    """Draw ``curves.npz``, and the template of curves that were drawn."""
    settings, directory = problem.settings, problem.run.directory
    picture = Figure(figsize=(5.6, 4), layout="constrained")
    axes = picture.add_subplot()
    curves = load_curves(directory / "curves.npz")
    template = find_template(problem, curves[0])
    draw_curves(axes, curves, template=template, legend=False, **settings.picture.of_losses)
    title = (
        f"{directory.parent.name}, {describe_point(settings, 'dashed: test')}\n{axes.get_title()}"
    )
    axes.set_title(title, fontsize=9)
    explain(picture, [axes], f"{EPOCH} {STATIONARY}")
    save_picture(problem, picture, "curves")


def _features(shape: CurveShape) -> dict[str, object]:
    names = ("valleys", "barriers", "depths", "depth_errors", "curvature", "asymmetry")
    return {name: getattr(shape, name) for name in names}
