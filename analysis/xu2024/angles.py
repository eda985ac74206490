"""Angles between Gaussian and descent directions: Fig. 5 of Xu et al. (2024)."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from analysis.records import describe, experiment_runs
from analysis.scripts import Drawing
from mining.plotting import draw_angles, explain, table
from mining.storage.files import read_arrays


def draw(experiment: str, overrides: Sequence[str]) -> Drawing:
    """Draw the distributions of the angles and list their ranges."""
    runs = list(experiment_runs(experiment, overrides).itertuples())
    rows, drawn = [], []
    picture = Figure(figsize=(10, 2.8 * len(runs)), layout="constrained")
    parts = picture.subfigures(len(runs), squeeze=False)[:, 0]
    panels = []
    for run, part in zip(runs, parts, strict=True):
        panels += draw_angles(part, run.directory / "angles.npz", title=describe(run))
        row = {"run": describe(run)}
        for key, measured in run.metrics["angles"].items():
            row[key] = f"[{measured['min']:.2f}, {measured['max']:.2f}]"
        row["|gradient|^2"] = run.metrics["gradient_norm"] ** 2
        row["log probability"] = run.metrics["log_probability"]
        rows.append(row)
        angles = read_arrays(run.directory / "angles.npz")
        drawn.append(pd.DataFrame({"run": describe(run), **angles}))
    explain(picture, panels, "E: epoch of θ.")
    return Drawing(picture, table(rows), pd.concat(drawn))
