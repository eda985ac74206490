"""Xu et al. (2024), Fig. 14: second-order models along GMI and MLI curves.

python -m mining experiment=paper/fig14 && python -m analysis.fig14
"""

from pathlib import Path

from matplotlib.figure import Figure

from analysis.records import describe, experiment_runs, figure_options, run_script, save_csv
from mining.curves import load_curves
from mining.plotting import draw_expansions, save_figure, table
from mining.records import load_record
from mining.second_order import Expansions

_COLUMNS = 2


def main() -> None:
    """Print slope, curvature and error of every parabola, and draw a panel for every curve."""
    options = figure_options("fig14", __doc__)
    runs = experiment_runs("paper/fig14", options.overrides)
    lines = -(-len(runs) // _COLUMNS)
    picture = Figure(figsize=(6 * _COLUMNS, 3.6 * lines), layout="constrained")
    rows = []
    for position, run in enumerate(runs.itertuples()):
        axes = picture.add_subplot(lines, _COLUMNS, position + 1)
        (curve,) = load_curves(Path(run.directory) / "curves.npz")
        found = load_record(Path(run.directory) / "expansions.npz", Expansions)
        draw_expansions(axes, curve, found)
        name = describe(run)
        axes.set_title(f"{name}, {curve.name}\n{axes.get_title()}", fontsize=9)
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
    print(table(rows))
    save_csv(rows, options.csv)
    save_figure(picture, options.picture, dpi=options.dpi)
    print(options.picture)
    print(options.csv)


if __name__ == "__main__":
    run_script(main)
