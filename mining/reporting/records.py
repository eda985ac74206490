"""Finished runs as a report shows them: which network, which θ, and how to make them again."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mining import InputError
from mining.storage.files import read_record
from mining.storage.identity import data_name

#: Keys of the configuration that say which training a network is of.
_NETWORK = ("model", "data", "checkpoint", "train", "seed", "regularizer")
#: Keys of ``train`` that leave the training as it is.
_ONLY_KEPT = ("_target_", "checkpoints")


@dataclass(frozen=True)
class Command:
    """What a user types to make a run again."""

    text: str | None  # None: there is no such command, because of why
    why: str = ""


@dataclass(frozen=True)
class FinishedRun:
    """A finished run.

    Args:
        directory: Where it lies.
        record: Its ``run.json``.
        command: What makes it again.
    """

    directory: Path
    record: Mapping[str, Any]
    command: Command = Command(None, "since none was looked for")

    @classmethod
    def read(cls, directory: Path) -> "FinishedRun":
        """Read the record of a run.

        Raises:
            InputError: If the run is not finished, or its record is damaged.
        """
        path = directory / "run.json"
        if not path.is_file():
            raise InputError(f"{directory} holds no finished run: it has no run.json.")
        return cls(directory, read_record(path))

    @property
    def config(self) -> Mapping[str, Any]:
        """The resolved configuration."""
        config: Mapping[str, Any] = self.record["config"]
        return config

    @property
    def metrics(self) -> Mapping[str, Any]:
        """What the run measured."""
        metrics: Mapping[str, Any] = self.record["metrics"]
        return metrics

    @property
    def pipeline(self) -> str:
        """The pipeline that made it."""
        return str(self.config["pipeline"])

    @property
    def digest(self) -> str:
        """What its results depend on, digested; of runs without one, the name of the folder."""
        return str((self.record.get("identity") or {}).get("digest", self.directory.name))

    @property
    def typed(self) -> str | None:
        """The command that was typed for it; ``None`` of a run that another one needed."""
        arguments = self.record.get("arguments")
        if arguments is None:
            return None
        return " ".join(["python -m mining", *map(shlex.quote, arguments)])

    @property
    def epoch(self) -> int | None:
        """The epoch of θ in its training; ``None`` of a checkpoint that was given as a file."""
        config = self.config
        if config.get("checkpoint") is not None:
            return None
        epoch = config.get("epoch") if self.pipeline != "train" else None
        return int(config["train"]["epochs"] if epoch is None else epoch)

    @property
    def point(self) -> str:
        """The name of θ, as pictures and paths have it: E=30 for instance."""
        given, step = self.config.get("checkpoint"), self.config.get("step")
        if given is not None:
            files = [given] if isinstance(given, str) else given
            return " and ".join(Path(file).name for file in files)
        return f"E={self.epoch}" + (f" and {step} steps" if step is not None else "")

    @property
    def loss_of(self) -> str:
        """Which loss was evaluated, in a few words."""
        config = self.config
        split = config.get("split") or "train"
        parts = ["loss on train and test" if split == "both" else f"{split} loss"]
        for key, text in (("num_examples", "{} examples"), ("shift", "shift {}")):
            if config.get(key) is not None:
                parts.append(text.format(config[key]))
        if config.get("data_shifted") is not None:
            parts.append(f"on {data_name(config['data_shifted'])}")
        if (self.metrics.get("landscape") or {}).get("norm_layers"):
            parts.append(f"batch norm: {config['batchnorm']['mode']}")
        if config.get("normalization") is not None:
            parts.append(f"normalization: {config['normalization']['name']}")
        return ", ".join(parts)

    @property
    def network(self) -> str:
        """What tells the networks of runs apart: the configuration of its training, as JSON."""
        read = {key: self.config.get(key) for key in _NETWORK}
        train = read["train"] or {}
        read["train"] = {k: v for k, v in train.items() if k not in _ONLY_KEPT}
        if read["checkpoint"] is not None:
            read["train"] = None
        return json.dumps(read, sort_keys=True)


def name_networks(runs: Sequence[FinishedRun]) -> dict[str, str]:
    """Name the networks of runs by model and data, and by the values in which such ones differ."""
    configs = {run.network: json.loads(run.network) for run in runs}
    plain = {
        key: f"{config['model']['name']} on {data_name(config['data'])}"
        for key, config in configs.items()
    }
    names = {}
    for name in dict.fromkeys(plain.values()):
        alike = [key for key, other in plain.items() if other == name]
        for key, told in zip(alike, differences([flat(configs[k]) for k in alike]), strict=True):
            names[key] = ", ".join([name, *(part.removeprefix("train.") for part in told)])
    return names


def differences(configs: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """Name the values in which flat configurations differ: ``["seed=0"]``, ``["seed=1"]``."""
    keys = dict.fromkeys(key for config in configs for key in config)
    differ = [k for k in keys if len({json.dumps(config.get(k)) for config in configs}) > 1]
    return [[f"{key}={config.get(key)}" for key in differ] for config in configs]


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Give a configuration one level: ``{"train.lr": 0.1, …}``; empty mappings are values."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
