"""From a configuration to a direction source."""

import inspect

from mining import InputError
from mining.directions import DirectionSource
from mining.directions.normalization import Normalization
from mining.pipelines.building import Config
from mining.pipelines.schema import make, target_of
from mining.pipelines.train import find_checkpoint

#: Keeps the seeds of independent trainings apart from those of a sweep over ``seed``.
_INDEPENDENT = 1000


def build_source(config: Config, key: str) -> DirectionSource:
    """Make the direction source of ``config[key]``, with the configured normalization."""
    check_normalization(config, key)
    options = dict(config[key])
    known = {}
    if config.get("normalization") is not None:
        known["normalization"] = make("normalization", config["normalization"], Normalization)
    if "independent" in options:
        epoch, independent = options.pop("epoch"), options.pop("independent")
        if options["checkpoint"] is None:
            if config["checkpoint"] is not None and not independent:
                raise InputError(
                    "With checkpoint=FILE there is no training to take the other checkpoint "
                    f"from: give {key}.checkpoint too."
                )
            seed = config["seed"] + _INDEPENDENT * independent
            path = find_checkpoint(config, epoch=epoch, seed=seed)
            mark = "E'" if independent else "E"
            options |= {"checkpoint": str(path), "label": f"{mark}={int(path.stem[-4:])}"}
    source: DirectionSource = make(key, options, DirectionSource, **known)
    return source


def check_normalization(config: Config, key: str) -> None:
    """Raise ``InputError`` if a normalization is given for a source that sets its own length."""
    target = target_of(key, config[key], DirectionSource)
    known = inspect.signature(target).parameters
    if config.get("normalization") is not None and "normalization" not in known:
        raise InputError(f"{target.__name__} sets its own length: leave normalization out.")
