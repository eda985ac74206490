"""Train a model."""

from torch import nn

from mining.landscape import Landscape
from mining.pipelines.building import build_model
from mining.pipelines.pictures import save_picture
from mining.pipelines.problem import Problem
from mining.pipelines.titles import name_seed
from mining.plotting import draw_history
from mining.storage.files import drop_if_damaged
from mining.training import TrainingSettings, train
from mining.training.loop import read_state


def run(problem: Problem) -> None:
    """Train the configured model."""
    settings = problem.settings.train.make(TrainingSettings)
    dataset, directory = problem.data, problem.run.directory
    model = build_model(problem.settings, dataset)
    # Refuses, before anything is written, a model that does not fit the data.
    Landscape(model, nn.CrossEntropyLoss(), dataset.split("train").batches(2)[:1])
    drop_if_damaged(directory / "resume.pt", read_state)
    history = train(
        model,
        dataset,
        settings,
        directory,
        seed=problem.settings.seed,
        progress=problem.settings.progress,
        overwrite=True,  # the directory is the run's own
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


def draw(problem: Problem) -> None:
    """Draw loss and accuracy over the epochs from ``history.csv``."""
    settings, directory = problem.settings, problem.run.directory
    picture = draw_history(
        directory / "history.csv",
        title=", ".join([directory.parent.name, *name_seed(settings)]),
        log_scale=settings.picture.log_scale,
    )
    save_picture(problem, picture, "history")
