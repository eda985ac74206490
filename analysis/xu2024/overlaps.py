"""Mined w-peaks and their overlaps with eigenvectors: Fig. 9 of Xu et al. (2024).

``python -m analysis.xu2024.overlaps seed=0,1,2`` keeps the records of Fig. 9 with the overlaps.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from analysis.archive import keep, record_of
from analysis.panels import curve_rows, draw_curve_runs, explanation, numbers
from analysis.records import add_overrides, describe, experiment_runs, run_script
from analysis.scripts import Drawing
from mining.directions import cosine
from mining.directions.eigenvectors import NEGATIVE, POSITIVE, signed_number
from mining.directions.storage import read_directions
from mining.plotting import explain, table
from mining.plotting.curvature import eigenvector_colors
from mining.storage.files import read_arrays

#: What must be the same for two runs to look at the same θ.
_THETA = ("model", "data", "train", "seed", "checkpoint", "epoch", "split", "batchnorm")
_COLUMNS = 3


def theta_of(config: dict[str, Any]) -> str:
    """Describe θ so that runs at the same one agree."""
    return str([config[key] for key in _THETA])


def read(path: Path) -> dict[str, Tensor]:
    """Read directions by name."""
    content = read_directions(path)
    sources, indices = content["sources"], content["indices"]
    names = [
        source if sources.count(source) == 1 else f"{source} {index + 1}"
        for source, index in zip(sources, indices, strict=True)
    ]
    return dict(zip(names, content["vectors"], strict=True))


def read_converged(path: Path) -> dict[str, Tensor]:
    """Read the eigenvectors of a spectrum by name, those that converged."""
    converged = read_arrays(path.with_name("eigenpairs.npz"))["converged"].tolist()
    pairs = zip(read(path).items(), converged, strict=True)
    return {name: vector for (name, vector), reached in pairs if reached}


def order(names: list[str]) -> list[str]:
    """Sort as the paper does: N.E.1 to N.E.10, then P.E.10 to P.E.1."""
    numbers = {name: number for name in names if (number := signed_number(name))}
    return sorted(numbers, key=lambda name: (numbers[name] > 0, -numbers[name]))


def overlaps(runs: pd.DataFrame, spectra: pd.DataFrame) -> list[dict[str, Any]]:
    """Compare every direction with the eigenvectors at its θ.

    Args:
        runs: Curve runs.
        spectra: Runs, those of spectra among them.

    Returns:
        For each direction ``point``, ``direction``, ``size`` D, and ``cosines``: |cosine| by the
        name of the eigenvector, of those that converged.
    """
    eigenvectors = {
        theta_of(run.config): Path(run.directory) / "eigenvectors.pt"
        for run in spectra[spectra.pipeline == "spectrum"].itertuples()
    }
    found = []
    for run in runs.itertuples():
        path = eigenvectors.get(theta_of(run.config))
        pairs = read_converged(path) if path is not None and path.exists() else {}
        if pairs:
            for name, vector in read(Path(run.directory) / "directions.pt").items():
                cosines = {e: abs(cosine(vector, pairs[e])) for e in order([*pairs])}
                found.append(
                    {
                        "point": describe(run),
                        "direction": name,
                        "size": len(vector),
                        "cosines": cosines,
                    }
                )
    return found


def overlap_row(found: dict[str, Any]) -> dict[str, Any]:
    """Summarize the overlaps of one direction."""
    cosines = found["cosines"]
    row = {"point": found["point"], "direction": found["direction"]}
    for end in (NEGATIVE, POSITIVE):
        squares = [c**2 for name, c in cosines.items() if name.startswith(end)]
        row[end] = len(squares)
        row[f"rms cosine with {end}"] = math.sqrt(np.mean(squares)) if squares else math.nan
    return row | {
        "of a random one": found["size"] ** -0.5,
        "largest": max(cosines, key=cosines.__getitem__),
        "|cosine|": max(cosines.values()),
    }


def draw_overlaps(axes: Axes, found: dict[str, Any]) -> None:
    """Draw the overlaps of one direction as bars."""
    cosines = found["cosines"]
    axes.bar(list(cosines), list(cosines.values()), color=eigenvector_colors([*cosines]))
    # What a direction that has nothing to do with them shows: half normal, mean sqrt(2/(pi D)).
    axes.axhline(math.sqrt(2 / math.pi / found["size"]), color="black", linestyle=":", linewidth=1)
    axes.tick_params(axis="x", rotation=90, labelsize=6)
    axes.tick_params(axis="y", labelsize=7)
    axes.set_ylabel("|cosine|", fontsize=8)
    axes.set_title(f"{found['point']}\n{found['direction']}", fontsize=8)


def draw(experiment: str, overrides: Sequence[str]) -> Drawing:
    """Draw the mined curves and, below, the overlaps of every direction with eigenvectors.

    The eigenvectors are those of Fig. 13; where it has no run, overlaps are left out with a word
    on stderr.
    """
    runs = experiment_runs(experiment, overrides)
    mined = [run for run in runs.itertuples() if _target(run).endswith("Xu2024WPeak")]
    try:
        found = overlaps(runs, experiment_runs("xu2024/fig13", overrides))
    except FileNotFoundError as error:
        print(f"No overlaps with eigenvectors. {error}", file=sys.stderr)
        found = []
    lines = -(-len(mined) // _COLUMNS), -(-len(found) // _COLUMNS)
    picture = Figure(figsize=(5 * _COLUMNS, 3 * sum(lines)), layout="constrained")
    parts = picture.subfigures(2, 1, height_ratios=[max(n, 1e-3) for n in lines])
    panels = draw_curve_runs(parts[0], mined, lines[0], _COLUMNS)
    for position, item in enumerate(found, start=1):
        draw_overlaps(parts[1].add_subplot(lines[1], _COLUMNS, position), item)
    if found:
        parts[1].suptitle(
            "|cosine| with each eigenvector; dotted: mean of a random direction", fontsize=9
        )
    explain(picture, panels, f"{explanation(mined, [])} Each panel has a scale of its own.")
    tables = [table([row for run in mined for row in curve_rows(run)])]
    if found:
        tables.append(table([overlap_row(item) for item in found]))
    bars = [
        {"run": item["point"], "direction": item["direction"], "eigenvector": e, "|cosine|": c}
        for item in found
        for e, c in item["cosines"].items()
    ]
    plotted = pd.concat([*(numbers(run) for run in mined), pd.DataFrame(bars)])
    return Drawing(picture, "\n".join(tables), plotted)


def _target(run: Any) -> str:
    return str(run.config["direction"]["_target_"])


def main() -> None:
    """Keep the records of Fig. 9, with ``cosines`` where Fig. 13 has the eigenvectors."""
    arguments = argparse.ArgumentParser(description=main.__doc__)
    add_overrides(arguments)
    overrides = arguments.parse_args().overrides
    runs = experiment_runs("xu2024/fig09", overrides)
    spectra = experiment_runs("xu2024/fig13", overrides)
    records = []
    for position, run in enumerate(runs.itertuples()):
        found = overlaps(runs.iloc[[position]], spectra)
        cosines = found[0]["cosines"] if found else None
        record = record_of(run)
        records.append(replace(record, metrics={**record.metrics, "cosines": cosines}))
    print(f"{len(records)} runs in {keep('xu2024/fig09', records)}")


if __name__ == "__main__":
    run_script(main)
