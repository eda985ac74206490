"""Xu et al. (2024), Fig. 5: angles between Gaussian and descent directions.

python -m mining experiment=paper/fig05 && python -m analysis.fig05
"""

from matplotlib.figure import Figure

from analysis.records import find_runs, parser, point_name, run_script
from mining.plotting import draw_angles, save_figure, table


def main() -> None:
    """Print the ranges and draw the distributions."""
    options = parser(__doc__.split("\n")[0], "outputs/fig05.png").parse_args()
    runs = find_runs(options.outputs, "python -m mining experiment=paper/fig05", pipeline="angles")
    runs = runs.assign(order=[run.config["epoch"] or 0 for run in runs.itertuples()])
    runs = runs.sort_values(["model", "data", "order", "seed"])
    rows = []
    picture = Figure(figsize=(10, 2.8 * len(runs)), layout="constrained")
    panels = picture.subfigures(len(runs), squeeze=False)[:, 0]
    for run, panel in zip(runs.itertuples(), panels, strict=True):
        about = f"{run.model}-{run.data}, {point_name(run.config)}, seed {run.seed}"
        draw_angles(panel, run.directory / "angles.npz", title=about)
        row = {
            "model": f"{run.model}-{run.data}",
            "checkpoint": point_name(run.config),
            "seed": run.seed,
        }
        for key, measured in run.metrics["angles"].items():
            row[key] = f"[{measured['min']:.2f}, {measured['max']:.2f}]"
        row["|gradient|^2"] = run.metrics["gradient_norm"] ** 2
        row["log probability"] = run.metrics["log_probability"]
        rows.append(row)
    print(table(rows))
    save_figure(picture, options.picture, dpi=options.dpi)
    print(options.picture)


if __name__ == "__main__":
    run_script(main)
