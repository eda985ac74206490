"""Xu et al. (2024), Fig. 13: spectral densities and loss changes under Gaussian noise.

python -m mining experiment=paper/fig13 && python -m analysis.fig13
"""

from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from analysis.fig09 import is_hessian
from analysis.records import find_runs, parser, point_name, run_script
from mining.curvature import SpectralDensity
from mining.plotting import draw_density, draw_perturbations, save_figure, table
from mining.records import load_record
from mining.second_order import Perturbations

#: What both runs of a row must have in common, beside model, data, seed and epoch.
_POINT = ("checkpoint", "train", "num_examples", "split", "batchnorm")
_COMMAND = "python -m mining experiment=paper/fig13"


def points(runs: pd.DataFrame) -> list[tuple[str, Any, Any]]:
    """Pair the spectrum and the perturbation run of every θ, in the order of its epochs."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for run in runs.itertuples():
        config = run.config
        epoch = config["train"]["epochs"] if config["epoch"] is None else config["epoch"]
        name = f"{run.model}-{run.data}, {point_name(config)}, seed {run.seed}"
        recipe = str([config[key] for key in _POINT])
        key = (run.model, run.data, run.seed, recipe, epoch, name)
        if run.pipeline == "perturbation" or is_complete(run):
            found.setdefault(key, {})[run.pipeline] = run
    return [
        (key[-1], pair["spectrum"], pair["perturbation"])
        for key, pair in sorted(found.items(), key=lambda item: item[0])
        if len(pair) == 2
    ]


def is_complete(run: Any) -> bool:
    """Whether a spectrum run is of the whole Hessian and has a density."""
    return is_hessian(run.config) and (Path(run.directory) / "density.npz").exists()


def spectrum_row(name: str, metrics: dict[str, Any]) -> dict[str, Any]:
    """Collect what describes a spectrum."""
    largest, smallest = metrics["eigenvalues_largest"], metrics["eigenvalues_smallest"]
    return {
        "point": name,
        "loss": metrics["loss_at_theta"],
        "largest": largest[0] if largest else None,
        "smallest": smallest[0] if smallest else None,
        "trace": metrics["trace"],
        "±": metrics["trace_standard_error"],
        "trace by density": metrics["density_trace"]["mean"],
        "± ": metrics["density_trace"]["standard_error"],
        "not converged": sum(
            not c for end in ("largest", "smallest") for c in metrics[f"converged_{end}"]
        ),
    }


def perturbation_rows(name: str, metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """Collect, for every λ, how the loss changes and what was predicted."""
    columns = {
        "λ": "scales",
        "mean": "mean",
        "predicted mean": "predicted_mean",
        "deviation": "deviation",
        "second order": "second_order_deviation",
        "predicted": "predicted_deviation",
        "as Eq. 4 prints": "printed_deviation",
        "rising": "share_rising",
    }
    return [
        {"point": name, **{column: metrics[key][index] for column, key in columns.items()}}
        for index in range(len(metrics["scales"]))
    ]


def main() -> None:
    """Print spectra and loss changes, and draw a row of both for every θ."""
    options = parser(__doc__.split("\n")[0], "outputs/fig13.png").parse_args()
    runs = find_runs(options.outputs, _COMMAND)
    pairs = points(runs[runs.pipeline.isin(["spectrum", "perturbation"])])
    if not pairs:
        raise FileNotFoundError(
            f"No point in {options.outputs} has both a spectrum and a perturbation run. "
            f"Make them: {_COMMAND}"
        )
    picture = Figure(figsize=(14, 3.4 * len(pairs)), layout="constrained")
    lines = picture.subfigures(len(pairs), squeeze=False)[:, 0]
    changes = []
    for (name, spectrum, perturbation), line in zip(pairs, lines, strict=True):
        left, right = line.subfigures(1, 2, width_ratios=[1, 2])
        axes = left.add_subplot()
        largest = spectrum.metrics["eigenvalues_largest"]
        smallest = spectrum.metrics["eigenvalues_smallest"]
        density = load_record(Path(spectrum.directory) / "density.npz", SpectralDensity)
        draw_density(axes, density, (smallest[0], largest[0]) if smallest else None)
        axes.set_title(f"{name}\n{axes.get_title()}", fontsize=8)
        record = Path(perturbation.directory) / "perturbations.npz"
        draw_perturbations(right, load_record(record, Perturbations), title=name)
        changes += perturbation_rows(name, perturbation.metrics)
    print(table([spectrum_row(name, spectrum.metrics) for name, spectrum, _ in pairs]))
    print(f"\nChange of the loss at θ + λε (nats):\n{table(changes)}")
    save_figure(picture, options.picture, dpi=options.dpi)
    print(options.picture)


if __name__ == "__main__":
    run_script(main)
