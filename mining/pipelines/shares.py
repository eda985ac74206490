"""How much of an unfinished run is done."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mining import InputError


def share_done(directory: Path, config: Mapping[str, Any]) -> float | None:
    """Return the share of points or of epochs that an unfinished run has, from 0 to 1.

    Args:
        directory: Of the run.
        config: With which it was started.

    Returns:
        The share; ``None`` of a pipeline that keeps no parts, or if nothing is kept yet.
    """
    points, states = sorted(directory.glob("points*.csv")), sorted(directory.glob("resume*.pt"))
    if not config:  # of an earlier version
        return None
    if points and "grid" in config:
        # Of each rank; the first line is a fingerprint.
        finished = sum(max(0, path.read_bytes().count(b"\n") - 1) for path in points)
        return min(1.0, finished / _num_points(config))
    if states:
        return min(1.0, sum(map(_epoch, states)) / _num_epochs(config))
    return None


def _num_points(config: Mapping[str, Any]) -> int:
    from mining.evaluation import Grid  # torch: only where a run is unfinished

    grid = Grid(**{key: value for key, value in config["grid"].items() if key != "_target_"})
    if config["pipeline"] == "surface":
        return len(grid.alphas) * len(grid.betas)
    return len(grid.alphas) * int(config["num_directions"])


def _num_epochs(config: Mapping[str, Any]) -> int:
    if config["pipeline"] == "train":
        return int(config["train"]["epochs"])
    return int(config["direction"]["descent"]["epochs"]) * int(config["num_directions"])


def _epoch(state: Path) -> int:
    from mining.training.loop import read_state

    try:
        return int(read_state(state)["epoch"])
    except InputError:  # damaged, and begun again when the run goes on
        return 0
