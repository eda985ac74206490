"""Which runs an experiment consists of; this module imports nothing heavy."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_module
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mining import InputError
from mining.app.arguments import with_packages
from mining.app.hydra_versions import VERSION, register_resolver
from mining.pipelines.settings import Settings


@dataclass(frozen=True)
class PlannedRun:
    """One job of an experiment."""

    settings: Settings
    directory: Path

    @property
    def config(self) -> dict[str, Any]:
        """The configuration, as ``run.json`` has it."""
        return self.settings.record()


def register_resolvers() -> None:
    """Make ``${mining.pick:KEY,{A:1,B:2}}`` and ``${mining.run_directory:}`` known to OmegaConf."""
    register_resolver("mining.pick", _pick)
    register_resolver("mining.run_directory", _run_directory)


def plan(overrides: Sequence[str]) -> list[PlannedRun]:
    """List the runs that ``python -m mining`` with these arguments makes.

    Args:
        overrides: Arguments, ``experiment=xu2024/fig08`` and ``size=cpu`` for instance; commas
            sweep, as after ``-m``.

    Returns:
        A run for every job, in the order of the jobs, none twice.

    Raises:
        InputError: If an argument is none.
    """
    try:
        return _plan(with_packages(overrides))
    except (HydraException, OmegaConfBaseException) as error:
        raise InputError(" ".join(str(error).split())) from error


def _plan(overrides: Sequence[str]) -> list[PlannedRun]:
    register_resolvers()
    with initialize_config_module("mining.conf", **VERSION):
        parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
        given = parser.parse_overrides(list(overrides))
        fixed = [cast(str, o.input_line) for o in given if not o.is_sweep_override()]
        base = compose("config", fixed, return_hydra_config=True)
        swept = OmegaConf.select(base, "hydra.sweeper.params") or {}
        lines = [f"{key}={value}" for key, value in swept.items()]
        sweep = parser.parse_overrides([*lines, *overrides])
        (combinations,) = BasicSweeper.split_arguments(sweep, max_batch_size=None)
        jobs = [Settings.read(_resolve(compose("config", job))) for job in combinations]
    runs = [PlannedRun(job, Path(job.outputs) / job.inputs().directory()) for job in jobs]
    return list({run.directory: run for run in runs}.values())


def _resolve(config: DictConfig) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True, throw_on_missing=True))


def _pick(key: str, values: Mapping[str, Any]) -> Any:
    """Choose one of several values; the key is mostly another value of the configuration."""
    if key not in values:
        raise InputError(f"No value for {key!r}, only for {', '.join(map(str, values))}.")
    chosen = values[key]
    # A node, into which other interpolations can reach: ${train.checkpoints[1]}.
    return OmegaConf.create(chosen) if isinstance(chosen, list | dict) else chosen


def _run_directory(*, _root_: DictConfig) -> str:
    """Name the run's directory, for ``hydra.run.dir`` and ``hydra.sweep.subdir``."""
    keys = [str(key) for key in _root_ if key != "hydra"]
    try:
        settings = Settings.read(_resolve(OmegaConf.masked_copy(_root_, keys)))
    except (InputError, OmegaConfBaseException):
        # Raised here it would end a whole sweep: the job itself says it, and removes the folder.
        return f"refused/{os.getpid()}/run"
    return str(settings.inputs().directory())
