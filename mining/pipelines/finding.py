"""From a configuration to directions; those that take long are computed once and kept."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import cast

import torch

from mining import InputError
from mining.directions import Direction, DirectionSource, Eigenvectors, Miner, Multipoint
from mining.directions.storage import load_directions
from mining.evaluation.curves import Curve
from mining.evaluation.evaluator import Grid
from mining.functional.memory import check_memory
from mining.pipelines import eigenvectors, mine
from mining.pipelines.building import Config
from mining.pipelines.naming import find_run
from mining.pipelines.schema import target_of
from mining.pipelines.setting import Setting
from mining.pipelines.sources import build_source, check_normalization
from mining.storage.runs import Run

#: Sources that take long, and the pipelines that compute and keep their directions.
_KEPT = ((Miner, "mine", mine.run), (Eigenvectors, "eigenvectors", eigenvectors.run))
log = logging.getLogger(__name__)


def find_directions(
    config: Config, key: str, num: int, setting: Setting, grid: Grid
) -> list[Direction]:
    """Give the directions of ``config[key]``; eigenvectors and mined ones are computed once.

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
    if is_a(config, key, Multipoint):
        if grid.scale == "curvature":
            raise InputError("grid.scale=curvature would redraw a drawn curve: give a number.")
        points = grid.betas if key == "y_direction" else grid.alphas
        cast(Multipoint, build_source(config, key)).check_grid(points * grid.scale)
    for kind, pipeline, compute in _KEPT:
        if is_a(config, key, kind):
            check_normalization(config, key)  # a kept run knows of none
            kept = _find_run(config, key, num, pipeline, compute)
            return load_directions(kept / "directions.pt", setting.landscape)
    source = build_source(config, key)
    return source.directions(setting.landscape, num, generator=setting.generator)


def find_template(config: Config, curve: Curve) -> list[tuple[float, float]] | None:
    """Give α and loss of the points of a drawn curve; ``None`` where ``direction`` draws none.

    Args:
        config: The configuration of a run of curves.
        curve: One of them, for the chance-level loss and the loss of θ during mining.
    """
    if not is_a(config, "direction", Multipoint):
        return None
    source = cast(Multipoint, build_source(config, "direction"))
    losses = source.losses(curve.metadata["loss_at_theta"], curve.chance_loss)
    scale = config["grid"]["scale"]
    return [(alpha / scale, loss) for alpha, loss in zip(source.alphas, losses, strict=True)]


def is_a(config: Config, key: str, kind: type) -> bool:
    """Whether the source of ``config[key]`` is of this kind."""
    target = target_of(key, config[key], DirectionSource)
    return isinstance(target, type) and issubclass(target, kind)


def _find_run(
    config: Config, key: str, num: int, pipeline: str, compute: Callable[[Config, Run], None]
) -> Path:
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
        compute(config, kept)

    kept.complete(make, "directions.pt")
    return kept.directory
