"""Table 1 and Fig. 5 of Alabdulkareem (2022): regressions on changes per epoch."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from analysis.alabdulkareem2022.curvatures import read
from analysis.alabdulkareem2022.regressions import COVARIATES, MODELS, regress, with_covariates
from analysis.alabdulkareem2022.series import changes
from analysis.scripts import Drawing
from mining.plotting import explain, table

_NAMES = {
    "const": "constant",
    "lambda_max": "Δλmax",
    "validation": "Δ validation accuracy",
    "log10_lr": "log10 η",
    "adam": "Adam",
}


def fits(found: pd.DataFrame) -> pd.DataFrame:
    """Fit the four models, without and with the covariates; a row per coefficient."""
    rows = []
    for covariates in ((), COVARIATES):
        for name, (explained, by) in MODELS.items():
            fitted = regress(found, explained, [*by, *covariates])
            for term, value in fitted.terms.items():
                rows.append(
                    {
                        "model": name,
                        "covariates": bool(covariates),
                        "term": _NAMES[term],
                        "coefficient": value.coefficient,
                        "standard error": value.standard_error,
                        "p": value.p,
                        "clustered error": value.clustered_error,
                        "clustered p": value.clustered_p,
                        "F": fitted.f,
                        "AIC": fitted.aic,
                        "N": fitted.n,
                        "trainings": fitted.clusters,
                    }
                )
    return pd.DataFrame(rows)


def draw_table(_: str, overrides: Sequence[str]) -> Drawing:
    """Draw the coefficients of Δλmax with both standard errors, and print the whole table."""
    rows = fits(with_covariates(changes(read(overrides))))
    picture = Figure(figsize=(8, 3.6), layout="constrained")
    axes = picture.add_subplot()
    chosen = rows[rows["term"] == "Δλmax"].reset_index(drop=True)
    for shift, column, label in (
        (-0.1, "standard error", "plain"), (0.1, "clustered error", "clustered by training")
    ):  # fmt: skip
        bars = 2 * chosen[column].fillna(0)
        axes.errorbar(
            chosen["coefficient"], chosen.index + shift, xerr=bars, fmt="o", capsize=2, label=label
        )
    axes.axvline(0, color="0.5", linewidth=0.8)
    names = [
        row["model"] + (", covariates" if row["covariates"] else "") for _, row in chosen.iterrows()
    ]
    axes.set_yticks(chosen.index, names, fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("percentage points per unit of λmax", fontsize=8)
    explain(picture, [axes], "Bars: two standard errors. Covariates: learning rate and optimizer.")
    return Drawing(picture, table(rows.to_dict("records")), rows)  # type: ignore[arg-type]


def draw_line(_: str, overrides: Sequence[str]) -> Drawing:
    """Draw the change of the accuracy under noise against that of λmax, with the fitted line."""
    found = changes(read(overrides))
    fitted = regress(found, "noisy", ["lambda_max"])
    picture = Figure(figsize=(5.6, 4.4), layout="constrained")
    axes = picture.add_subplot()
    axes.plot(found["lambda_max"], found["noisy"], ".", alpha=0.4, label="epochs")
    ends = np.array([found["lambda_max"].min(), found["lambda_max"].max()])
    slope, constant = (fitted.terms[name].coefficient for name in ("lambda_max", "const"))
    axes.plot(ends, constant + slope * ends, label="least squares")
    axes.set_xlabel("change of λmax in an epoch", fontsize=8)
    axes.set_ylabel("change of the accuracy under noise (points)", fontsize=8)
    explain(picture, [axes], f"Slope {fitted.terms['lambda_max']}: errors plain; by training.")
    return Drawing(picture, f"Δλmax: {fitted.terms['lambda_max']}, N = {fitted.n}", found)
