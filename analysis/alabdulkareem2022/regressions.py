"""The regressions of Table 1: changes of accuracy on those of λmax and validation accuracy."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

#: Columns of Table 1: the accuracy that is explained, and by what.
MODELS = {
    "in distribution, λmax": ("test", ("lambda_max",)),
    "in distribution, λmax and validation": ("test", ("lambda_max", "validation")),
    "out of distribution, λmax": ("noisy", ("lambda_max",)),
    "out of distribution, λmax and validation": ("noisy", ("lambda_max", "validation")),
}
#: Of the recipe: what is constant in a training, and may move λmax and the accuracies alike.
COVARIATES = ("log10_lr", "adam")


@dataclass(frozen=True)
class Term:
    """A coefficient of a regression, with two standard errors."""

    coefficient: float  # percentage points per unit
    standard_error: float  # of independent errors
    p: float
    clustered_error: float  # errors of one training may depend on each other; nan of a single one
    clustered_p: float

    def __str__(self) -> str:
        return f"{self.coefficient:.3g} ({self.standard_error:.2g}; {self.clustered_error:.2g})"


@dataclass(frozen=True)
class Regression:
    """Ordinary least squares with a constant."""

    terms: dict[str, Term]  # by column, ``const`` for the constant
    f: float
    f_p: float
    aic: float
    n: int  # changes
    clusters: int  # trainings


def regress(table: pd.DataFrame, explained: str, by: Sequence[str]) -> Regression:
    """Fit ordinary least squares with statsmodels.

    Args:
        table: A row per change, with the columns named and ``run``, by which errors are clustered.
        explained: The dependent variable.
        by: The independent ones. Those that do not vary are left out.

    Returns:
        Coefficients with standard errors, plain and clustered by training (with the correction for
        few clusters, and Student's t with as many degrees of freedom as trainings less one).

    Raises:
        ModuleNotFoundError: If statsmodels is not installed.
        ValueError: If there are no more rows than coefficients.
    """
    # Needed for this paper only, and not by the judgement of other claims.
    import statsmodels.api as sm

    used = [name for name in by if table[name].nunique() > 1]
    if len(table) <= len(used) + 1:
        raise ValueError(f"A regression on {used} needs more than {len(table)} changes.")
    design = sm.add_constant(table[used].astype(float), has_constant="add")
    model = sm.OLS(table[explained].astype(float), design)
    plain = model.fit()
    clusters = table["run"].nunique()
    groups = pd.factorize(table["run"])[0]
    clustered = (
        model.fit(cov_type="cluster", cov_kwds={"groups": groups}, use_t=True)
        if clusters > 1
        else None
    )
    terms = {
        str(name): Term(
            float(plain.params[name]),
            float(plain.bse[name]),
            float(plain.pvalues[name]),
            np.nan if clustered is None else float(clustered.bse[name]),
            np.nan if clustered is None else float(clustered.pvalues[name]),
        )
        for name in design.columns
    }
    return Regression(
        terms, float(plain.fvalue), float(plain.f_pvalue), float(plain.aic), len(table), clusters
    )


def with_covariates(table: pd.DataFrame) -> pd.DataFrame:
    """Add the covariates of the recipe: log10 of the learning rate, and whether it is Adam's."""
    adam = table["optimizer"].ne("sgd").astype(float)
    return table.assign(log10_lr=np.log10(table["lr"].astype(float)), adam=adam)
