"""Xu et al. (2024), Fig. 5: angles between Gaussian and descent directions.

python -m mining experiment=paper/fig05 && python -m analysis.fig05
"""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.records import describe, experiment_runs, figure_options, run_script, save_csv
from mining.plotting import draw_angles, save_figure, table


def main() -> None:
    """Print the ranges and draw the distributions."""
    options = figure_options("fig05", __doc__)
    runs = list(experiment_runs("paper/fig05", options.overrides).itertuples())
    rows, drawn = [], []
    picture = Figure(figsize=(10, 2.8 * len(runs)), layout="constrained")
    panels = picture.subfigures(len(runs), squeeze=False)[:, 0]
    for run, panel in zip(runs, panels, strict=True):
        draw_angles(panel, run.directory / "angles.npz", title=f"{describe(run)}")
        row = {"run": describe(run)}
        for key, measured in run.metrics["angles"].items():
            row[key] = f"[{measured['min']:.2f}, {measured['max']:.2f}]"
        row["|gradient|^2"] = run.metrics["gradient_norm"] ** 2
        row["log probability"] = run.metrics["log_probability"]
        rows.append(row)
        with np.load(run.directory / "angles.npz") as angles:
            drawn.append(pd.DataFrame({"run": describe(run), **angles}))
    print(table(rows))
    save_csv(pd.concat(drawn), options.csv)
    save_figure(picture, options.picture, dpi=options.dpi)
    print(options.picture)
    print(options.csv)


if __name__ == "__main__":
    run_script(main)
