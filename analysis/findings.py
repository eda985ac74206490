"""Claims of a paper, and what was found of them here."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

#: Reads the finished runs of a figure, ``fig02`` for instance.
Runs = Callable[[str], pd.DataFrame]


@dataclass(frozen=True)
class Finding:
    """What was found of a claim on one network."""

    claim: str  # with the condition under which it was checked
    network: str
    measured: str
    holds: str  # a verdict


@dataclass(frozen=True)
class Claim:
    """What a paper says, and the checks of it."""

    paper: str  # its folder in conf/experiment
    number: int  # within the paper, as in the README
    sentence: str
    figures: tuple[str, ...]  # whose runs decide
    checks: tuple[Callable[[Runs], list[Finding]], ...]


def verdict(cases: Sequence[bool]) -> str:
    """Say in how many cases a claim holds."""
    if not cases:
        return "not measured"
    if all(cases):
        return "yes"
    return f"{sum(cases)} of {len(cases)}" if any(cases) else "no"


def networks(runs: pd.DataFrame) -> list[tuple[str, list[Any]]]:
    """Group runs by network and seed, in their order."""
    grouped: dict[str, list[Any]] = {}
    for run in runs.itertuples():
        name = f"{run.model}-{run.data}"
        if not run.config["model"].get("skip_connections", True):
            name += ", no skip connections"
        if run.seed != 0:
            name += f", seed {run.seed}"
        grouped.setdefault(name, []).append(run)
    return list(grouped.items())


def labels_of(runs: Sequence[Any]) -> list[str]:
    """List the labels of all curves of some runs."""
    return [label for run in runs for label in run.metrics["labels"]]


def count(labels: Sequence[str]) -> str:
    """Count labels: ``4 v-basin, 1 exploded``."""
    found = pd.Series(list(labels)).value_counts()
    return ", ".join(f"{number} {label}" for label, number in found.items())
