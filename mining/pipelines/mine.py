"""Mine directions by optimization."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import cast

import pandas as pd
import torch

from mining.curves import Curve
from mining.directions import Direction, Mined, Miner, Multipoint, mine
from mining.directions.storage import load_directions, save_directions
from mining.evaluation import Grid
from mining.files import write_atomically
from mining.pipelines.building import Config
from mining.pipelines.experiments import directory_of
from mining.pipelines.schema import target_of
from mining.pipelines.setting import Setting, build_setting, describe_point
from mining.pipelines.sources import build_source
from mining.plotting import draw_mining, save_figure
from mining.runs import Run

log = logging.getLogger(__name__)


def run(config: Config, run: Run) -> None:
    """Mine ``num_directions`` directions into ``run``, on all examples of the split."""
    setting = build_setting({**config, "num_examples": None})
    landscape = setting.landscape
    miner = build_source(config, "direction")
    if not isinstance(miner, Miner):
        raise ValueError(
            f"pipeline=mine: {type(miner).__name__} is not mined. Take direction=xu2024_w_peak, "
            "xu2024_vvv_basin or multipoint."
        )
    states, found = [], list[Mined]()
    for index in range(config["num_directions"]):
        states.append(run.directory / f"resume_{index + 1}.pt")
        mined = mine(
            miner,
            landscape,
            generator=setting.generator,
            checkpoint=states[-1],
            autocast=torch.bfloat16 if config["train"]["bf16"] else None,
            progress=config["progress"],
        )
        found.append(replace(mined, direction=replace(mined.direction, index=index)))
    directions = [mined.direction for mined in found]
    save_directions(run.directory / "directions.pt", directions, landscape)
    histories = [mined.history.assign(direction=i + 1) for i, mined in enumerate(found)]
    history = pd.concat(histories).to_csv(index=False)
    write_atomically(run.directory / "history.csv", history)
    draw(run.directory, config)
    run.finish(
        {
            "directions": [direction.source for direction in directions],
            "info": [dict(direction.info) for direction in directions],
            "diverged_epochs": [mined.diverged_epoch for mined in found],
            "batch_norm_while_mining": (
                "frozen" if landscape.batchnorm.mode == "frozen" else "of each mini-batch"
            ),
            "num_parameters": landscape.space.size,
            "num_examples": landscape.num_examples,
        },
        device=str(landscape.device),
    )
    for state in states:
        state.unlink()


def draw(directory: Path, config: Config) -> None:
    """Draw objective and length over the epochs from ``history.csv``."""
    name = str(config["direction"]["_target_"]).rpartition(".")[2]
    title = f"{directory.parent.name}, {describe_point(config)}\n{name}"
    picture = draw_mining(directory / "history.csv", title=title)
    save_figure(picture, directory / "history.png")


def find_directions(
    config: Config, key: str, num: int, setting: Setting, grid: Grid
) -> list[Direction]:
    """Give the directions of ``config[key]``; those that are mined are mined once and kept.

    Args:
        config: The configuration of any pipeline that looks along directions.
        key: ``direction``, ``x_direction`` or ``y_direction``.
        num: How many.
        setting: Where they start, and the generator.
        grid: How far they are followed.
    """
    if not is_mined(config, key):
        source = build_source(config, key)
        return source.directions(setting.landscape, num, generator=setting.generator)
    if _is_drawn(config, key):
        if grid.scale == "curvature":
            raise ValueError("grid.scale=curvature would redraw a drawn curve: give a number.")
        points = grid.betas if key == "y_direction" else grid.alphas
        cast(Multipoint, build_source(config, key)).check_grid(points * grid.scale)
    return load_directions(_find_mining(config, key, num) / "directions.pt", setting.landscape)


def find_template(config: Config, key: str, curve: Curve) -> list[tuple[float, float]] | None:
    """Give α and loss of the points of a drawn curve; ``None`` where ``config[key]`` draws none.

    Args:
        config: The configuration of a run of curves.
        key: ``direction``.
        curve: One of them, for the loss of guessing and that of θ while mining.
    """
    if not _is_drawn(config, key):
        return None
    source = cast(Multipoint, build_source(config, key))
    losses = source.losses(curve.info["loss_at_theta"], curve.chance_loss)
    scale = config["grid"]["scale"]
    return [(alpha / scale, loss) for alpha, loss in zip(source.alphas, losses, strict=True)]


def _is_drawn(config: Config, key: str) -> bool:
    return is_mined(config, key) and issubclass(target_of(config[key]), Multipoint)


def is_mined(config: Config, key: str) -> bool:
    """Whether the directions of ``config[key]`` are found by optimization."""
    target = target_of(config[key])
    return isinstance(target, type) and issubclass(target, Miner)


def _find_mining(config: Config, key: str, num: int) -> Path:
    """Find the directory of the mining of ``config[key]``, which is run if it is not finished."""
    config = {
        **config,
        "pipeline": "mine",
        "direction": config[key],
        "num_directions": num,
        "split": "test" if config["split"] == "test" else "train",
    }
    directory = Path(config["outputs"]) / directory_of(config)
    mining = Run(directory, config)
    if not mining.finished:
        log.info("No finished mining in %s: mining once now.", directory)
        run(config, mining)
    return directory
