"""The checkpoints of a configured training, which is run where they are missing."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from mining import InputError, ranks
from mining.pipelines.building import build_model, load_data
from mining.pipelines.jobs import find_run, finish
from mining.pipelines.settings import Settings
from mining.pipelines.targets import Target
from mining.storage.checkpoints import load_optimizer_state, read_tensors
from mining.storage.files import drop_if_damaged, read_if_whole
from mining.training import TrainingSettings, checkpoint_path, save_model, take_steps

#: Keeps the seeds of independent trainings apart from those of a sweep over ``seed``.
_INDEPENDENT = 1000

#: Keys of what looks at a training and leaves it as it is.
_WATCHING = ("monitor", "held_out")


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of the training of θ, and of one with another seed.

    A training that has not finished is run first. Files are as ``train`` writes them.

    Args:
        settings: Of any pipeline that looks at a point.
        asked_by: The key of the direction that asks, for errors.
    """

    settings: Settings
    asked_by: str = "direction"

    def theta(self) -> Path:
        """Find the weights that are θ.

        Raises:
            FileNotFoundError: If ``checkpoint`` names no file.
            InputError: If the epoch is not kept, or given beside a file.
        """
        given, step = self.settings.checkpoint, self.settings.step
        assert not isinstance(given, list)  # two are assessed one after the other
        if given is None:
            start = self.at(self.settings.epoch)
            if step is None:
                return start
            return ranks.current().from_first(partial(self._after, start, step))
        for key, value in {"epoch": self.settings.epoch, "step": step}.items():
            if value is not None:
                raise InputError(f"{key} is that of a training: leave it out with checkpoint=FILE.")
        if not Path(given).is_file():
            raise FileNotFoundError(f"checkpoint: no file {given}.")
        return Path(given)

    def at(self, epoch: int | None, *, independent: bool = False) -> Path:
        """Find the weights at an epoch; see ``mining.directions.base.Checkpoints``."""
        kept = self._recipe.kept_epochs
        epoch = kept[-1] if epoch is None else epoch
        if epoch not in kept:
            raise InputError(
                f"Epoch {epoch} is not among the kept checkpoints {list(kept)}: add it to "
                "train.checkpoints."
            )
        training = self._training(independent)
        if epoch == 0:
            return ranks.current().from_first(partial(self._initialization, training))
        return _trained(training, epoch)

    def trajectory(self) -> list[Path]:
        """Find all kept weights of the training, in the order of their epochs."""
        if self.settings.checkpoint is not None:
            raise InputError(
                "With checkpoint=FILE there is no training whose checkpoints are known: give "
                f"{self.asked_by}.states, a list of files."
            )
        return [self.at(epoch) for epoch in self._recipe.kept_epochs]

    def optimizer_state(self, epoch: int | None) -> Mapping[str, Any]:
        """Read the state of the optimizer; see ``mining.directions.base.Checkpoints``."""
        given = epoch is None and self.settings.checkpoint is not None
        return load_optimizer_state(self.theta() if given else self.at(epoch))

    @cached_property
    def _recipe(self) -> TrainingSettings:
        return self.settings.train.make(TrainingSettings)

    def _training(self, independent: bool) -> Settings:
        """Return the settings of the training."""
        if self.settings.checkpoint is not None and not independent:
            raise InputError(
                "With checkpoint=FILE there is no training to take the other checkpoint "
                f"from: give {self.asked_by}.checkpoint too."
            )
        seed = self.settings.seed + _INDEPENDENT * independent
        return replace(self.settings, pipeline="train", seed=seed, checkpoint=None)

    def _after(self, start: Path, step: int) -> Path:
        """Find the weights a number of steps after a checkpoint."""
        if self.settings.regularizer is not None:
            raise InputError("step goes on with the loss alone: leave it out, or regularizer.")
        path = start.with_name(f"{start.stem}_step_{step:04d}.pt")
        drop_if_damaged(path, read_tensors)
        if not path.exists():
            training, epoch = self._training(independent=False), int(start.stem[-4:])
            _trained(training, epoch)  # without which the initialization is without an optimizer
            used = training.as_read()
            dataset = load_data(used)
            model = build_model(used, dataset)
            take_steps(model, dataset, self._recipe, start, step, seed=used.seed + epoch)
            save_model(model, path, epoch)
        return path

    def _initialization(self, training: Settings) -> Path:
        """Find the weights before training, which need no training."""
        run = find_run(training)
        path = checkpoint_path(run.directory, 0)
        if not run.is_finished(path.name):
            drop_if_damaged(path, read_tensors)
            if not path.exists():
                used = training.as_read()
                save_model(build_model(used, load_data(used)), path, 0)
        return path


def _trained(training: Settings, epoch: int) -> Path:
    name = checkpoint_path(Path(), epoch).name
    run = find_run(training)
    found = None if run.record.exists() else _watched(training, run.directory.parent, name)
    return (found or finish(training, name).directory) / name


def _watched(training: Settings, folder: Path, name: str) -> Path | None:
    """Find the directory of the same training that has been finished with a monitor, if any."""
    for path in sorted(folder.glob("*/run.json")):
        config = (read_if_whole(path) or {}).get("config", {})
        monitor, held_out = (
            Target.read(key, config[key]) if config.get(key) else None for key in _WATCHING
        )
        if monitor is not None or held_out is not None:
            run = find_run(replace(training, monitor=monitor, held_out=held_out))
            if run.directory == path.parent and run.is_finished(name):
                return run.directory
    return None
