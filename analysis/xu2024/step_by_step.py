"""Peaks along N.E.1 at consecutive steps of a training: with training, or with the loss?"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy.stats import spearmanr

from analysis.archive import Record, kept_or_finished
from analysis.records import epoch_of
from analysis.scripts import Drawing
from analysis.verdicts import Bound, decide
from analysis.xu2024.quantities import height
from mining.plotting import table

#: What is drawn over the steps, with the label of its axis.
_MEASURED = {
    "loss": "loss at θ (nats)",
    "eigenvalue": "most negative eigenvalue",
    "slope": "slope along N.E.1 (nats per unit)",
    "height": "height of the peak (nats)",
}


def rows(records: Sequence[Record]) -> pd.DataFrame:
    """List loss, λ min, slope and height at every step of every training."""
    found = []
    for record in records:
        curve = record.curves[0]
        alphas, loss, origin = curve.alphas.numpy(), curve.loss.numpy(), curve.origin
        rise = loss[origin + 1] - loss[origin - 1]
        found.append(
            {
                "network": record.network,
                "seed": record.seed,
                "epoch": epoch_of(record.config),
                "step": record.config["step"],
                "loss": loss[origin],
                "eigenvalue": record.metrics["metadata"][0]["eigenvalue"],
                "slope": abs(rise / (alphas[origin + 1] - alphas[origin - 1])),
                "height": height(record),
            }
        )
    return pd.DataFrame(found).sort_values(["network", "seed", "epoch", "step"])


def correlations(steps: pd.DataFrame) -> pd.Series:
    """Rank correlation of height with loss within windows of one epoch, averaged per training.

    A window in which either is constant has none.
    """
    within = steps.groupby(["network", "seed", "epoch"])[["loss", "height"]].apply(
        lambda part: (
            spearmanr(part["loss"], part["height"]).statistic
            if part["height"].nunique() > 1 and part["loss"].nunique() > 1
            else np.nan
        )
    )
    return within.groupby(["network", "seed"]).mean()


def picture(steps: pd.DataFrame) -> Figure:
    """Draw every quantity over the steps, a column per epoch and a line per training."""
    epochs = sorted(steps.epoch.unique())
    drawn = Figure(figsize=(3.4 * len(epochs), 2.1 * len(_MEASURED)), layout="constrained")
    axes = drawn.subplots(len(_MEASURED), len(epochs), sharex=True, sharey="row", squeeze=False)
    for column, epoch in enumerate(epochs):
        for line, (key, label) in enumerate(_MEASURED.items()):
            panel = axes[line, column]
            for (network, seed), part in steps[steps.epoch == epoch].groupby(["network", "seed"]):
                panel.plot(part.step, part[key], marker=".", label=f"{network}, seed {seed}")
            if column == 0:
                panel.set_ylabel(label, fontsize=7)
            panel.tick_params(labelsize=7)
        axes[0, column].set_title(f"after E={epoch}", fontsize=9)
        axes[-1, column].set_xlabel("mini-batches after the epoch", fontsize=8)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    drawn.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=7)
    return drawn


def answer(steps: pd.DataFrame) -> pd.DataFrame:
    """Judge, per network, both halves of the question by ``criteria.md``."""
    found: list[dict[str, Any]] = []
    for network, group in steps.groupby("network"):
        within = correlations(group).dropna().to_list()
        heights = group.groupby(["seed", "epoch"])["height"].mean().unstack()
        change = (heights[heights.columns.max()] - heights[heights.columns.min()]).to_list()
        for question, values, bound in (
            ("rank correlation of height and loss within an epoch", within, Bound(low=0.0)),
            ("mean height, last epoch less first (nats)", change, Bound(high=0.0)),
        ):
            verdict = decide(values, bound)
            found.append({"network": network, "question": question, **vars(verdict)})
    return pd.DataFrame(found)


def draw(experiment: str, overrides: Sequence[str]) -> Drawing:
    """Draw the steps and answer the question, by the kept records where there are any.

    Args:
        experiment: ``xu2024/steps``.
        overrides: What it was run with besides; with any, finished runs are drawn.
    """
    steps = rows(kept_or_finished(experiment, overrides))
    return Drawing(picture(steps), table(answer(steps).to_dict("records")), steps)
