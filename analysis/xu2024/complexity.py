"""How complex a curve can be: mined ones against their templates, by depth and size of the MLP."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.signal import find_peaks

from analysis.archive import Record, kept_or_finished
from analysis.scripts import Drawing
from mining.evaluation.curves import Curve, rmse
from mining.plotting import table

Array = NDArray[np.float64]

#: Largest RMSE to the template, nats, and smallest prominence of a valley, of its depth.
_CLOSE, _PROMINENT = 0.25, 0.5
#: Trainings that a verdict needs.
_FEWEST = 3


def template_of(record: Record) -> tuple[Array, Array]:
    """Return the points of the template of a curve: α and loss, shape (K,) each."""
    alphas, losses = np.array(record.metrics["template"], dtype=float).T
    return alphas, losses


def num_valleys(record: Record) -> int | None:
    """Return the number of valleys of a template of equal ones; ``None`` of another template."""
    losses = template_of(record)[1].tolist()
    lowest = losses.count(min(losses))
    return lowest if lowest > 1 else None


def prominent_valleys(curve: Curve, template: tuple[Array, Array]) -> int:
    """Count the valleys that are as prominent as half the depth of those of the template."""
    depth = float(template[1].max() - template[1].min())
    # The template begins in a valley, and asks for no barrier on its left.
    from_there = curve.loss[curve.alphas >= template[0][0] - 1e-9].numpy()
    upside_down = np.concatenate([[-np.inf], -from_there])
    return len(find_peaks(upside_down, prominence=_PROMINENT * depth)[0])


def rows(records: Sequence[Record]) -> pd.DataFrame:
    """List every curve: network, template, distance from it and success."""
    found = []
    for record in records:
        (curve,) = record.curves
        held_out = replace(curve, loss=torch.tensor(record.arrays["loss_test"][0]))
        valleys, distance = num_valleys(record), rmse(curve, record.metrics["template"])
        reached = prominent_valleys(curve, template_of(record))
        found.append(
            {
                "hidden": "-".join(map(str, record.config["model"]["hidden"])),
                "layers": len(record.config["model"]["hidden"]),
                "parameters": record.metrics["num_parameters"],
                "epochs": record.config["direction"]["descent"]["epochs"],
                "seed": record.seed,
                "template": "random" if valleys is None else f"{valleys} valleys",
                "valleys": valleys,
                "reached": reached,
                "rmse": distance,
                "rmse_held_out": rmse(held_out, record.metrics["template"]),
                "success": valleys is not None and reached >= valleys and distance < _CLOSE,
            }
        )
    order = ["epochs", "parameters", "layers", "seed", "valleys"]
    return pd.DataFrame(found).sort_values(order, ignore_index=True)


def largest(curves: pd.DataFrame) -> pd.DataFrame:
    """Give the most valleys that each network reaches, 0 if not even the fewest."""
    of_valleys = curves[curves.valleys.notna()]
    reached = (of_valleys.valleys * of_valleys.success).astype(int)
    keys = ["epochs", "size", "layers", "seed"]
    return of_valleys.assign(most=reached, size=size_of(of_valleys)).groupby(keys).most.max()


def size_of(curves: pd.DataFrame) -> pd.Series:
    """Name networks of about as many parameters by these, rounded to thousands."""
    return (curves.parameters / 1000).round().astype(int)


def answer(curves: pd.DataFrame) -> pd.DataFrame:
    """Judge by ``criteria.md`` whether the most valleys rise with depth at equal size."""
    found: list[dict[str, Any]] = []
    for (epochs, size), group in largest(curves).groupby(["epochs", "size"]):
        by_depth = group.unstack("layers").dropna()
        # In no step down, and in the whole up.
        rises = (by_depth.diff(axis=1).iloc[:, 1:] >= 0).all(axis=1)
        rises &= by_depth.iloc[:, -1] > by_depth.iloc[:, 0]
        word = "not decided"
        if len(rises) >= _FEWEST and rises.nunique() == 1:
            word = "holds" if rises.iloc[0] else "fails"
        most = {f"{depth} hidden": ", ".join(map(str, by_depth[depth])) for depth in by_depth}
        found.append(
            {"epochs": epochs, "thousand parameters": size, **most, "n": len(rises), "depth": word}
        )
    return pd.DataFrame(found)


def picture(records: Sequence[Record], curves: pd.DataFrame) -> Figure:
    """Draw one curve a depth, and below the most valleys and the distances from templates."""
    drawn = Figure(figsize=(11, 6.2), layout="constrained")
    above, below = drawn.subfigures(2, 1, height_ratios=(1, 1.1))
    shown = examples(records)
    for axes, record in zip(
        above.subplots(1, len(shown), sharey=True, squeeze=False)[0], shown, strict=True
    ):
        _draw_curve(axes, record)
    above.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8)
    left, right = below.subplots(1, 2)
    _draw_largest(left, curves)
    _draw_distances(right, curves)
    return drawn


def examples(records: Sequence[Record]) -> list[Record]:
    """Choose one curve for each depth: of the smallest networks, with most valleys of template."""
    chosen: dict[int, Record] = {}
    for record in records:
        layers = len(record.config["model"]["hidden"])
        other = chosen.get(layers)
        if num_valleys(record) and (other is None or _rank(record) > _rank(other)):
            chosen[layers] = record
    return [chosen[layers] for layers in sorted(chosen)]


def _rank(record: Record) -> tuple[float, ...]:
    epochs = record.config["direction"]["descent"]["epochs"]
    # Of six valleys, which some networks reach and others do not.
    away = abs((num_valleys(record) or 0) - 6)
    return (-record.metrics["num_parameters"], -away, epochs, -record.seed)


def _draw_curve(axes: Axes, record: Record) -> None:
    alphas, template = record.curves[0].alphas, template_of(record)
    axes.plot(*template, color="0.7", linewidth=3, label="template")
    axes.plot(alphas, record.arrays["loss"][0], label="mined, training images")
    axes.plot(alphas, record.arrays["loss_test"][0], linewidth=1, ls=":", label="held-out images")
    axes.plot(0, template[1].min(), "k.", label="_theta")
    top = float(template[1].max())
    axes.set_ylim(-0.05 * top, 1.6 * top)
    hidden, size = record.config["model"]["hidden"], record.metrics["num_parameters"]
    axes.set_title(f"hidden layers {'-'.join(map(str, hidden))}\n{size:,} parameters", fontsize=9)
    axes.set_xlabel("α (θ at 0)", fontsize=8)
    axes.set_ylabel("loss (nats)", fontsize=8)
    axes.label_outer()


def _draw_largest(axes: Axes, curves: pd.DataFrame) -> None:
    for number, ((epochs, size), group) in enumerate(
        largest(curves).groupby(["epochs", "size"], sort=False)
    ):
        by_depth = group.groupby("layers").mean()
        label = f"about {size},000 parameters, {epochs} epochs"
        (line,) = axes.plot(by_depth.index, by_depth, label=label)
        layers = group.index.get_level_values("layers") + 0.08 * (number - 1)  # not on one another
        axes.plot(layers, group, ".", color=line.get_color(), alpha=0.6)
    axes.set_xticks(sorted(curves.layers.unique()))
    axes.set_xlabel("hidden layers")
    axes.set_ylabel("most valleys reached")
    axes.set_title("mean over trainings (line), each training (dots)", fontsize=9)
    axes.legend(fontsize=7)


def _draw_distances(axes: Axes, curves: pd.DataFrame) -> None:
    names = list(dict.fromkeys(curves.sort_values("valleys").template))
    for (layers, size), group in curves.assign(size=size_of(curves)).groupby(["layers", "size"]):
        if size != size_of(curves).min():
            continue
        mean = group.groupby("template")[["rmse", "rmse_held_out"]].mean().reindex(names)
        (line,) = axes.plot(names, mean.rmse, marker="o", label=f"hidden layers: {layers}")
        axes.plot(names, mean.rmse_held_out, ":", color=line.get_color())
    axes.axhline(_CLOSE, color="0.5", linewidth=0.8)
    axes.set_ylabel("RMSE to the template (nats)")
    axes.set_title("smaller networks; dotted: held-out images; grey: limit of success", fontsize=9)
    axes.legend(fontsize=7)


def draw(experiment: str, overrides: Sequence[str]) -> Drawing:
    """Draw the mined curves, and answer the question.

    Args:
        experiment: ``xu2024/multipoint`` or ``xu2024/multipoint_middle``.
        overrides: What it was run with besides; with any, finished runs are drawn, and otherwise
            the kept records where there are any.
    """
    records = kept_or_finished(experiment, overrides)
    curves = rows(records)
    return Drawing(picture(records, curves), table(answer(curves).to_dict("records")), curves)
