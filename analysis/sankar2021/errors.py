"""Test errors with and without the penalty on the trace: Tables 1 to 3, Figs. 8 and 14."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from analysis.archive import Record, kept_or_finished
from analysis.scripts import Drawing
from mining.plotting import explain, table


def treatment_of(record: Record) -> str:
    """Say how a training was regularized."""
    given = record.config.get("regularizer")
    if given is None or given["gamma"] == 0:
        return "none"
    return "middle layers" if given["layers"] == "middle" else "all layers"


def rows_of(records: Sequence[Record]) -> pd.DataFrame:
    """Make a row for each training; errors are in percent."""
    rows = []
    for record in records:
        given = record.config.get("regularizer") or {}
        rows.append(
            {
                "network": record.network,
                "seed": record.seed,
                "penalty": treatment_of(record),
                "every": given.get("every"),
                "gamma": given.get("gamma"),
                "weight_decay": record.config["train"]["weight_decay"],
                "test_error": 100 * (1 - record.metrics["test_accuracy"]),
                "train_error": 100 * (1 - record.metrics["train_accuracy"]),
            }
        )
    return pd.DataFrame(rows)


def difference(records: Sequence[Record], ours: str, other: str) -> float | None:
    """Subtract the test errors of two treatments of one network and seed, percentage points."""
    rows = rows_of(records)
    means = [rows[rows["penalty"] == name]["test_error"].mean() for name in (ours, other)]
    return None if any(map(pd.isna, means)) else float(means[0] - means[1])


def draw_table(experiment: str, overrides: Sequence[str]) -> Drawing:
    """Draw the test error of every training, by network and treatment, pairs joined."""
    rows = rows_of(kept_or_finished(experiment, overrides))
    networks = list(rows.groupby("network", sort=False))
    picture = Figure(figsize=(3.6 * len(networks), 3.4), layout="constrained")
    drawn = []
    for number, (network, own) in enumerate(networks):
        axes = picture.add_subplot(1, len(networks), number + 1)
        wide = own.pivot_table("test_error", "seed", "penalty", sort=False)
        for _, errors in wide.iterrows():
            axes.plot(range(len(errors)), errors.to_numpy(), "o-", color="0.6", label="one seed")
        means = wide.mean().to_numpy()
        axes.plot(range(len(means)), means, "s", color="tab:blue", label="mean of the seeds")
        axes.set_xticks(range(wide.shape[1]), list(wide.columns))
        axes.set_title(str(network), fontsize=9)
        axes.set_ylabel("test error (%)", fontsize=8)
        axes.tick_params(labelsize=8)
        drawn.append(axes)
    explain(picture, drawn, "")
    told = rows.groupby(["network", "penalty"], sort=False)["test_error"]
    return Drawing(
        picture, table(told.agg(["mean", "std", "count"]).reset_index().to_dict("records")), rows
    )


def draw_line(experiment: str, overrides: Sequence[str], *, option: str) -> Drawing:
    """Draw errors over an option of the penalty, with the spread over seeds.

    Args:
        experiment: Its name.
        overrides: What it was run with besides.
        option: ``every`` or ``gamma``.
    """
    rows = rows_of(kept_or_finished(experiment, overrides))
    picture = Figure(figsize=(5, 3.6), layout="constrained")
    axes = picture.add_subplot()
    for network, own in rows.groupby("network", sort=False):
        for column, line in (("train_error", "--"), ("test_error", "-")):
            found = own.groupby(option)[column].agg(["mean", "std"])
            label = f"{network}, {column.replace('_', ' ')}"
            axes.errorbar(
                found.index, found["mean"], found["std"].fillna(0), linestyle=line, label=label
            )
    axes.set_xscale("log")
    axes.set_xlabel({"every": "steps from one penalty to the next", "gamma": "γ"}[option])
    axes.set_ylabel("error (%), mean and standard deviation over seeds", fontsize=8)
    explain(picture, [axes], "")
    told = rows.groupby(["network", option])[["train_error", "test_error"]].mean()
    return Drawing(picture, table(told.reset_index().to_dict("records")), rows)
