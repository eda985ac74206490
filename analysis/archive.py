"""Records of finished runs in the repository: what claims are judged by, without the runs.

python -m analysis.archive xu2024/fig08 seed=0,1,2
"""

import argparse
import gzip
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml

from analysis.records import add_overrides, experiment_runs, run_script
from mining.evaluation.curves import Curve
from mining.explain.curve_shape import CurveShape, classify
from mining.storage.files import read_arrays, write_atomically

#: Arrays of each pipeline that are kept, by file.
_ARRAYS = {
    "curves.npz": ("alphas", "loss", "loss_test", "chance_loss", "rounding"),
    "angles.npz": ("gaussian_gradient", "gaussian_checkpoint", "gradient_checkpoint"),
}
#: Columns of the tables of a training that are kept, by file.
_COLUMNS = {
    "history.csv": ("epoch", "train_loss", "train_accuracy"),
    "curvature.csv": ("epoch", "lambda_max", "trace", "trace_standard_error"),
    "curvature_layers.csv": ("epoch", "place", "lambda_max", "trace", "trace_standard_error"),
    "held_out.csv": ("epoch", "validation_accuracy", "test_accuracy", "noisy_accuracy"),
}
#: Keys of the configuration that say where and how a run was computed, and not what.
_LOCAL = ("outputs", "device", "num_threads", "chunk", "compile", "progress", "picture")
#: Significant digits of kept arrays: the losses are computed in single precision.
_DIGITS = 7
_FOLDER = Path(__file__).parent / "figures"
_EXPERIMENTS = Path(__file__).parent.parent / "conf" / "experiment"


@dataclass(frozen=True)
class Record:
    """What is kept of a finished run."""

    directory: str  # <pipeline>/<model>-<data>/<digest>
    config: dict[str, Any]
    metrics: dict[str, Any]
    arrays: dict[str, Any]
    seconds: float
    device: str

    @property
    def seed(self) -> int:
        """The seed of the run, and so of its training."""
        return int(self.config["seed"])

    @property
    def pipeline(self) -> str:
        """The pipeline of the run."""
        return str(self.config["pipeline"])

    @property
    def network(self) -> str:
        """Model and data set, and what is left out of the model."""
        name, model = self.directory.split("/")[1], self.config["model"]
        for option in ("skip_connections", "batch_norm"):
            if not model.get(option, True):
                name += f", no {option.replace('_', ' ')}"
        return name

    @cached_property
    def curves(self) -> list[Curve]:
        """The curves of the run; none of a run of another pipeline."""
        if "loss" not in self.arrays:
            return []
        alphas = torch.tensor(self.arrays["alphas"], dtype=torch.float64)
        known = {"chance_loss", "rounding"} & set(self.arrays)
        common = {key: self.arrays[key] for key in known}
        losses = torch.tensor(self.arrays["loss"], dtype=torch.float64)
        return [Curve(alphas, loss, **common) for loss in losses]

    @cached_property
    def shapes(self) -> list[CurveShape]:
        """What the classifier of today calls the curves."""
        return [classify(curve) for curve in self.curves]


def record_of(run: Any) -> Record:
    """Take what is kept of a finished run, a row of ``read_runs``."""
    directory, arrays = Path(run.directory), {}
    for name, keys in _ARRAYS.items():
        if (directory / name).exists():
            found = read_arrays(directory / name)
            arrays |= {key: _rounded(found[key]) for key in keys if key in found}
    if run.pipeline == "train":
        for name, columns in _COLUMNS.items():
            if (directory / name).exists():
                table = pd.read_csv(directory / name)
                stem = Path(name).stem
                arrays |= {f"{stem}.{key}": _rounded(table[key]) for key in columns if key in table}
    return Record(
        directory="/".join(directory.parts[-3:]),
        config={key: value for key, value in run.config.items() if key not in _LOCAL},
        metrics=run.metrics,
        arrays=arrays,
        seconds=run.seconds,
        device=run.device,
    )


def read_archive(experiment: str) -> list[Record]:
    """Read the kept records of an experiment.

    Args:
        experiment: Its name, ``xu2024/fig08`` for instance.

    Returns:
        The records, none if none are kept.
    """
    path = _path(experiment)
    if not path.exists():
        return []
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    return [Record(**json.loads(line)) for line in lines]


def kept_or_finished(experiment: str, overrides: Sequence[str]) -> list[Record]:
    """Read the kept records of an experiment or, with overrides or where none are kept, its runs.

    Args:
        experiment: Its name.
        overrides: What it was run with besides.

    Raises:
        FileNotFoundError: If there are neither; names the command that makes them.
    """
    records = [] if overrides else read_archive(experiment)
    return records or [record_of(r) for r in experiment_runs(experiment, overrides).itertuples()]


def keep(experiment: str, records: Sequence[Record]) -> Path:
    """Add records to those that are kept; one of the same directory is replaced.

    Returns:
        The file.
    """
    path = _path(experiment)
    known = {record.directory: record for record in read_archive(experiment)}
    known |= {record.directory: record for record in records}
    lines = [json.dumps(vars_of(known[name]), sort_keys=True) for name in sorted(known)]
    buffer = io.BytesIO()
    with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as file:
        file.write("\n".join(lines).encode())
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())
    return path


def vars_of(record: Record) -> dict[str, Any]:
    """Return the fields of a record by name."""
    return {name: getattr(record, name) for name in Record.__dataclass_fields__}


def _path(experiment: str) -> Path:
    return _FOLDER / f"{_original(experiment)}.jsonl.gz"


def _original(experiment: str) -> str:
    """Name the experiment whose runs these are: another one, if this has nothing of its own."""
    path = _EXPERIMENTS / f"{experiment}.yaml"
    config = yaml.safe_load(path.read_text()) if path.exists() else {}
    bases = config.get("defaults", [])
    if list(config) == ["defaults"] and len(bases) == 1 and isinstance(bases[0], str):
        return _original(bases[0])
    return experiment


def _rounded(values: Any) -> Any:
    """Round to significant digits, as JSON has them: a number or nested lists."""
    array = np.asarray(values, dtype=float)
    if array.ndim == 0:
        return float(f"{array:.{_DIGITS}g}")
    return [_rounded(row) for row in array]


def main() -> None:
    """Keep the finished runs of an experiment."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    arguments.add_argument("experiment", help="xu2024/fig08 for instance")
    add_overrides(arguments)
    options = arguments.parse_args()
    runs = experiment_runs(options.experiment, options.overrides)
    records = [record_of(run) for run in runs.itertuples()]
    print(f"{len(records)} runs in {keep(options.experiment, records)}")


if __name__ == "__main__":
    run_script(main)
