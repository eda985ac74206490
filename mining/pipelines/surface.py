"""Evaluate and draw a surface."""

import logging
import math
from dataclasses import replace
from pathlib import Path

from mining.directions import Direction, cosine
from mining.evaluation.evaluator import Evaluator
from mining.evaluation.grid import Grid
from mining.evaluation.storage import load_surface, save_surface
from mining.explain.critical_point import classify_critical_point
from mining.pipelines.building import Config
from mining.pipelines.finding import find_directions
from mining.pipelines.schema import make
from mining.pipelines.setting import Setting, build_setting, describe_point, take_directions
from mining.pipelines.sources import build_source
from mining.plotting import draw_surface, save_figure
from mining.storage.runs import Run

log = logging.getLogger(__name__)


def run(config: Config, run: Run) -> None:
    """Evaluate loss and accuracy over the plane of two directions into ``run``."""
    grid = make("grid", config["grid"], Grid)
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
    scales = [direction.scale for direction in (x, y)]
    names = surface.names
    axes = [f"{n} × {s:.3g}" if s else n for n, s in zip(names, scales, strict=True)]
    surface = replace(surface, names=(axes[0], axes[1]))
    save_surface(run.directory / "surface.npz", surface)
    draw(run.directory, config)
    row, column = int((surface.alphas == 0).nonzero()), int((surface.betas == 0).nonzero())
    accuracy, point = surface.accuracy, classify_critical_point(surface)
    log.info("%s × %s: %s", *names, point)
    run.finish(
        {
            "loss_at_theta": surface.loss[row, column].item(),
            "accuracy_at_theta": None if accuracy is None else accuracy[row, column].item(),
            "directions": list(names),
            "scales": scales,
            "critical_point": point.kind.value,
            "critical_point_probability": point.probability,
            "labels": {name: shape.label.value for name, shape in point.lines.items()},
            "label_probabilities": {
                name: shape.label_probability for name, shape in point.lines.items()
            },
            "angle": math.degrees(math.acos(cosine(x.vector, y.vector))),
            "angle_before": y.metadata.get("angle_before"),
            "nonfinite": surface.nonfinite,
            "relative_error": surface.relative_error,
            "evaluated": None if surface.evaluated is None else int(surface.evaluated.sum()),
            **setting.record(),
        },
        device=str(landscape.device),
    )


def draw(directory: Path, config: Config) -> None:
    """Draw ``surface.npz`` as filled contours and in 3-D."""
    title = f"{directory.parent.name}, {describe_point(config, 'test in surface.npz')}"
    surface = load_surface(directory / "surface.npz")
    save_figure(draw_surface(surface, title=title, **config["picture"]), directory / "surface.png")


def _directions(config: Config, setting: Setting, grid: Grid) -> list[Direction]:
    source = build_source(config, "x_direction")
    same = config["x_direction"] == config["y_direction"]
    shared = source.shared_search(source if same else build_source(config, "y_direction"))
    if shared is not None:
        search = {**config, "x_direction": {**config["x_direction"], **shared.options}}
        found = find_directions(search, "x_direction", shared.num, setting, grid)
        x, y = (found[position] for position in shared.positions)
    else:
        # One generator for both: two random directions must differ.
        (x,), (y,) = (
            find_directions(config, key, 1, setting, grid) for key in ("x_direction", "y_direction")
        )
    y = replace(y, index=y.index + (y.name == x.name))  # two of a source are numbered 1 and 2
    return [x, y.orthogonal_to(x) if config["orthogonalize"] else y]
