"""Which run, in which directory, belongs to a configuration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mining.pipelines import OPTIONAL_KEYS, PIPELINE_KEYS
from mining.storage.identity import identify, run_directory
from mining.storage.runs import Run


def directory_of(config: Mapping[str, Any]) -> Path:
    """Name the directory of a run, relative to ``outputs``, from its resolved configuration."""
    return run_directory(config, _keys(config))


def find_run(config: Mapping[str, Any], directory: Path | None = None) -> Run:
    """Give the run of a resolved configuration.

    Args:
        config: The configuration.
        directory: Where it lies, if not where its configuration says.
    """
    if directory is None:
        directory = Path(config["outputs"]) / directory_of(config)
    return Run(directory, config, identify(config, _keys(config)))


def _keys(config: Mapping[str, Any]) -> tuple[str, ...]:
    """List the keys that name a run."""
    return tuple(
        key
        for key in PIPELINE_KEYS[config["pipeline"]]
        if key not in OPTIONAL_KEYS or config[key] is not None
    )
