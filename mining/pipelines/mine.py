"""Mine directions by optimization."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import pandas as pd
import torch

from mining import InputError, ranks
from mining.directions import Mined, Miner, mine
from mining.directions.storage import read_directions, save_directions
from mining.pipelines.pictures import save_picture
from mining.pipelines.problem import Problem
from mining.pipelines.titles import describe_point
from mining.plotting import draw_mining
from mining.storage.files import drop_if_damaged, write_atomically
from mining.training import TrainingSettings
from mining.training.loop import read_state


def run(problem: Problem) -> None:
    """Mine ``num_directions`` directions, on all examples of the split."""
    settings, landscape, directory = problem.settings, problem.landscape, problem.run.directory
    source = problem.source(settings.direction)
    if source.kept_by != "mine":
        raise InputError(
            f"pipeline=mine: {type(source).__name__} is not mined. Take another direction: --help "
            "marks those that are."
        )
    miner = settings.direction.make(Miner).bind(problem.checkpoints)
    bf16 = settings.train.make(TrainingSettings).bf16
    states, found = [], list[Mined]()
    for index in range(settings.num_directions):
        states.append(directory / f"resume_{index + 1}.pt")
        ranks.on_first(partial(drop_if_damaged, states[-1], read_state))
        mined = mine(
            miner,
            landscape,
            generator=problem.generator,
            checkpoint=states[-1],
            autocast=torch.bfloat16 if bf16 else None,
            progress=settings.progress,
        )
        found.append(replace(mined, direction=replace(mined.direction, index=index)))
    ranks.on_first(partial(_finish, problem, found))
    for state in states if ranks.current().first else ():
        state.unlink(missing_ok=True)


def _finish(problem: Problem, found: Sequence[Mined]) -> None:
    """Write, draw and record the directions."""
    landscape, directory = problem.landscape, problem.run.directory
    directions = [mined.direction for mined in found]
    save_directions(directory / "directions.pt", directions, landscape)
    histories = [mined.history.assign(direction=i + 1) for i, mined in enumerate(found)]
    history = pd.concat(histories).to_csv(index=False)
    write_atomically(directory / "history.csv", history)
    draw(problem)
    problem.run.finish(
        {
            "directions": [direction.source for direction in directions],
            "metadata": [direction.record() for direction in directions],
            "diverged_epochs": [mined.diverged_epoch for mined in found],
            "batch_norm_while_mining": (
                "frozen" if landscape.batchnorm.mode == "frozen" else "of each mini-batch"
            ),
            **problem.record(),
        },
        device=str(landscape.device),
    )


def draw(problem: Problem) -> None:
    """Draw objective and length over the epochs from ``history.csv``."""
    settings, directory = problem.settings, problem.run.directory
    name = read_directions(directory / "directions.pt")["sources"][0]
    rate = settings.direction.make(Miner).descent.lr
    what = f"{name}, learning rate {rate:g}"
    title = f"{directory.parent.name}, {describe_point(settings)}\n{what}"
    picture = draw_mining(directory / "history.csv", title=title)
    save_picture(problem, picture, "history")
