"""Fig. 3 of Alabdulkareem (2022): convergence of power iteration."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.records import epoch_of, experiment_runs
from analysis.scripts import Drawing
from mining.plotting import explain, table
from mining.storage.files import read_arrays

#: Relative error from which on a value counts as converged.
_CLOSE = 0.05


def draw(experiment: str, overrides: Sequence[str]) -> Drawing:
    """Draw the values of every iteration relative to the eigenvalue, a colour for each epoch."""
    runs = list(experiment_runs(experiment, overrides).itertuples())
    picture = Figure(figsize=(9, 4), layout="constrained")
    quotients, errors = picture.subplots(1, 2)
    rows, numbers = [], []
    for place, run in enumerate(runs):
        arrays = read_arrays(Path(run.directory) / "power_iteration.npz")
        leading = float(arrays["eigenvalues"][0])
        if leading == 0:
            continue
        relative = arrays["values"] / leading
        places = np.arange(1, relative.shape[1] + 1)
        ratio, epoch = run.metrics["ratio"], epoch_of(run.config)
        color, known = f"C{place}", f"E={epoch}, |λ₂/λ₁| = {ratio:.2f}"
        quotients.plot(places, relative.T, color=color, alpha=0.4)
        errors.plot(places, np.median(np.abs(relative - 1), 0), color=color, label=known)
        errors.plot(places, ratio ** (2 * (places - 1)), "--", color=color, linewidth=0.8)
        last = np.abs(relative[:, -1] - 1)
        rows.append(
            {
                "E": epoch,
                "seed": run.config["seed"],
                "λ₁": leading,
                "λ₂": float(arrays["eigenvalues"][1]),
                "|λ₂/λ₁|": ratio,
                "starts": len(relative),
                "median error after the last": float(np.median(last)),
                "largest": float(last.max()),
                "share within 5 %": float((last < _CLOSE).mean()),
            }
        )
        numbers += [
            {"E": epoch, "start": start, "iteration": k + 1, "relative": float(value)}
            for start, line in enumerate(relative)
            for k, value in enumerate(line)
        ]
    errors.set_yscale("log")
    quotients.set_title("value relative to the eigenvalue by Lanczos", fontsize=8)
    errors.set_title("median relative error; dashed: |λ₂/λ₁| to the power 2k", fontsize=8)
    for axes in (quotients, errors):
        axes.set_xlabel("iteration", fontsize=8)
    explain(picture, [errors], "A line for each random vector. E: epoch of θ.")
    return Drawing(picture, table(rows), pd.DataFrame(numbers))
