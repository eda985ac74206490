"""The claims of Gabdullin (2024) and their criteria; ``analysis/criteria.md`` quotes the paper."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from statistics import mean

from scipy.stats import spearmanr

from analysis.archive import Record
from analysis.findings import Claim, Criterion
from analysis.verdicts import Bound
from mining.storage.identity import data_name

#: The number of a run that is compared with its accuracy; ``None`` if it has none.
Predictor = Callable[[Record], float | None]


def criterion_of(record: Record, name: str) -> float | None:
    """Return a criterion of the spectrum of a run."""
    value = record.metrics[name]["value"]
    return None if value is None else float(value)


def largest(record: Record) -> float:
    """Return the largest eigenvalue."""
    return float(record.metrics["eigenvalues_largest"][0])


def trace(record: Record) -> float:
    """Return the trace, estimated from the density."""
    return float(record.metrics["density_trace"]["mean"])


def loss(record: Record) -> float:
    """Return the loss on the evaluated images."""
    return float(record.metrics["loss_at_theta"])


def at_home(record: Record) -> bool:
    """Whether a run evaluated images of the data set of its training, as they are."""
    config = record.config
    other = config.get("data_shifted")
    elsewhere = other is not None and data_name(other) != data_name(config["data"])
    return config.get("shift") is None and not elsewhere


def rise(records: Sequence[Record], name: str) -> float | None:
    """Average log10 of a criterion on other images over that on the images of the training set."""
    home = [criterion_of(r, name) for r in records if at_home(r)]
    others = [criterion_of(r, name) for r in records if not at_home(r)]
    if len(home) != 1 or not others or not all((*home, *others)):
        return None
    return mean(math.log10(value / home[0]) for value in others if value and home[0])


def correlation(records: Sequence[Record], predictor: Predictor) -> float | None:
    """Correlate the ranks of a predictor and of the accuracy over all versions of the images."""
    values = [predictor(record) for record in records]
    if len(records) < 5 or None in values:
        return None
    accuracies = [record.metrics["accuracy_at_theta"] for record in records]
    return float(spearmanr(values, accuracies).statistic)


def advantage(records: Sequence[Record], ours: Predictor, other: Predictor) -> float | None:
    """Subtract the correlation of another predictor; below 0, ours falls more with accuracy."""
    first, second = correlation(records, ours), correlation(records, other)
    return None if first is None or second is None else first - second


_FIGURE, _PAIR = "generalization", "generalization_cinic10"
_LOWER, _HIGHER = Bound(high=0.0), Bound(low=0.0)
_FORMS = (("paper", "k_h05_printed"), ("ours", "k_h05"))
_SIMPLE: tuple[tuple[str, Predictor], ...] = (("λmax", largest), ("trace", trace), ("loss", loss))

CLAIMS = (
    Claim(
        "gabdullin2024",
        1,
        "K_H05 rises on images that a network generalizes to poorly.",
        (
            *(
                Criterion(
                    "1a", "mean log10 of K_H05 on shifted images over that at home", by, _FIGURE,
                    _HIGHER, partial(rise, name=name),
                )
                for by, name in _FORMS
            ),
            *(
                Criterion(
                    "1b", "rank correlation of K_H05 with accuracy", by, _FIGURE, _LOWER,
                    partial(correlation, predictor=partial(criterion_of, name=name)),
                )
                for by, name in _FORMS
            ),
            *(
                Criterion(
                    "1c", "rank correlation of K_H1 with accuracy", by, _FIGURE, _HIGHER,
                    partial(correlation, predictor=partial(criterion_of, name=name)),
                )
                for by, name in (("paper", "k_h1_printed"), ("ours", "k_h1"))
            ),
            Criterion(
                "1d", "rank correlation of r_e with accuracy", "ours", _FIGURE, _HIGHER,
                partial(correlation, predictor=partial(criterion_of, name="r_e")),
            ),
            *(
                Criterion(
                    "1e", f"rank correlation of K_H05 with accuracy less that of {other}", by,
                    _FIGURE, _LOWER,
                    partial(advantage, ours=partial(criterion_of, name=name), other=predictor),
                )
                for by, name in _FORMS
                for other, predictor in _SIMPLE
            ),
        ),
    ),
    Claim(
        "gabdullin2024",
        2,
        "K_H05 rises from CIFAR-10 to CINIC-10, and r_e falls.",
        (
            *(
                Criterion(
                    "2a", "log10 of K_H05 on CINIC-10 over that on CIFAR-10", by, _PAIR, _HIGHER,
                    partial(rise, name=name),
                )
                for by, name in _FORMS
            ),
            Criterion(
                "2b", "log10 of r_e on CINIC-10 over that on CIFAR-10", "paper", _PAIR, _LOWER,
                partial(rise, name="r_e"),
            ),
        ),
    ),
)  # fmt: skip
