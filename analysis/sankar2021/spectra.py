"""Spectra of layers and their distances from that of the network: Figs. 1, 3, 9 and 12."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis.archive import Record, kept_or_finished
from analysis.records import experiment_runs
from analysis.scripts import Drawing
from mining.pipelines.layers import WHOLE, read_densities
from mining.plotting import draw_layers, explain, table

_NAMES = {
    "normalized_wasserstein": "normalized Wasserstein distance",
    "jensen_shannon": "Jensen-Shannon divergence (nats)",
}


def rows_of(records: Sequence[Record]) -> pd.DataFrame:
    """Make a row for each layer of each training, with what ``layers.csv`` has."""
    rows = [
        {
            "network": record.network,
            "seed": record.seed,
            "classes": record.metrics["num_classes"],
            **row,
        }
        for record in records
        for row in record.metrics["layers"]
    ]
    return pd.DataFrame(rows)


def first_run(experiment: str, overrides: Sequence[str], kind: str) -> Any:
    """Find the first run of a network; the first of all if there is none such.

    Args:
        experiment: Its name.
        overrides: What it was run with besides.
        kind: Part of the name of the model.
    """
    runs = list(experiment_runs(experiment, overrides).itertuples())
    return next((run for run in runs if kind in run.config["model"]["name"]), runs[0])


def draw_spectra(experiment: str, overrides: Sequence[str], *, kind: str) -> Drawing:
    """Draw the densities of all layers of the first training of a network.

    Args:
        experiment: Its name.
        overrides: What it was run with besides.
        kind: Part of the name of the model; the first training of all if there is none such.
    """
    run = first_run(experiment, overrides, kind)
    operators = run.config["layers"]["operators"]
    picture, drawn = draw_layers(read_densities(Path(run.directory), operators))
    name = "/".join(Path(run.directory).parts[-2:-1])
    picture.suptitle(f"{name}, seed {run.config['seed']}", fontsize=9)
    explain(picture, drawn, "")
    found = pd.DataFrame(run.metrics["layers"]).assign(classes=run.metrics["num_classes"])
    columns = ["operator", "layer", "size", "lambda_max", "trace", "outliers", "gap", "classes"]
    return Drawing(picture, table(found[columns].to_dict("records")), found)


def draw_distances(experiment: str, overrides: Sequence[str], *, column: str) -> Drawing:
    """Draw a distance of the spectrum of each layer over its place, and the mean of the trainings.

    Args:
        experiment: Its name.
        overrides: What it was run with besides.
        column: The distance, of ``layers.csv``.
    """
    rows = rows_of(kept_or_finished(experiment, overrides))
    rows = rows[(rows["operator"] == "hessian") & (rows["layer"] != WHOLE)]
    networks = list(rows.groupby("network", sort=False))
    picture = Figure(figsize=(4.2 * len(networks), 3.4), layout="constrained")
    drawn = []
    for number, (network, own) in enumerate(networks):
        axes = picture.add_subplot(1, len(networks), number + 1)
        for _, one in own.groupby("seed"):
            axes.plot(one["place"], one[column], ".", color="0.6", label="one training")
        middle = own.groupby("place")[column].mean()
        axes.plot(middle.index, middle.to_numpy(), color="tab:blue", label="mean of trainings")
        axes.axvspan(0.25, 0.75, color="0.93", label="middle half of the layers")
        axes.set_title(str(network), fontsize=9)
        axes.set_xlabel("place of the layer, (l - ½) / L", fontsize=8)
        axes.set_ylabel(_NAMES[column], fontsize=8)
        axes.tick_params(labelsize=8)
        drawn.append(axes)
    explain(picture, drawn, "")
    told = rows.groupby(["network", "layer"], sort=False)[column].agg(["mean", "std", "count"])
    return Drawing(picture, table(told.reset_index().to_dict("records")), rows)
