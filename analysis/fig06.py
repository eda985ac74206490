"""Xu et al. (2024), Fig. 6: descent along the gradient and along the best of 100 Gaussians.

python -m mining experiment=paper/fig06 && python -m analysis.fig06
"""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis.records import find_runs, parser, point_name, run_script
from mining.curves import Curve, load_curves
from mining.plotting import save_figure, table

_SCALES = (0.01, 0.1, 1.0)
_STRETCH = 10  # the Gaussian's axis against the gradient's


def curves_of(runs: pd.DataFrame, source: str, scale: float) -> list[Curve]:
    """Read the curves of the runs along one source over [-scale, scale]."""
    return [
        load_curves(Path(run.directory) / "curves.npz")[0]
        for run in runs.itertuples()
        if run.config["direction"]["_target_"].endswith(source)
        and run.config["grid"]["high"] == scale
    ]


def draw_panel(axes: Axes, gradient: Curve, gaussian: Curve) -> dict[str, Any]:
    """Draw both and return by how much each descends."""
    axes.plot(gradient.alphas, gradient.loss, label="negative gradient")
    axes.plot(
        gaussian.alphas / _STRETCH,
        gaussian.loss,
        label=f"best Gaussian, {gaussian.info['angle']:.2f}°, α × {_STRETCH}",
    )
    axes.axvline(0, color="black", linestyle=":", linewidth=1)
    axes.legend(fontsize=7)
    axes.set_xlabel("α, in lengths of the gradient", fontsize=8)
    axes.set_ylabel("training loss (nats)", fontsize=8)
    return {
        "loss at θ": gradient.loss[gradient.origin].item(),
        "drop along the gradient": (gradient.loss[gradient.origin] - gradient.loss.min()).item(),
        "drop along the best Gaussian": (
            gaussian.loss[gaussian.origin] - gaussian.loss.min()
        ).item(),
        "angle": gaussian.info["angle"],
    }


def main() -> None:
    """Print how far each descends, and draw a row per checkpoint."""
    options = parser(__doc__.split("\n")[0], "outputs/fig06.png").parse_args()
    command = "python -m mining experiment=paper/fig06"
    runs = find_runs(options.outputs, command, pipeline="curve")
    points = {}
    for run in runs.itertuples():
        if run.config["direction"]["_target_"].endswith("MostOverlapping"):
            points[f"{run.model}-{run.data}, {point_name(run.config)}"] = run.config
    if not points:
        raise FileNotFoundError(f"No finished run in {options.outputs}. Make it: {command}")
    picture = Figure(figsize=(10, 3.0 * len(points)), layout="constrained")
    rows = []
    for line, (name, config) in enumerate(sorted(points.items())):
        here = runs[[_same_point(run.config, config) for run in runs.itertuples()]]
        for column, scale in enumerate(_SCALES):
            gradient = curves_of(here, ".Gradient", scale)
            gaussian = curves_of(here, ".MostOverlapping", scale * _STRETCH)
            if not gradient or not gaussian:
                raise FileNotFoundError(f"{name}: no run at s = {scale}. Make it: {command}")
            axes = picture.add_subplot(len(points), 3, 3 * line + column + 1)
            drops = draw_panel(axes, gradient[0], gaussian[0])
            axes.set_title(f"{name}, s = {scale}", fontsize=9)
            rows.append({"point": name, "s": scale, **drops})
    print(table(rows))
    save_figure(picture, options.picture, dpi=options.dpi)
    print(options.picture)


def _same_point(a: dict[str, Any], b: dict[str, Any]) -> bool:
    keys = ("model", "data", "checkpoint", "epoch", "train", "seed", "split", "batchnorm")
    return all(a[key] == b[key] for key in keys)


if __name__ == "__main__":
    run_script(main)
