"""Train a model."""

import logging
from pathlib import Path

from torch import nn

from mining import InputError
from mining.landscape import Landscape
from mining.pipelines.building import Config, build_model, load_data
from mining.pipelines.naming import find_run
from mining.pipelines.schema import make
from mining.plotting import draw_history, save_figure
from mining.storage.checkpoints import read_tensors
from mining.storage.files import drop_if_damaged
from mining.storage.runs import Run
from mining.training import TrainingSettings, checkpoint_path, save_initialization, train
from mining.training.loop import read_state

log = logging.getLogger(__name__)


def run(config: Config, run: Run) -> None:
    """Train the configured model into ``run``."""
    settings = make("train", config["train"], TrainingSettings)
    dataset = load_data(config)
    model = build_model(config, dataset)
    # Refuses, before anything is written, a model that does not fit the data.
    Landscape(model, nn.CrossEntropyLoss(), dataset.split("train").batches(2)[:1])
    drop_if_damaged(run.directory / "resume.pt", read_state)
    history = train(
        model,
        dataset,
        settings,
        run.directory,
        seed=config["seed"],
        progress=config["progress"],
        overwrite=True,  # the directory is the run's own
    )
    draw(run.directory, config)
    last = {str(key): value for key, value in history.iloc[-1].items()}
    run.finish(
        {
            **{key: value for key, value in last.items() if key != "seconds"},
            "num_parameters": sum(p.numel() for p in model.parameters()),
            "checkpoints": list(settings.kept_epochs),
        },
        device=str(dataset.split("train").inputs.device),
    )
    (run.directory / "resume.pt").unlink(missing_ok=True)


def draw(directory: Path, config: Config) -> None:
    """Draw loss and accuracy over the epochs from ``history.csv``."""
    seed = f", seed {config['seed']}" if config["seed"] != 0 else ""
    picture = draw_history(
        directory / "history.csv",
        title=f"{directory.parent.name}{seed}",
        log_scale=config["picture"]["log_scale"],
    )
    save_figure(picture, directory / "history.png")


def find_checkpoint(config: Config, *, epoch: int | None = None, seed: int | None = None) -> Path:
    """Find the checkpoint of the configured training, which is run if it is not finished.

    The initialization, epoch 0, needs no training.

    Args:
        config: The configuration of any pipeline.
        epoch: Which checkpoint; ``None`` takes the last.
        seed: Of the training; ``None`` takes the configured one.

    Returns:
        The file.

    Raises:
        InputError: If that epoch is not kept.
    """
    settings = make("train", config["train"], TrainingSettings)
    kept = settings.kept_epochs
    epoch = kept[-1] if epoch is None else epoch
    if epoch not in kept:
        raise InputError(
            f"Epoch {epoch} is not among the kept checkpoints {list(kept)}: add it to "
            "train.checkpoints."
        )
    config = {**config, "pipeline": "train", "seed": config["seed"] if seed is None else seed}
    training = find_run(config)
    path = checkpoint_path(training.directory, epoch)
    if epoch == 0 and not training.is_finished(path.name):
        drop_if_damaged(path, read_tensors)
        if not path.exists():
            save_initialization(build_model(config, load_data(config)), path)
        return path

    def compute() -> None:
        log.info("No finished training in %s: training once now.", training.directory)
        run(config, training)

    training.complete(compute, path.name)
    return path
