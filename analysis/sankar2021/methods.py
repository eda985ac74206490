"""The penalty beside weight decay and sharpness-aware minimization, each tuned as often."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import ttest_rel

from analysis.archive import Record, kept_or_finished
from analysis.sankar2021.errors import rows_of as errors_of
from analysis.scripts import Drawing
from mining.plotting import explain, table

#: Where the trainings of each method are, and which option of theirs is tuned.
_EXPERIMENTS = ("sankar2021/tuned", "sankar2021/tuned_sam", "sankar2021/tuned_trace")
PLAIN = "nothing"


def method_of(record: Record) -> tuple[str, float]:
    """Name the method of a training and the strength that is tuned."""
    given = record.config.get("regularizer") or {}
    if "rho" in given:
        return "SAM", float(given["rho"])
    if given.get("gamma"):
        return "trace penalty", float(given["gamma"])
    decay = float(record.config["train"]["weight_decay"])
    return ("weight decay", decay) if decay > 0 else (PLAIN, 0.0)


def rows_of(records: Sequence[Record]) -> pd.DataFrame:
    """Make a row for each training, with its errors after the last epoch, per cent."""
    rows = []
    for record in records:
        method, strength = method_of(record)
        row: dict[str, Any] = {"network": record.network, "seed": record.seed}
        row |= {"method": method, "strength": strength}
        for split in ("validation", "test"):
            row[split] = 100 * (1 - record.arrays[f"held_out.{split}_accuracy"][-1])
        rows.append(row)
    return pd.DataFrame(rows)


def choose(rows: pd.DataFrame) -> pd.DataFrame:
    """Keep of each network and method the strength with the lowest mean validation error."""
    keys = ["network", "method"]
    means = rows.groupby([*keys, "strength"])["validation"].mean().reset_index()
    best = means.loc[means.groupby(keys)["validation"].idxmin()]
    return rows.merge(best[[*keys, "strength"]], on=[*keys, "strength"])


def compare(chosen: pd.DataFrame) -> pd.DataFrame:
    """Compare each method with no method by a paired t-test over the seeds.

    Returns:
        A row for each network and method: ``strength``, mean and standard deviation of the test
        error, mean ``difference`` in percentage points, ``p`` (nan for fewer than two pairs) and
        ``n``, the number of pairs.
    """
    rows = []
    for network, own in chosen.groupby("network", sort=False):
        wide = own.pivot_table("test", "seed", "method")
        for method, found in own.groupby("method", sort=False):
            pairs = wide.reindex(columns=[method, PLAIN]).dropna().to_numpy()
            differences = pairs[:, 0] - pairs[:, 1]
            tells = len(pairs) > 1 and float(np.ptp(differences)) > 0
            rows.append(
                {
                    "network": network,
                    "method": method,
                    "strength": found["strength"].iloc[0],
                    "test": found["test"].mean(),
                    "deviation": found["test"].std(),
                    "difference": differences.mean() if len(pairs) else math.nan,
                    "p": float(ttest_rel(*pairs.T).pvalue) if tells else math.nan,
                    "n": len(pairs),
                }
            )
    return pd.DataFrame(rows)


def draw(_: str, overrides: Sequence[str]) -> Drawing:
    """Draw the test errors of every method at the strength that the validation images choose."""
    records = [r for name in _EXPERIMENTS for r in kept_or_finished(name, overrides)]
    rows = rows_of(records)
    chosen = choose(rows)
    found = compare(chosen)
    networks = list(chosen.groupby("network", sort=False))
    picture = Figure(figsize=(3.8 * len(networks), 3.6), layout="constrained")
    drawn = []
    for number, (network, own) in enumerate(networks):
        axes = picture.add_subplot(1, len(networks), number + 1)
        methods = list(dict.fromkeys(own["method"]))
        places = [methods.index(method) for method in own["method"]]
        axes.plot(places, own["test"].to_numpy(), "o", color="0.6", label="one training")
        means = own.groupby("method")["test"].mean().reindex(methods)
        axes.plot(range(len(methods)), means.to_numpy(), "s", label="mean of the seeds")
        axes.set_xticks(range(len(methods)), methods)
        axes.set_title(str(network), fontsize=9)
        axes.set_ylabel("test error (%)", fontsize=8)
        axes.tick_params(labelsize=7)
        drawn.append(axes)
    explain(picture, drawn, "Each method with the strength of the lowest validation error.")
    return Drawing(picture, table(found.to_dict("records")), rows)


def draw_grid(experiment: str, overrides: Sequence[str]) -> Drawing:
    """Draw the mean test error over strength and frequency of the penalty."""
    rows = errors_of(kept_or_finished(experiment, overrides))
    means = rows.pivot_table("test_error", "gamma", "every", aggfunc="mean")
    picture = Figure(figsize=(4.6, 3.4), layout="constrained")
    axes = picture.add_subplot()
    image = axes.imshow(means.to_numpy(), origin="lower", aspect="auto")
    for place, error in np.ndenumerate(means.to_numpy()):
        axes.text(
            place[1], place[0], f"{error:.2f}", ha="center", va="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 2},
        )  # fmt: skip
    axes.set_xticks(range(means.shape[1]), [f"{every:g}" for every in means.columns])
    axes.set_yticks(range(means.shape[0]), [f"{gamma:g}" for gamma in means.index])
    axes.set_xlabel("steps from one penalty to the next", fontsize=8)
    axes.set_ylabel("γ", fontsize=8)
    picture.colorbar(image, ax=axes).set_label("test error (%), mean over seeds", fontsize=8)
    told = rows.groupby(["gamma", "every"])["test_error"].agg(["mean", "std", "count"])
    return Drawing(picture, table(told.reset_index().to_dict("records")), rows)
