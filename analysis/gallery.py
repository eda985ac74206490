"""Draw every curve run in ``outputs/`` in one picture, and print a table of them.

python -m mining experiment=quickstart && python -m analysis.gallery experiment=quickstart
"""

import math
from pathlib import Path
from typing import Any, get_args

import pandas as pd
from matplotlib.figure import Figure

from analysis.panels import explanation, number_curves, sources
from analysis.records import (
    departures,
    find_runs,
    losses_drawn,
    parse,
    parser,
    planned_runs,
    point_name,
    run_script,
)
from mining import InputError
from mining.directions.normalization import Name
from mining.evaluation.storage import load_curves
from mining.functional.batchnorm import Mode
from mining.plotting import draw_curves, explain, save_figure, table

#: How the names of directions begin, in the order in which Xu et al. (2024) treat them.
_DIRECTIONS = ("gaussian", "negative gradient", "to E=", "to E'=", "P.E.", "N.E.", "mined")


def rows(runs: pd.DataFrame) -> list[dict[str, Any]]:
    """List every curve of ``runs`` with its name."""
    return [
        {
            "model": f"{run.model}-{run.data}",
            "checkpoint": point_name(run.config),
            "direction": ", ".join([direction, *departures(run.config)]),
            "shape": label,
            "stationary points": points,
            "loss at α=0": run.metrics["loss_at_theta"],
            "seconds": run.seconds,
        }
        for run in runs.itertuples()
        for direction, label, points in zip(
            run.metrics["directions"],
            run.metrics["labels"],
            run.metrics["stationary_points"],
            strict=True,
        )
    ]


def order(run: pd.Series) -> tuple[object, ...]:
    """Sort by model, then direction as in the paper, batch-norm policy and normalization."""
    direction = run.metrics["directions"][0]
    normalization = (run.config.get("normalization") or {}).get("name", "")
    return (
        run.model,
        run.data,
        next(
            (n for n, kind in enumerate(_DIRECTIONS) if direction.startswith(kind)),
            len(_DIRECTIONS),
        ),
        direction,
        get_args(Mode).index(run.config["batchnorm"]["mode"]),
        get_args(Name).index(normalization) if normalization else -1,
        run.seed,
        str(run.directory),
    )


def draw(runs: pd.DataFrame, columns: int) -> Figure:
    """Draw one panel per run."""
    lines = math.ceil(len(runs) / columns)
    picture = Figure(figsize=(3.4 * columns, 3.0 * lines), layout="constrained")
    panels = []
    for position, run in enumerate(runs.itertuples(), start=1):
        axes = picture.add_subplot(lines, columns, position)
        curves = load_curves(run.directory / "curves.npz")
        panels.append(axes)
        draw_curves(axes, curves, legend=False, **losses_drawn(run.config))
        lines_of_title = [
            f"{run.model}-{run.data}, {point_name(run.config)}",
            ", ".join([sources(curves), *departures(run.config)]),
            axes.get_title(),
        ]
        axes.set_title("\n".join(lines_of_title), fontsize=8)
        number_curves(axes, curves)
    explain(picture, panels, explanation(list(runs.itertuples()), []))
    return picture


def main() -> None:
    """Print the table and write the picture."""
    arguments = parser(__doc__.split("\n")[0], "outputs/gallery.png")
    arguments.add_argument(
        "overrides",
        nargs="*",
        metavar="KEY=VALUE",
        help="only the runs of this command: experiment=quickstart",
    )
    arguments.add_argument("--outputs", type=Path, default=Path("outputs"), help="folder of runs")
    arguments.add_argument("--columns", type=int, default=3, help="panels in a row")
    arguments.add_argument("--model", help="only runs of this model, as in the directory's name")
    arguments.add_argument("--data", help="only runs on this data set")
    options = parse(arguments)
    if options.overrides:
        runs = planned_runs(options.overrides)
        runs = runs[runs.pipeline == "curve"]
    else:
        command = "python -m mining experiment=quickstart"
        runs = find_runs(options.outputs, command, pipeline="curve")
    for column in ("model", "data"):
        if getattr(options, column):
            found = runs[runs[column] == getattr(options, column)]
            if found.empty:
                raise InputError(
                    f"no curve run with --{column} {getattr(options, column)}; there are "
                    f"{', '.join(sorted(set(runs[column])))}."
                )
            runs = found
    runs = runs.loc[sorted(runs.index, key=lambda index: order(runs.loc[index]))]
    print(table(rows(runs)))
    for config in runs.config if options.colormap else ():
        config["picture"]["colormap"] = options.colormap
    picture = draw(runs, options.columns)
    save_figure(picture, options.picture, dpi=options.dpi, width=options.width)
    print(options.picture)


if __name__ == "__main__":
    run_script(main)
