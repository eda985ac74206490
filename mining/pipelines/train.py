"""Train a model."""

from functools import partial
from typing import Any

from torch import nn

from mining.landscape import Landscape
from mining.monitoring import Monitor, MonitorSettings
from mining.monitoring.monitor import beside
from mining.pipelines.building import build_model
from mining.pipelines.pictures import save_picture
from mining.pipelines.problem import Problem
from mining.pipelines.titles import name_seed
from mining.plotting import draw_history, draw_layer_history, draw_monitor
from mining.storage.files import drop_if_damaged
from mining.training import (
    Callback,
    HeldOutSettings,
    Regularizer,
    TrainingSettings,
    train,
)
from mining.training.loop import Loop, read_state

#: Files of what a monitor measured, and of the accuracies on held-out images.
_CURVATURE, _HELD_OUT = "curvature.csv", "held_out.csv"


def run(problem: Problem) -> None:
    """Train the configured model."""
    settings = problem.settings.train.make(TrainingSettings)
    dataset, directory = problem.data, problem.run.directory
    model = build_model(problem.settings, dataset)
    # Refuses, before anything is written, a model that does not fit the data.
    Landscape(model, nn.CrossEntropyLoss(), dataset.split("train").batches(2)[:1])
    drop_if_damaged(directory / "resume.pt", read_state)
    callbacks = _callbacks(problem, model, settings)
    regularizer = problem.settings.regularizer
    history = train(
        model,
        dataset,
        settings,
        directory,
        seed=problem.settings.seed,
        progress=problem.settings.progress,
        overwrite=True,  # the directory is the run's own
        callbacks=callbacks,
        loss_hook=None
        if regularizer is None
        else regularizer.make(Regularizer).hook(model, problem.settings.seed),
    )
    draw(problem)
    last = {str(key): value for key, value in history.iloc[-1].items()}
    problem.run.finish(
        {
            **{key: value for key, value in last.items() if key != "seconds"},
            "num_parameters": sum(p.numel() for p in model.parameters()),
            "checkpoints": list(settings.kept_epochs),
        },
        device=str(dataset.split("train").inputs.device),
    )
    (directory / "resume.pt").unlink(missing_ok=True)


def _callbacks(problem: Problem, model: nn.Module, settings: TrainingSettings) -> list[Callback]:
    """Make what looks at the training after every epoch, if anything is asked for."""
    asked, directory = problem.settings, problem.run.directory
    callbacks: list[Callback] = []
    if asked.held_out is not None:
        held_out = asked.held_out.make(HeldOutSettings)
        callbacks.append(
            held_out.callback(problem.data, settings.batch_size, directory / _HELD_OUT)
        )
    if asked.monitor is not None:
        monitor = asked.monitor.make(MonitorSettings).monitor(
            model, problem.data.split("train"), settings.batch_size, directory / _CURVATURE
        )
        callbacks.append(partial(_measure, monitor))
    return callbacks


def _measure(monitor: Monitor, loop: Loop[Any]) -> None:
    monitor.step(loop.epoch, loop.optimizer)


def draw(problem: Problem) -> None:
    """Draw loss and accuracy over the epochs from ``history.csv``, and what a monitor measured."""
    settings, directory = problem.settings, problem.run.directory
    picture = draw_history(
        directory / "history.csv",
        title=", ".join([directory.parent.name, *name_seed(settings)]),
        log_scale=settings.picture.log_scale,
    )
    save_picture(problem, picture, "history")
    measured = directory / _CURVATURE
    title = ", ".join([directory.parent.name, *name_seed(settings)])
    if measured.exists():
        save_picture(problem, draw_monitor(measured, title=title), "curvature")
    if beside(measured).exists():
        picture = draw_layer_history(measured, beside(measured), title=title)
        save_picture(problem, picture, beside(measured).stem)
