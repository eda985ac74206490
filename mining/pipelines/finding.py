"""From a configuration to directions; those that take long are computed once and kept."""

import logging
from importlib import import_module
from pathlib import Path

import torch

from mining.directions import Direction
from mining.directions.storage import load_directions
from mining.evaluation.curves import Curve
from mining.evaluation.grid import Grid
from mining.functional.memory import check_memory
from mining.pipelines.building import Config
from mining.pipelines.naming import find_run
from mining.pipelines.setting import Setting
from mining.pipelines.sources import ConfiguredCheckpoints, build_source

log = logging.getLogger(__name__)


def find_directions(
    config: Config, key: str, num: int, setting: Setting, grid: Grid
) -> list[Direction]:
    """Give the directions of ``config[key]``; expensive ones are computed once and kept.

    Args:
        config: The configuration of any pipeline that looks along directions.
        key: ``direction``, ``x_direction`` or ``y_direction``.
        num: How many.
        setting: Where they start, and the generator.
        grid: How far they are followed.
    """
    check_memory(
        3 * num * setting.landscape.theta.nbytes,  # made, stacked and written
        torch.device("cpu"),
        f"num_directions={num}",
        "ask for fewer",
    )
    source = build_source(config, key)
    source.check_grid(grid.betas if key == "y_direction" else grid.alphas, grid.scale)
    if source.kept_by is not None:
        kept = _find_run(config, key, num, source.kept_by)
        return load_directions(kept / "directions.pt", setting.landscape)
    source = source.bind(ConfiguredCheckpoints(config, key))
    return source.directions(setting.landscape, num, generator=setting.generator)


def find_template(config: Config, curve: Curve) -> list[tuple[float, float]] | None:
    """Give α and loss of the points that curves are made to follow; ``None`` where there are none.

    Args:
        config: The configuration of a run of curves.
        curve: One of them, for the chance-level loss and the loss of θ during mining.
    """
    own = curve.loss_at_theta
    own = float(curve.loss[curve.origin]) if own is None else own
    points = build_source(config, "direction").target_curve(own, curve.chance_loss)
    scale = 1.0 if curve.scale is None else curve.scale
    return None if points is None else [(alpha / scale, loss) for alpha, loss in points]


def _find_run(config: Config, key: str, num: int, pipeline: str) -> Path:
    """Find the run of a pipeline for ``config[key]``, which is made if it is not finished."""
    config = {
        **config,
        "pipeline": pipeline,
        "direction": config[key],
        "num_directions": num,
        "split": "test" if config["split"] == "test" else "train",
    }
    kept = find_run(config)

    def make() -> None:
        log.info("No finished run in %s: computing once now.", kept.directory)
        import_module(f"mining.pipelines.{pipeline}").run(config, kept)

    kept.complete(make, "directions.pt")
    return kept.directory
