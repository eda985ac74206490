"""Mine directions by optimization."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from mining import InputError
from mining.directions import Mined, Miner, mine
from mining.directions.base import check_num
from mining.directions.storage import save_directions
from mining.pipelines.building import Config
from mining.pipelines.setting import build_setting, describe_point
from mining.pipelines.sources import ConfiguredCheckpoints, build_source
from mining.plotting import draw_mining, save_figure
from mining.storage.files import drop_if_damaged, write_atomically
from mining.storage.runs import Run
from mining.training.loop import read_state


def run(config: Config, run: Run) -> None:
    """Mine ``num_directions`` directions into ``run``, on all examples of the split."""
    setting = build_setting({**config, "num_examples": None})
    landscape = setting.landscape
    miner = build_source(config, "direction")
    if not isinstance(miner, Miner):
        raise InputError(
            f"pipeline=mine: {type(miner).__name__} is not mined. Take direction=xu2024_w_peak, "
            "xu2024_vvv_basin or multipoint."
        )
    miner = miner.bind(ConfiguredCheckpoints(config, "direction"))
    check_num(config["num_directions"])
    states, found = [], list[Mined]()
    for index in range(config["num_directions"]):
        states.append(run.directory / f"resume_{index + 1}.pt")
        drop_if_damaged(states[-1], read_state)
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
            "metadata": [direction.record() for direction in directions],
            "diverged_epochs": [mined.diverged_epoch for mined in found],
            "batch_norm_while_mining": (
                "frozen" if landscape.batchnorm.mode == "frozen" else "of each mini-batch"
            ),
            **setting.record(),
        },
        device=str(landscape.device),
    )
    for state in states:
        state.unlink(missing_ok=True)


def draw(directory: Path, config: Config) -> None:
    """Draw objective and length over the epochs from ``history.csv``."""
    name = str(config["direction"]["_target_"]).rpartition(".")[2]
    title = f"{directory.parent.name}, {describe_point(config)}\n{name}"
    picture = draw_mining(directory / "history.csv", title=title)
    save_figure(picture, directory / "history.png")
