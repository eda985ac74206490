"""Curvature over the epochs, of networks and of layers: Figs. 4 to 7 and 13."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.archive import Record, kept_or_finished
from analysis.sankar2021.errors import treatment_of
from analysis.scripts import Drawing
from mining.plotting import add_places, draw_layer_lines, explain, table

_NAMES = {"lambda_max": "λ max", "trace": "trace", "train_accuracy": "training accuracy"}


def series_of(record: Record, stem: str = "curvature") -> pd.DataFrame:
    """Give what a training measured, a row for each epoch, or for each epoch and layer.

    Args:
        record: Of the training.
        stem: Of the file: ``curvature``, ``curvature_layers`` or ``history``.
    """
    known = {key: values for key, values in record.arrays.items() if key.startswith(f"{stem}.")}
    return pd.DataFrame({key.partition(".")[2]: values for key, values in known.items()})


def architecture_of(record: Record) -> str:
    """Name model and data set, whatever is left out of the model."""
    return record.directory.split("/")[1]


def without(record: Record) -> str:
    """Say what is left out of a model: batch norm, skip connections or nothing."""
    return record.network.removeprefix(architecture_of(record)).removeprefix(", ") or "complete"


def change(records: Sequence[Record], column: str) -> float | None:
    """Compare a column at the last measurement with the first: mean difference of log10."""
    found = [_change(series_of(record)[column]) for record in records]
    return _mean(found)


def share_of_falling_layers(records: Sequence[Record]) -> float | None:
    """Count the layers whose λmax is lower at the last measurement, as a share."""
    falls = [
        own["lambda_max"].iloc[-1] < own["lambda_max"].iloc[0]
        for record in records
        for _, own in series_of(record, "curvature_layers").groupby("place")
    ]
    return float(np.mean(falls)) if falls else None


def middle_nearer(records: Sequence[Record]) -> float | None:
    """Average |log10(λ_l / λ)| over epochs and the middle half of the layers, less the others."""
    found = []
    for record in records:
        layers = series_of(record, "curvature_layers")
        whole = series_of(record).set_index("epoch")["lambda_max"]
        ratios = layers["lambda_max"] / whole.reindex(layers["epoch"]).to_numpy()
        distances = ratios.where(ratios > 0).map(math.log10).abs()
        middle = layers["place"].between(0.25, 0.75)
        found.append(distances[middle].mean() - distances[~middle].mean())
    return _mean(found)


def last_trace(
    records: Sequence[Record], ours: str, other: str, treatment: Callable[[Record], str]
) -> float | None:
    """Compare the last traces of two trainings with one seed: difference of log10.

    Args:
        records: Of one network and seed.
        ours: Treatment whose trace is expected to be smaller.
        other: Treatment to compare with.
        treatment: Names that of a record.
    """
    lasts = {
        treatment(record): _log10(series_of(record)["trace"].iloc[-1])
        for record in records
        if "curvature.trace" in record.arrays
    }
    return _mean([lasts[ours] - lasts[other]]) if {ours, other} <= set(lasts) else None


def _change(values: pd.Series) -> float:
    return _log10(values.iloc[-1]) - _log10(values.iloc[0])


def _log10(value: float) -> float:
    """Take the logarithm; of what has none, nan."""
    return math.log10(value) if value > 0 else math.nan


def _mean(values: Sequence[float]) -> float | None:
    told = [value for value in values if not math.isnan(value)]
    return sum(told) / len(told) if told else None


def draw_networks(experiment: str, overrides: Sequence[str]) -> Drawing:
    """Draw λmax and trace of every network over the epochs, a line for each training."""
    records = kept_or_finished(experiment, overrides)
    names = list(dict.fromkeys(record.network for record in records))
    picture = Figure(figsize=(8.4, 3.6), layout="constrained")
    panels = list(picture.subplots(1, 2))
    for axes, column in zip(panels, ("lambda_max", "trace"), strict=True):
        for record in records:
            color = f"C{names.index(record.network)}"
            _line(axes, series_of(record), column, color, record.network)
        _finish(axes, column)
    explain(picture, panels, "One line for each training.")
    return _drawing(picture, records, lambda record: record.network)


def draw_pairs(experiment: str, overrides: Sequence[str]) -> Drawing:
    """Draw the trace over the epochs with and without batch norm or skip connections."""
    records = kept_or_finished(experiment, overrides)
    left_out = {architecture_of(r) for r in records if without(r) != "complete"}
    return _draw_treatments(
        [r for r in records if architecture_of(r) in left_out], without, ("trace",)
    )


def draw_penalty(experiment: str, overrides: Sequence[str]) -> Drawing:
    """Draw training accuracy and trace over the epochs, without and with the penalty."""
    records = kept_or_finished(experiment, overrides)
    return _draw_treatments(
        records, lambda record: f"penalty: {treatment_of(record)}", ("train_accuracy", "trace")
    )


def _draw_treatments(
    records: Sequence[Record], treatment: Callable[[Record], str], columns: Sequence[str]
) -> Drawing:
    """Draw columns over the epochs, panels for each architecture, a color for each treatment."""
    architectures = list(dict.fromkeys(map(architecture_of, records)))
    treatments = list(dict.fromkeys(map(treatment, records)))
    places = [(architecture, column) for architecture in architectures for column in columns]
    picture = Figure(figsize=(4.2 * len(places), 3.6), layout="constrained")
    panels = list(picture.subplots(1, len(places), squeeze=False)[0])
    for axes, (architecture, column) in zip(panels, places, strict=True):
        for record in records:
            if architecture_of(record) == architecture:
                color = f"C{treatments.index(treatment(record))}"
                series = series_of(record, "history" if column in _HISTORY else "curvature")
                _line(axes, series, column, color, treatment(record))
        _finish(axes, column)
        axes.set_title(architecture, fontsize=9)
    explain(picture, panels, "One line for each training.")
    return _drawing(picture, records, lambda r: f"{architecture_of(r)}: {treatment(r)}")


#: Columns of ``history.csv``.
_HISTORY = ("train_accuracy",)


def draw_layers(experiment: str, overrides: Sequence[str], *, kind: str) -> Drawing:
    """Draw λmax of every layer over the epochs, in a panel for each training of a network.

    Args:
        experiment: Its name.
        overrides: What it was run with besides.
        kind: Part of the name of the network; that of the first training if there is none such.
    """
    records = kept_or_finished(experiment, overrides)
    name = next((r.network for r in records if kind in r.network), records[0].network)
    chosen = [record for record in records if record.network == name][:3]
    picture = Figure(figsize=(4.2 * len(chosen) + 0.8, 3.6), layout="constrained")
    panels = list(picture.subplots(1, len(chosen), squeeze=False, sharey=True)[0])
    rows = []
    for axes, record in zip(panels, chosen, strict=True):
        layers, whole = series_of(record, "curvature_layers"), series_of(record)
        draw_layer_lines(axes, layers, whole, "lambda_max")
        axes.set_title(f"{name}, seed {record.seed}", fontsize=9)
        rows.append(layers.assign(network=name, seed=record.seed))
    panels[0].set_ylabel("λ max", fontsize=8)
    add_places(picture, panels)
    explain(picture, panels)
    numbers = pd.concat(rows)
    ends = numbers.groupby(["seed", "place"])["lambda_max"].agg(["first", "last"])
    return Drawing(picture, table(ends.reset_index().to_dict("records")), numbers)


def _line(axes: Axes, series: pd.DataFrame, column: str, color: str, label: str) -> None:
    axes.plot(series["epoch"], series[column], ".-", color=color, linewidth=1, label=label)


def _finish(axes: Axes, column: str) -> None:
    """Label the axes; a logarithmic one for curvature that is positive everywhere."""
    if column not in _HISTORY and all((line.get_ydata() > 0).all() for line in axes.lines):
        axes.set_yscale("log")
    axes.set_xlabel("epoch", fontsize=8)
    axes.set_ylabel(_NAMES[column], fontsize=8)
    axes.tick_params(labelsize=8, which="both")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _drawing(picture: Figure, records: Sequence[Record], name: Callable[[Record], str]) -> Drawing:
    """Add the first and the last numbers of every training as a table."""
    series = [series_of(r).assign(network=name(r), seed=r.seed) for r in records]
    ends = [
        {
            "network": own["network"].iloc[0],
            "seed": own["seed"].iloc[0],
            **{
                f"{_NAMES[column]}, {word}": own[column].iloc[place]
                for column in ("lambda_max", "trace")
                for word, place in (("first", 0), ("last", -1))
            },
        }
        for own in series
    ]
    return Drawing(picture, table(ends), pd.concat(series))
