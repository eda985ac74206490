"""Pictures of assessments."""

from collections.abc import Sequence

from matplotlib.axes import Axes


def draw_intervals(
    axes: Axes, names: Sequence[str], values: Sequence[float], ends: Sequence[tuple[float, float]]
) -> None:
    """Draw numbers between 0 and 1 with their 95 % intervals, one below the other.

    Args:
        axes: Where to draw.
        names: Of the numbers.
        values: The numbers.
        ends: Of the interval of each.
    """
    rows = range(len(names))
    reach = [
        [max(value - low, 0.0) for value, (low, _) in zip(values, ends, strict=True)],
        [max(high - value, 0.0) for value, (_, high) in zip(values, ends, strict=True)],
    ]
    axes.errorbar(
        values, rows, xerr=reach, fmt="o", color="black", markersize=4, capsize=3, label="95 %"
    )
    for row, value in zip(rows, values, strict=True):
        axes.annotate(
            f"{value:.3g}", (value, row), (0, 5), textcoords="offset points", ha="center", size=7
        )
    axes.set_yticks(list(rows), list(names), fontsize=7)
    axes.set_xlim(-0.05, 1.05)
    axes.set_ylim(len(names) - 0.5, -0.7)
    axes.set_title("accuracy and calibration error", fontsize=8)
