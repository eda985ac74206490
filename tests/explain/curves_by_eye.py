"""Curves with the labels that people gave them, and how often the classifier agrees.

``drawn_curves.csv`` holds 300 curves drawn by hand, as control points; ``measured_curves.csv`` 60
curves of ``analysis/figures``. Every curve was labelled from its picture, before the classifier had
named it; where two labels are defensible, both are accepted. Half of the curves, all variants of a
drawing on the same side, were held out while the classifier was changed.

    python tests/explain/curves_by_eye.py              # confusion matrices
    python tests/explain/curves_by_eye.py sheets DIR   # contact sheets without labels
"""

import csv
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.interpolate import PchipInterpolator

from mining import Curve, classify
from mining.evaluation.grid import grid_with_origin

FOLDER = Path(__file__).parent
#: Drawn losses above this overflow.
_OVERFLOW = 1e30


@dataclass(frozen=True)
class Example:
    """A curve and the labels that the eye accepts, the best one first."""

    curve: Curve
    labels: tuple[str, ...]
    held_out: bool
    source: str = ""  # figure, run and direction of a measured curve


def drawn() -> list[Example]:
    """Draw the curves of ``drawn_curves.csv``."""
    rows = _rows("drawn_curves.csv")
    return [_example(row, _draw(row, seed)) for seed, row in enumerate(rows)]


def measured() -> list[Example]:
    """Read the curves of ``measured_curves.csv``."""
    return [_example(row, _measured(row)) for row in _rows("measured_curves.csv")]


def disagreements(examples: Iterable[Example]) -> list[tuple[int, str, str]]:
    """List number, accepted labels and the classifier's label where these differ."""
    named = [(e.labels, str(classify(e.curve))) for e in examples]
    return [(i, "|".join(eye), found) for i, (eye, found) in enumerate(named) if found not in eye]


def agreement(examples: list[Example]) -> float:
    """Compute the share of curves whose label the eye accepts."""
    return 1 - len(disagreements(examples)) / len(examples)


def confusion(examples: Iterable[Example]) -> Counter[tuple[str, str]]:
    """Count pairs of the eye's label and the classifier's; an accepted one counts as the same."""
    named = [(e.labels, str(classify(e.curve))) for e in examples]
    return Counter((found if found in eye else eye[0], found) for eye, found in named)


def table(counts: Counter[tuple[str, str]]) -> str:
    """Format a confusion matrix: rows are labels of the eye, columns the classifier's."""
    rows = sorted({eye for eye, _ in counts}, key=_order)
    columns = sorted({found for _, found in counts} | set(rows), key=_order)
    lines = [
        "| eye \\ classifier | " + " | ".join(columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for eye in rows:
        cells = " | ".join(str(counts[eye, found] or "") for found in columns)
        lines.append(f"| {eye} | {cells} |")
    return "\n".join(lines)


def draw_sheet(examples: list[Example], first: int) -> Figure:
    """Draw a contact sheet of 25 curves, numbered from ``first``."""
    figure = Figure(figsize=(20, 16), layout="constrained")
    panels = zip(examples, figure.subplots(5, 5).flat, strict=False)
    for i, (example, axes) in enumerate(panels, first):
        curve = example.curve
        loss, chance = curve.loss.numpy(), curve.chance_loss
        if curve.loss_error is None:
            axes.plot(curve.alphas, loss, marker=".", linewidth=0.8)
        else:
            axes.errorbar(curve.alphas, loss, curve.loss_error, fmt=".-", linewidth=0.8)
        axes.axvline(0, color="black", linestyle=":")
        finite = loss[np.isfinite(loss)]
        lowest, highest = finite.min(), finite.max()
        if chance is not None:
            cap = 2 * max(chance, curve.loss[curve.origin].item())
            if highest > cap > lowest:
                axes.set_ylim(lowest - 0.05 * (cap - lowest), cap)
            if axes.get_ylim()[0] < chance < axes.get_ylim()[1]:
                axes.axhline(chance, color="red", linestyle=":")
        note = f", {curve.nonfinite} not finite" if curve.nonfinite else ""
        axes.set_title(f"{i}: to {highest:.3g}{note}", fontsize=10)
    return figure


def _rows(name: str) -> list[dict[str, str]]:
    with (FOLDER / name).open(newline="") as file:
        return list(csv.DictReader(file))


def _example(row: dict[str, str], curve: Curve) -> Example:
    labels, held_out = tuple(row["labels"].split("|")), row["held_out"] == "1"
    return Example(curve, labels, held_out, row.get("source", ""))


def _draw(row: dict[str, str], seed: int) -> Curve:
    """Join control points smoothly or by lines and add normal noise of ``noise`` nats."""
    points = [[float(x) for x in pair.split(":")] for pair in row["points"].split()]
    alphas, losses = np.array(points).T
    grid = grid_with_origin(torch.linspace(alphas[0], alphas[-1], int(row["num"])).double()).numpy()
    smooth = row["join"] == "smooth"
    values = PchipInterpolator(alphas, losses)(grid) if smooth else np.interp(grid, alphas, losses)
    noise = float(row["noise"])
    values = values + noise * np.random.default_rng(seed).standard_normal(len(grid))
    errors = noise**2 * torch.eye(len(grid)) if row["errors_known"] == "1" else None
    return Curve(
        torch.from_numpy(grid),
        torch.from_numpy(np.where(values > _OVERFLOW, np.inf, values)),
        chance_loss=float(row["chance_loss"]) if row["chance_loss"] else None,
        loss_covariance=errors,
    )


def _measured(row: dict[str, str]) -> Curve:
    losses = torch.tensor([float(x) for x in row["losses"].split()], dtype=torch.float64)
    low, high = float(row["low"]), float(row["high"])
    alphas = grid_with_origin(torch.linspace(low, high, len(losses)).double())
    return Curve(alphas, losses, chance_loss=float(row["chance_loss"]))


def _order(label: str) -> tuple[int, str]:
    known = ["v-basin", "v-side", "w-basin", "w-peak", "other", "vvv-basin"]
    last = ["chaotic", "flat", "exploded"]
    if label in known:
        return known.index(label), ""
    return (50 + last.index(label), "") if label in last else (20, label)


def main(arguments: list[str]) -> None:
    """Print confusion matrices, or draw contact sheets."""
    sets = {"drawn": drawn(), "measured": measured()}
    if arguments[:1] == ["sheets"]:
        for name, examples in sets.items():
            for first in range(0, len(examples), 25):
                sheet = draw_sheet(examples[first : first + 25], first)
                sheet.savefig(Path(arguments[1]) / f"{name}{first:03}.png", dpi=70)
        return
    for half in (False, True):
        together = []
        for name, examples in sets.items():
            part = [e for e in examples if e.held_out == half]
            print(f"{name}, {'held-out' if half else 'other'} half: {agreement(part):.1%}")
            together += part
            wrong = {
                n: pair for n, *pair in disagreements(examples) if examples[n].held_out == half
            }
            print("".join(f"  {n}: {eye}, called {found}\n" for n, (eye, found) in wrong.items()))
        print(table(confusion(together)) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
