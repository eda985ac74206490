"""Table 1 of Gabdullin (2024): which landscapes explode."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.records import experiment_runs
from analysis.scripts import Drawing
from mining.evaluation.storage import load_surface
from mining.pipelines.building import has_batch_norm
from mining.pipelines.targets import Target
from mining.plotting import table

_NORMALIZATIONS = ("none", "weight", "filter L1", "filter L2")
#: What a surface is one of, of several seeds.
_CELL = ["network", "mode", "axes", "normalization", "reach"]
_ABOUT = (
    "Colour: log10 of the largest loss of a surface over the chance-level loss log C, brightest if "
    "one is not finite; of several seeds the median.\n"
    "Text: the distance from θ, in units of the directions, from which losses exceed 10 log C,\n"
    "and the first module whose outputs are then ten times as large as at θ, if one is. "
    "No text: no loss exceeds it."
)


def draw(experiment: str, overrides: Sequence[str]) -> Drawing:
    """Draw the table from the runs of an experiment, with a row for every surface as numbers.

    Args:
        experiment: Its name, ``gabdullin2024/table1``.
        overrides: What it was run with besides.
    """
    runs = [_row(run) for run in experiment_runs(experiment, overrides).itertuples()]
    rows = pd.DataFrame(runs).drop_duplicates([*_CELL, "seed"])
    found = cells(rows)
    return Drawing(_picture(found), f"{_pivot(found)}\n\n{_summary(rows)}", rows)


def _row(run: Any) -> dict[str, Any]:
    """Say of one surface whether it explodes, where, and in which module."""
    surface = load_surface(Path(run.directory) / "surface.npz")
    explosion, config = run.metrics["explosion"], run.config
    norm, order = config["normalization"]["name"], config["normalization"]["order"]
    finite = surface.loss[surface.loss.isfinite()]
    uses_statistics = has_batch_norm(Target.read("model", config["model"]))
    overflow = explosion["overflow"] or {}
    chance = surface.chance_loss
    return {
        "network": f"{run.model}-{run.data}",
        "seed": config["seed"],
        "mode": config["batchnorm"]["mode"] if uses_statistics else "no batch norm",
        "axes": "Hessian" if surface.names[0].startswith("P.E.") else "random",
        "normalization": f"{norm} L{order}" if norm == "filter" else norm,
        "reach": float(config["grid"]["high"]),
        "exploded": explosion["start"] is not None,
        "start": explosion["start"],
        "module": overflow.get("module"),
        "loss_at_theta": run.metrics["loss_at_theta"],
        "largest_loss": float(finite.max()) if len(finite) else np.nan,
        "nonfinite": run.metrics["nonfinite"],
        "chance_loss": chance,
        "examples": run.metrics["num_examples"],
    }


def cells(rows: pd.DataFrame) -> pd.DataFrame:
    """Put the seeds of each cell of the table together."""
    ratios = rows["largest_loss"] / rows["chance_loss"]
    known = rows.assign(
        log_ratio=np.log10(ratios.clip(lower=1e-3)).where(rows["nonfinite"] == 0, np.inf)
    )
    return known.groupby(_CELL, sort=False, as_index=False).agg(
        seeds=("exploded", "size"),
        exploded=("exploded", "sum"),
        least=("start", "min"),
        most=("start", "max"),
        module=("module", _most_frequent),
        log_ratio=("log_ratio", "median"),
    )


def _most_frequent(modules: pd.Series) -> str:
    """Name the module that most seeds have; none if none have one."""
    counts = modules.value_counts()
    return "" if counts.empty else str(counts.index[0])


def describe(row: Any) -> str:
    """Say how many seeds explode, if there are several, and from where."""
    start = f"from {row.least:.3g}" if row.exploded else "no"
    if row.exploded and row.most > row.least:
        start += f" to {row.most:.3g}"
    return start if row.seeds == 1 else f"{row.exploded} of {row.seeds}: {start}"


def _pivot(rows: pd.DataFrame) -> str:
    """Arrange the cells as the paper does: normalizations side by side."""
    lines = []
    for key, group in rows.groupby(["network", "mode", "axes", "reach"], sort=False):
        about = dict(zip(("network", "batch norm", "axes", "reach"), key, strict=True))
        texts = {row.normalization: describe(row) for row in group.itertuples()}
        lines.append(about | {name: texts.get(name, "") for name in _NORMALIZATIONS})
    return table(lines)


def _summary(rows: pd.DataFrame) -> str:
    """Count exploded surfaces of all seeds under each batch-norm mode."""
    counts = rows.groupby(["network", "mode", "reach"], sort=False)["exploded"].agg(
        ["sum", "count"]
    )
    return table(
        counts.reset_index().rename(columns={"sum": "exploded", "count": "of"}).to_dict("records")
    )


def _picture(rows: pd.DataFrame) -> Figure:
    """Draw a coloured field for each cell."""
    names = list(dict.fromkeys(zip(rows["network"], rows["mode"], rows["axes"], strict=True)))
    columns = [(reach, norm) for reach in sorted(set(rows["reach"])) for norm in _NORMALIZATIONS]
    values = np.full((len(names), len(columns)), np.nan)
    texts: dict[tuple[int, int], str] = {}
    for row in rows.itertuples():
        place = (
            names.index((row.network, row.mode, row.axes)),
            columns.index((row.reach, row.normalization)),
        )
        values[place] = row.log_ratio
        if row.exploded:
            found = describe(row).replace("from ", "").replace(": ", "\n")
            texts[place] = f"{found}\n{row.module}".strip()
    known = values[np.isfinite(values)]
    top = max(3.0, float(known.max()) if known.size else 0.0)
    values = np.where(np.isposinf(values), top, values)
    picture = Figure(figsize=(11, 1.6 + 0.5 * len(names)), layout="constrained")
    axes = picture.add_subplot()
    shown = axes.imshow(values, cmap="viridis", aspect="auto", vmin=-1, vmax=top)
    for (line, column), text in texts.items():
        bright = values[line, column] > 0.6 * top
        axes.text(
            column,
            line,
            text,
            ha="center",
            va="center",
            fontsize=6,
            color="black" if bright else "white",
        )
    labels = [f"{norm}\n±{reach:g}" for reach, norm in columns]
    axes.set_xticks(range(len(columns)), labels, fontsize=7)
    axes.set_yticks(range(len(names)), [f"{n}, {m}, {a} axes" for n, m, a in names], fontsize=7)
    scale = picture.colorbar(shown, ax=axes)
    scale.set_label("log10 (largest loss / log C)", fontsize=8)
    scale.ax.tick_params(labelsize=7)
    axes.set_xlabel(_ABOUT, fontsize=7)
    return picture
