"""From a configuration to a direction source."""

from dataclasses import dataclass
from pathlib import Path

from mining import InputError
from mining.directions import DirectionSource
from mining.directions.normalization import Normalization
from mining.pipelines.building import Config
from mining.pipelines.schema import make
from mining.pipelines.train import find_checkpoint

#: Keeps the seeds of independent trainings apart from those of a sweep over ``seed``.
_INDEPENDENT = 1000


def build_source(config: Config, key: str) -> DirectionSource:
    """Make the direction source of ``config[key]``, with the configured normalization.

    Raises:
        InputError: If an option is invalid, or a normalization is given for a source that sets its
            own length.
    """
    given = config.get("normalization")
    known = {} if given is None else {"normalization": make("normalization", given, Normalization)}
    source: DirectionSource = make(key, config[key], DirectionSource, **known)
    if given is not None and source.normalization is None:
        name = type(source).__name__
        raise InputError(f"{name} sets its own length: leave normalization out.")
    return source


@dataclass(frozen=True)
class ConfiguredCheckpoints:
    """The checkpoints of the configured training, and of one with another seed."""

    config: Config
    key: str  # direction, x_direction or y_direction, for the error

    def at(self, epoch: int | None, *, independent: bool = False) -> Path:
        """Find the weights at an epoch; see ``mining.directions.base.Checkpoints``."""
        if self.config["checkpoint"] is not None and not independent:
            raise InputError(
                "With checkpoint=FILE there is no training to take the other checkpoint "
                f"from: give {self.key}.checkpoint too."
            )
        seed = self.config["seed"] + _INDEPENDENT * independent
        return find_checkpoint(self.config, epoch=epoch, seed=seed)
