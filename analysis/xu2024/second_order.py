"""Second-order models along GMI and MLI curves: Fig. 14 of Xu et al. (2024)."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from analysis.records import describe, experiment_runs, tell_apart
from analysis.scripts import Drawing
from mining.evaluation.storage import load_curves
from mining.explain.second_order import Expansions
from mining.plotting import draw_expansions, explain, table
from mining.storage.records import load_record

_COLUMNS = 2


def draw(experiment: str, overrides: Sequence[str]) -> Drawing:
    """Draw a panel for every curve, and list slope, curvature and error of every parabola."""
    runs = experiment_runs(experiment, overrides)
    lines = -(-len(runs) // _COLUMNS)
    picture = Figure(figsize=(6 * _COLUMNS, 3.6 * lines), layout="constrained")
    rows, panels = [], []
    listed = list(runs.itertuples())
    for position, (run, about) in enumerate(zip(listed, tell_apart(listed), strict=True)):
        axes = picture.add_subplot(lines, _COLUMNS, position + 1)
        (curve,) = load_curves(Path(run.directory) / "curves.npz")
        found = load_record(Path(run.directory) / "expansions.npz", Expansions)
        draw_expansions(axes, curve, found)
        panels.append(axes)
        name = describe(run)
        axes.set_title(f"{about}\n{axes.get_title()}", fontsize=9)
        rows += [
            {
                "curve": f"{name}, {curve.name}",
                "α": alpha,
                "loss": loss,
                "b": slope,
                "a": curvature,
                "error": error,
                "error / change": relative,
            }
            for alpha, loss, slope, curvature, error, relative in zip(
                found.alphas.tolist(),
                found.loss.tolist(),
                found.slope.tolist(),
                found.curvature.tolist(),
                found.error.tolist(),
                found.relative_error.tolist(),
                strict=True,
            )
        ]
    explain(picture, panels, "E: epoch of θ.")
    return Drawing(picture, table(rows), pd.DataFrame(rows))
