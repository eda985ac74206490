"""Evaluate and draw a surface."""

import logging
import math
from dataclasses import replace
from pathlib import Path

from mining.centre import classify_centre
from mining.curves import load_surface, save_surface
from mining.directions import Direction, cosine
from mining.evaluation import Evaluator, Grid
from mining.pipelines.building import Config
from mining.pipelines.mine import find_directions, is_mined
from mining.pipelines.schema import make
from mining.pipelines.setting import Setting, build_setting, describe_point, take_directions
from mining.plotting import draw_surface, save_figure
from mining.runs import Run

log = logging.getLogger(__name__)


def run(config: Config, run: Run) -> None:
    """Evaluate loss and accuracy over the plane of two directions into ``run``."""
    grid = make("grid", config["grid"])
    setting = build_setting(config)
    landscape = setting.landscape
    evaluator = Evaluator(
        landscape,
        test=setting.test,
        progress=config["progress"],
        journal=run.directory / "points.csv",
        tolerance=config["tolerance"],
        refine=config["refine"],
        chunk=config["chunk"],
    )
    x, y = take_directions(
        run.directory, landscape, grid.scale, lambda: _directions(config, setting, grid)
    )
    surface = evaluator.surface(x, y, grid.alphas, grid.betas)
    scales = [direction.info.get("scale") for direction in (x, y)]
    names = surface.names
    axes = [f"{n} × {s:.3g}" if s else n for n, s in zip(names, scales, strict=True)]
    surface = replace(surface, names=(axes[0], axes[1]))
    save_surface(run.directory / "surface.npz", surface)
    draw(run.directory, config)
    row, column = int((surface.alphas == 0).nonzero()), int((surface.betas == 0).nonzero())
    accuracy, centre = surface.accuracy, classify_centre(surface)
    log.info("%s × %s: %s", *names, centre)
    run.finish(
        {
            "loss_at_theta": surface.loss[row, column].item(),
            "accuracy_at_theta": None if accuracy is None else accuracy[row, column].item(),
            "directions": list(names),
            "scales": scales,
            "centre": centre.kind.value,
            "labels": {name: shape.label.value for name, shape in centre.lines.items()},
            "angle": math.degrees(math.acos(cosine(x.vector, y.vector))),
            "angle_before": y.info.get("angle_before"),
            "nonfinite": surface.nonfinite,
            "relative_error": surface.relative_error,
            "evaluated": None if surface.evaluated is None else int(surface.evaluated.sum()),
            "num_parameters": landscape.space.size,
            "num_examples": landscape.num_examples,
        },
        device=str(landscape.device),
    )


def draw(directory: Path, config: Config) -> None:
    """Draw ``surface.npz`` as filled contours and in 3-D."""
    title = f"{directory.parent.name}, {describe_point(config, 'test in surface.npz')}"
    surface = load_surface(directory / "surface.npz")
    save_figure(draw_surface(surface, title=title, **config["picture"]), directory / "surface.png")


def _directions(config: Config, setting: Setting, grid: Grid) -> list[Direction]:
    if config["x_direction"] == config["y_direction"] and is_mined(config, "x_direction"):
        x, y = find_directions(config, "x_direction", 2, setting, grid)
    else:
        # One generator for both: two random directions must differ.
        (x,), (y,) = (
            find_directions(config, key, 1, setting, grid) for key in ("x_direction", "y_direction")
        )
    if x.name == y.name and "eigenvalue" in x.info:
        # The difference of two computations of one vector is error, and no direction.
        raise ValueError(
            f"x_direction and y_direction are both {x.source}: set which=largest or smallest for "
            "each, or y_direction.start=2."
        )
    y = replace(y, index=y.index + (y.name == x.name))  # two of a source are numbered 1 and 2
    return [x, y.orthogonal_to(x) if config["orthogonalize"] else y]
