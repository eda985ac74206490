"""The claims of Sankar et al. (2021) and their criteria; ``criteria.md`` quotes the paper."""

import math
from collections.abc import Sequence
from functools import partial

import pandas as pd

from analysis.archive import Record
from analysis.findings import Claim, Criterion
from analysis.sankar2021.clusters import mean_silhouette, share_of_classes
from analysis.sankar2021.errors import difference, treatment_of
from analysis.sankar2021.evolution import (
    architecture_of,
    change,
    last_trace,
    middle_nearer,
    share_of_falling_layers,
    without,
)
from analysis.sankar2021.spectra import rows_of
from analysis.verdicts import Bound
from mining.pipelines.layers import WHOLE


def _layers(records: Sequence[Record], operator: str) -> pd.DataFrame:
    """Give the rows of the layers of one training."""
    rows = rows_of(records)
    return rows[(rows["operator"] == operator) & (rows["layer"] != WHOLE)]


def share_with_outliers(records: Sequence[Record], operator: str) -> float | None:
    """Count the layers with C or C - 1 outliers, as a share of those with more than 2 C + 2."""
    rows = _layers(records, operator)
    rows = rows[rows["size"] > 2 * rows["classes"] + 2]
    if rows.empty:
        return None
    return float(((rows["classes"] - rows["outliers"]).isin([0, 1])).mean())


def middle_against_others(records: Sequence[Record], column: str) -> float | None:
    """Average log10 of a distance over the middle half of the layers, less that of the others."""
    rows = _layers(records, "hessian")
    logarithms = rows[column].map(lambda value: math.log10(value) if value > 0 else math.nan)
    middle = rows["place"].between(0.25, 0.75)
    found = logarithms[middle].mean() - logarithms[~middle].mean()
    return None if math.isnan(found) else float(found)


_MOST, _LOWER = Bound(low=0.5), Bound(high=0.0)

CLAIMS = (
    Claim(
        "sankar2021",
        1,
        "The number of outliers of the spectrum of a layer is the number of classes.",
        tuple(
            Criterion(
                name, f"share of layers with C or C - 1 outliers, {operator}", "ours", "fig01",
                _MOST, partial(share_with_outliers, operator=operator),
            )
            for name, operator in (("1a", "hessian"), ("1b", "gauss_newton"))
        ),
    ),
    Claim(
        "sankar2021",
        2,
        "The spectra of the middle layers are the nearest to that of the network.",
        tuple(
            Criterion(
                name, f"mean log10 of the {about}, middle half of the layers less the others",
                "ours", "fig03", _LOWER, partial(middle_against_others, column=column),
            )
            for name, about, column in (
                ("2a", "normalized Wasserstein distance", "normalized_wasserstein"),
                ("2b", "Jensen-Shannon divergence", "jensen_shannon"),
            )
        ),
    ),
    Claim(
        "sankar2021",
        3,
        "The penalty on the trace lowers the test error.",
        (
            Criterion(
                "3a", "test error with the penalty less that without, points", "paper", "table1",
                _LOWER, partial(difference, ours="all layers", other="none"),
            ),
            Criterion(
                "3b", "the same beside an L2 penalty", "paper", "table3", _LOWER,
                partial(difference, ours="all layers", other="none"),
            ),
            Criterion(
                "3c", "test error with the penalty on the middle layers less that on all, points",
                "paper", "table2", _LOWER,
                partial(difference, ours="middle layers", other="all layers"),
            ),
        ),
    ),
    Claim(
        "sankar2021",
        4,
        "λmax and the trace of the Hessian fall over the training.",
        tuple(
            Criterion(
                name, f"log10 of {about}, last measurement less the first", "paper", "fig04",
                _LOWER, partial(change, column=column),
            )
            for name, about, column in (("4a", "λmax", "lambda_max"), ("4b", "the trace", "trace"))
        ),
    ),
    Claim(
        "sankar2021",
        5,
        "So does λmax of every layer, and that of the middle layers is the nearest to the "
        "network's.",
        (
            Criterion(
                "5a", "share of layers whose λmax is lower at the last measurement", "ours",
                "fig13", _MOST, share_of_falling_layers,
            ),
            Criterion(
                "5b", "mean |log10(λ_l / λ)|, middle half of the layers less the others", "ours",
                "fig13", _LOWER, middle_nearer,
            ),
        ),
    ),
    Claim(
        "sankar2021",
        6,
        "Batch norm, skip connections and the penalty lower the trace.",
        (
            *(
                Criterion(
                    name, f"log10 of the last trace with {about} less that without", "paper",
                    "fig05", _LOWER,
                    partial(last_trace, ours="complete", other=f"no {about}", treatment=without),
                    architecture_of,
                )
                for name, about in (("6a", "batch norm"), ("6b", "skip connections"))
            ),
            Criterion(
                "6c", "log10 of the last trace with the penalty less that without", "paper",
                "fig07", _LOWER,
                partial(last_trace, ours="all layers", other="none", treatment=treatment_of),
            ),
        ),
    ),
    Claim(
        "sankar2021",
        7,
        "The class means of the Gauss-Newton matrix of every layer form C clusters.",
        (
            Criterion(
                "7a", "silhouette of δ_{c,c'} by class c, mean over the layers", "ours", "fig02",
                _MOST, mean_silhouette,
            ),
            Criterion(
                "7b", "share of the C largest eigenvalues of G that the δ_c explain", "ours",
                "fig02", _MOST, share_of_classes,
            ),
        ),
    ),
)  # fmt: skip
