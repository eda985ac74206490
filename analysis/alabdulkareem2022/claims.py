"""The conjectures of Alabdulkareem (2022), with the criteria of ``criteria.md``."""

from collections.abc import Callable, Sequence
from functools import partial
from statistics import mean
from typing import Literal

import numpy as np
import pandas as pd

from analysis.alabdulkareem2022.drops import coincide, find_drop, find_plateau, shuffled_share
from analysis.alabdulkareem2022.regressions import (
    COVARIATES,
    MODELS,
    Regression,
    regress,
    with_covariates,
)
from analysis.alabdulkareem2022.series import RECIPE, changes, epochs_of
from analysis.archive import Record
from analysis.findings import Claim, Criterion
from analysis.verdicts import Bound

#: Chooses an epoch of a training, given its rows; ``None`` if there is none.
Moment = Callable[[pd.DataFrame], float | None]
#: Training loss, nats, at which trainings are compared that are equally far.
_LOSS = 1.5


def at_first_epoch(rows: pd.DataFrame) -> float | None:
    """Return λmax after the first epoch."""
    found = rows.loc[rows["epoch"] == 1, "lambda_max"]
    return None if found.empty else float(found.iloc[0])


def at_last_epochs(rows: pd.DataFrame) -> float | None:
    """Average λmax over the last fifth of the epochs."""
    return float(rows["lambda_max"].tail(max(1, len(rows) // 5)).mean())


def at_equal_loss(rows: pd.DataFrame) -> float | None:
    """Return λmax after the first epoch whose mean training loss is below 1.5 nats."""
    found = rows.loc[rows["train_loss"] < _LOSS, "lambda_max"]
    return None if found.empty else float(found.iloc[0])


def ratio(
    records: Sequence[Record],
    key: Literal["lr", "batch_size"],
    values: tuple[float, float],
    moment: Moment,
) -> float | None:
    """Average log10 of λmax at the second value over that at the first; SGD, else equal recipes."""
    epochs = epochs_of(records)
    sgd = epochs[epochs["optimizer"] == "sgd"]
    others = [name for name in RECIPE if name != key]
    found = []
    for _, group in sgd.groupby(others):
        both = [group[group[key] == value].sort_values("epoch") for value in values]
        first, second = (None if rows.empty else moment(rows) for rows in both)
        if first and second and min(first, second) > 0:
            found.append(float(np.log10(second / first)))
    return mean(found) if found else None


def fit(records: Sequence[Record], model: str, covariates: Sequence[str] = ()) -> Regression | None:
    """Fit a column of Table 1 to the trainings of a seed.

    Returns:
        ``None`` if there are too few changes, or the accuracy or λmax does not change.
    """
    explained, by = MODELS[model]
    table = with_covariates(changes(epochs_of(records)))
    names = [*by, *covariates]
    constant = min(table[explained].nunique(), table["lambda_max"].nunique()) < 2
    return None if constant or len(table) <= len(names) + 1 else regress(table, explained, names)


def slope(records: Sequence[Record], model: str, covariates: Sequence[str] = ()) -> float | None:
    """Return the coefficient of λmax, percentage points per unit."""
    found = fit(records, model, covariates)
    return None if found is None else found.terms["lambda_max"].coefficient


def excess_slope(records: Sequence[Record]) -> float | None:
    """Subtract the coefficient in distribution from that out of it, the validation known."""
    inside = slope(records, "in distribution, λmax and validation")
    outside = slope(records, "out of distribution, λmax and validation")
    return None if inside is None or outside is None else outside - inside


def places(records: Sequence[Record]) -> list[tuple[np.ndarray, int, int]]:
    """List trace, drop and plateau of the trainings that have a sharp drop and a plateau."""
    found = []
    for _, rows in epochs_of(records).groupby("run"):
        ordered = rows.sort_values("epoch")
        trace = ordered["trace"].to_numpy()
        drop, plateau = find_drop(trace), find_plateau(ordered["validation"].to_numpy())
        if drop is not None and drop.sharp and plateau is not None:
            found.append((trace, drop.place, plateau))
    return found


def dropping(records: Sequence[Record]) -> float | None:
    """Return the share of trainings with a sharp drop of the trace."""
    epochs = epochs_of(records)
    drops = [
        find_drop(rows.sort_values("epoch")["trace"].to_numpy())
        for _, rows in epochs.groupby("run")
    ]
    return mean(float(drop is not None and drop.sharp) for drop in drops)


def beyond_shuffled(records: Sequence[Record]) -> float | None:
    """Subtract from the share of drops at the plateau that of traces in random order."""
    generator = np.random.default_rng(0)
    found = [
        coincide(drop, plateau, len(trace)) - shuffled_share(trace, plateau, generator=generator)
        for trace, drop, plateau in places(records)
    ]
    return mean(found) if found else None


def beyond_others(records: Sequence[Record]) -> float | None:
    """Subtract from the share of drops at the own plateau that at those of other trainings."""
    found = places(records)
    if len(found) < 2:
        return None
    own = mean(float(coincide(drop, plateau, len(trace))) for trace, drop, plateau in found)
    others = mean(
        float(coincide(drop, plateau, len(trace)))
        for i, (trace, drop, _) in enumerate(found)
        for j, (_, _, plateau) in enumerate(found)
        if i != j
    )
    return own - others


_FIGURE = "sweep"
_BELOW, _ABOVE = Bound(high=0.0), Bound(low=0.0)
_RATES, _SIZES = (0.01, 0.05), (32, 64)
_MOMENTS: tuple[tuple[str, Moment], ...] = (
    ("after the first epoch", at_first_epoch),
    ("at a training loss of 1.5", at_equal_loss),
    ("over the last fifth", at_last_epochs),
)
_OUTSIDE = "out of distribution, λmax"

CLAIMS = (
    Claim(
        "alabdulkareem2022",
        1,
        "Hyperparameters explore regions of different curvature, also early in training.",
        (
            *(
                Criterion(
                    "1a", f"log10 of λmax at η = 0.05 over that at 0.01, {when}", "ours", _FIGURE,
                    _BELOW, partial(ratio, key="lr", values=_RATES, moment=moment),
                )
                for when, moment in _MOMENTS
            ),
            *(
                Criterion(
                    "1b", f"log10 of λmax with batches of 64 over that with 32, {when}", "ours",
                    _FIGURE, _ABOVE,
                    partial(ratio, key="batch_size", values=_SIZES, moment=moment),
                )
                for when, moment in _MOMENTS
            ),
        ),
    ),
    Claim(
        "alabdulkareem2022",
        2,
        "λmax tells of the accuracy out of distribution what the validation accuracy does not.",
        (
            Criterion(
                "2a", "coefficient of Δλmax for the accuracy under noise", "paper", _FIGURE, _BELOW,
                partial(slope, model=_OUTSIDE),
            ),
            Criterion(
                "2b", "coefficient of Δλmax under noise, the validation accuracy known", "paper",
                _FIGURE, _BELOW, partial(slope, model=f"{_OUTSIDE} and validation"),
            ),
            Criterion(
                "2c", "coefficient of 2b, the learning rate and the optimizer known too", "ours",
                _FIGURE, _BELOW,
                partial(slope, model=f"{_OUTSIDE} and validation", covariates=COVARIATES),
            ),
            Criterion(
                "2d", "coefficient of 2b less that for the accuracy without noise", "ours", _FIGURE,
                _BELOW, excess_slope,
            ),
        ),
    ),
    Claim(
        "alabdulkareem2022",
        3,
        "The sudden drop of the trace marks the end of learning.",
        (
            Criterion(
                "3a", "share of trainings with a sharp drop of the trace", "ours", _FIGURE,
                Bound(low=0.5), dropping,
            ),
            Criterion(
                "3b", "share of drops at the plateau, less that of traces in random order", "ours",
                _FIGURE, _ABOVE, beyond_shuffled,
            ),
            Criterion(
                "3c", "share of drops at the plateau, less that at plateaus of other trainings",
                "ours", _FIGURE, _ABOVE, beyond_others,
            ),
        ),
    ),
)  # fmt: skip
