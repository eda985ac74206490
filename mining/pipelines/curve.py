"""Evaluate, name and draw curves."""

import logging
from pathlib import Path

from matplotlib.figure import Figure

from mining.directions import Direction
from mining.evaluation.curves import rmse
from mining.evaluation.evaluator import Evaluator
from mining.evaluation.grid import Grid
from mining.evaluation.storage import load_curves, save_curves
from mining.explain.curve_shape import CurveShape, classify
from mining.pipelines.building import Config
from mining.pipelines.finding import find_directions, find_template
from mining.pipelines.schema import make
from mining.pipelines.setting import build_setting, describe_point, take_directions
from mining.plotting import draw_curves, save_figure
from mining.storage.runs import Run

log = logging.getLogger(__name__)


def run(config: Config, run: Run) -> None:
    """Evaluate loss and accuracy along the configured directions into ``run``."""
    grid = make("grid", config["grid"], Grid)
    setting = build_setting(config)
    landscape = setting.landscape
    evaluator = Evaluator(
        landscape,
        test=setting.test,
        progress=config["progress"],
        journal=run.directory / "points.csv",
        tolerance=config["tolerance"],
        chunk=config["chunk"],
    )

    def make_directions() -> list[Direction]:
        return find_directions(config, "direction", config["num_directions"], setting, grid)

    directions = take_directions(run.directory, landscape, grid.scale, make_directions)
    curves = evaluator.curves(directions, grid.alphas)
    save_curves(run.directory / "curves.npz", curves)
    draw(run.directory, config)
    template = find_template(config, curves[0])
    shapes = [classify(curve) for curve in curves]
    for curve, shape in zip(curves, shapes, strict=True):
        log.info("%s: %s", curve.name, shape.description)
    origin, first = curves[0].origin, curves[0]
    run.finish(
        {
            "loss_at_theta": first.loss[origin].item(),
            "accuracy_at_theta": None if first.accuracy is None else first.accuracy[origin].item(),
            "directions": [curve.name for curve in curves],
            "labels": [shape.label.value for shape in shapes],
            "label_probabilities": [shape.label_probability for shape in shapes],
            "stationary_points": [shape.stationary_points for shape in shapes],
            "nonfinite": [curve.nonfinite for curve in curves],
            "relative_errors": [curve.relative_error for curve in curves],
            "features": [_features(shape) for shape in shapes],
            "metadata": [curve.record() for curve in curves],
            "template": template,
            "rmse": [rmse(curve, template) for curve in curves] if template else None,
            **setting.record(),
        },
        device=str(landscape.device),
    )


def draw(directory: Path, config: Config) -> None:
    """Draw ``curves.npz``, and the template of curves that were drawn."""
    picture = Figure(figsize=(5.6, 4), layout="constrained")
    axes = picture.add_subplot()
    curves = load_curves(directory / "curves.npz")
    template = find_template(config, curves[0])
    draw_curves(axes, curves, template=template, **config["picture"])
    title = f"{directory.parent.name}, {describe_point(config, 'dashed: test')}\n{axes.get_title()}"
    axes.set_title(title, fontsize=9)
    about = "dotted: chance level log C (horizontal), θ (vertical); [stationary points, mean]"
    picture.supxlabel(about, fontsize=7)
    save_figure(picture, directory / "curves.png")


def _features(shape: CurveShape) -> dict[str, object]:
    return {
        name: getattr(shape, name)
        for name in ("valleys", "barriers", "depths", "curvature", "asymmetry")
    }
