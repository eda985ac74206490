"""Xu et al. (2024), Fig. 14: second-order models along GMI and MLI curves.

python -m mining experiment=paper/fig14 && python -m analysis.fig14
"""

from pathlib import Path

from matplotlib.figure import Figure

from analysis.records import find_runs, parser, point_name, run_script
from mining.curves import load_curves
from mining.plotting import draw_expansions, save_figure, table
from mining.records import load_record
from mining.second_order import Expansions

_COLUMNS = 2


def main() -> None:
    """Print slope, curvature and error of every parabola, and draw a panel for every curve."""
    options = parser(__doc__.split("\n")[0], "outputs/fig14.png").parse_args()
    command = "python -m mining experiment=paper/fig14"
    runs = find_runs(options.outputs, command, pipeline="second_order")
    runs = runs.assign(direction=[m["direction"] for m in runs.metrics])
    runs = runs.sort_values(["model", "data", "seed", "direction"])
    lines = -(-len(runs) // _COLUMNS)
    picture = Figure(figsize=(6 * _COLUMNS, 3.6 * lines), layout="constrained")
    rows = []
    for position, run in enumerate(runs.itertuples()):
        axes = picture.add_subplot(lines, _COLUMNS, position + 1)
        (curve,) = load_curves(Path(run.directory) / "curves.npz")
        found = load_record(Path(run.directory) / "expansions.npz", Expansions)
        draw_expansions(axes, curve, found)
        name = f"{run.model}-{run.data}, {point_name(run.config)}, seed {run.seed}"
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
    save_figure(picture, options.picture, dpi=options.dpi)
    print(options.picture)


if __name__ == "__main__":
    run_script(main)
