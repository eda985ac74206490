"""Finished runs as a table."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mining import InputError
from mining.storage.files import read_record
from mining.storage.identity import data_name
from mining.storage.spelling import suggest

if TYPE_CHECKING:
    import pandas as pd

_FROM_RECORD = ("seed", "seconds", "device", "config", "metrics")
_COLUMNS = ("directory", "pipeline", "model", "data", *_FROM_RECORD)


def load_runs(root: str | Path = "outputs", **where: Any) -> "pd.DataFrame":
    """Read the record of every finished run.

    Args:
        root: The output folder.
        where: Only runs with these values; a nested key is written with ``__``, as in
            ``load_runs(pipeline="curve", model__name="mlp")``.

    Returns:
        A row per run, sorted by directory: ``directory`` (a ``Path``), ``pipeline``, ``model``,
        ``data``, ``seed``, ``seconds``, ``device``, ``config`` and ``metrics`` (mappings).

    Raises:
        InputError: If there is no such folder, runs lie at another depth of it, or no run has a
            key of ``where``.
    """
    if not Path(root).is_dir():
        raise InputError(f"No folder {Path(root).resolve()}: give the folder of outputs=FOLDER.")
    import numpy as np  # as pandas, takes longer to import than a finished run to skip

    paths = sorted(Path(root).glob("*/*/*/run.json"))
    deeper = None if paths else next(Path(root).rglob("run.json"), None)
    if deeper is not None:
        raise InputError(
            f"{root} holds no folders PIPELINE/MODEL-DATA/DIGEST, but {deeper}: give the folder "
            "that outputs=FOLDER named."
        )
    runs = read_runs([path.parent for path in paths])
    for key in where if len(runs) else ():
        _check_key(runs.config, key.split("__"))
    chosen = [
        all(_lookup(config, key.split("__")) == value for key, value in where.items())
        for config in runs.config
    ]
    return runs.loc[np.array(chosen, dtype=bool)].reset_index(drop=True)


def read_runs(directories: Sequence[Path]) -> "pd.DataFrame":
    """Read the records of finished runs.

    Args:
        directories: Of the runs.

    Returns:
        A row per run in their order, as ``load_runs`` gives it.

    Raises:
        FileNotFoundError: If a run is not finished.
        InputError: If a record is damaged.
    """
    import pandas as pd  # takes longer to import than a finished run takes to skip

    rows = []
    for directory in directories:
        record = read_record(directory / "run.json")
        config = record["config"]
        rows.append(
            {
                "directory": directory,
                "pipeline": config["pipeline"],
                "model": config["model"]["name"],
                "data": data_name(config["data"]),
                **{key: record[key] for key in _FROM_RECORD},
            }
        )
    return pd.DataFrame(rows, columns=list(_COLUMNS))


def _check_key(configs: Iterable[Any], keys: list[str]) -> None:
    """Raise ``InputError`` if no configuration has this key."""
    for depth, key in enumerate(keys):
        configs = [config for config in configs if isinstance(config, Mapping)]
        known = sorted({name for config in configs for name in config})
        if key not in known:
            name = ".".join(keys[: depth + 1])
            listed = f"{', '.join(known) or 'none'}{suggest(key, known)}"
            raise InputError(f"No run has the key {name}; there are {listed}.")
        configs = [config[key] for config in configs if key in config]


def _lookup(config: Any, keys: list[str]) -> Any:
    for key in keys:
        config = config.get(key) if isinstance(config, Mapping) else None
    return config
