"""Where Algorithm 1 finds peaks: heights over its learning rate, its length and the epoch of θ."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.archive import Record, kept_or_finished
from analysis.records import epoch_of, learning_rate_of
from analysis.scripts import Drawing
from analysis.xu2024.quantities import falls, is_peak
from mining.plotting import table

#: What is swept, besides the trainings.
_SWEPT = ["network", "epoch", "rate", "epochs"]


def rows(records: Sequence[Record]) -> pd.DataFrame:
    """List the height that was reached in every run, with its sampling error (nats)."""
    found = []
    for record in records:
        left, left_error, right, right_error = falls(record)[0]
        lower = (left, left_error) if left < right else (right, right_error)
        diverged = "diverged_epoch" in record.metrics["metadata"][0]
        found.append(
            {
                "network": record.network,
                "epoch": epoch_of(record.config),
                "rate": learning_rate_of(record.config),
                "epochs": record.config["direction"]["descent"]["epochs"],
                "seed": record.seed,
                "height": lower[0],
                "error": lower[1],
                "label": record.shapes[0].label,
                "diverged": diverged,
                "peak": not diverged and is_peak(left, left_error, right, right_error),
            }
        )
    return pd.DataFrame(found).sort_values([*_SWEPT, "seed"], ignore_index=True)


def summary(runs: pd.DataFrame) -> pd.DataFrame:
    """Count, for every setting, the trainings in which a peak was found, and average heights.

    Heights are those of mining that did not diverge.
    """
    groups = runs.groupby(_SWEPT)
    heights = runs[~runs.diverged].groupby(_SWEPT).height
    return (
        pd.DataFrame(
            {
                "n": groups.size(),
                "peaks": groups.peak.sum(),
                "diverged": groups.diverged.sum(),
                "called w-peak": groups.label.apply(lambda labels: (labels == "w-peak").sum()),
                "mean height": heights.mean(),
                "deviation": heights.std(),
            }
        )
        .reset_index()
        .rename(columns={"rate": "η", "epoch": "E"})
    )


def picture(runs: pd.DataFrame) -> Figure:
    """Draw heights over the learning rate, a panel for each θ."""
    points = list(runs.groupby(["network", "epoch"]))
    drawn = Figure(figsize=(3.6 * len(points), 3.4), layout="constrained")
    panels = drawn.subplots(1, len(points), sharey=True, squeeze=False)[0]
    for axes, ((network, epoch), group) in zip(panels, points, strict=True):
        _draw_heights(axes, group)
        axes.set_title(f"{network}, E={epoch}", fontsize=9)
        axes.label_outer()
    drawn.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=7)
    return drawn


def _draw_heights(axes: Axes, runs: pd.DataFrame) -> None:
    rates = sorted(runs.rate.unique())
    for number, (epochs, group) in enumerate(runs.groupby("epochs")):
        color = f"C{number}"
        places = group.rate.map(rates.index) + 0.15 * (number - 0.5) + 0.02 * group.seed
        kept = ~group.diverged
        axes.errorbar(
            places[kept],
            group.height[kept],
            2 * group.error[kept].fillna(0),
            fmt="o",
            markersize=4,
            color=color,
            label=f"mined for {epochs} epochs (two standard errors)",
        )
        label = f"diverged within {epochs} epochs"
        axes.plot(places[~kept], 0 * places[~kept], "x", color=color, label=label)
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.set_xticks(range(len(rates)), [f"{rate:g}" for rate in rates])
    axes.set_xlabel("learning rate η of mining")
    axes.set_ylabel("height of the peak at θ (nats)")


def draw(experiment: str, overrides: Sequence[str]) -> Drawing:
    """Draw the heights, by the kept records where there are any.

    Args:
        experiment: ``xu2024/algorithm1``.
        overrides: What it was run with besides; with any, finished runs are drawn.
    """
    runs = rows(kept_or_finished(experiment, overrides))
    return Drawing(picture(runs), table(summary(runs).to_dict("records")), runs)
