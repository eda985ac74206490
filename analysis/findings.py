"""Claims of papers, the criteria that they are held to, and what was found."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, Literal

from analysis.archive import Record
from analysis.verdicts import Bound, Verdict, decide


@dataclass(frozen=True)
class Criterion:
    """A number per training, and the bound that a claim puts on it; see ``criteria.md``."""

    name: str  # as in criteria.md
    statement: str  # what the number is
    by: Literal["paper", "ours"]
    figure: str  # whose runs decide
    bound: Bound
    #: Of the records of one training; ``None`` if they do not tell.
    quantity: Callable[[Sequence[Record]], float | None]
    #: Names the network of a record: records of one network and seed are compared.
    network: Callable[[Record], str] = attrgetter("network")


@dataclass(frozen=True)
class Claim:
    """What a paper says."""

    paper: str  # its folder in conf/experiment
    number: int
    sentence: str
    criteria: tuple[Criterion, ...]

    @property
    def figures(self) -> tuple[str, ...]:
        """The figures whose runs decide."""
        return tuple(dict.fromkeys(criterion.figure for criterion in self.criteria))


@dataclass(frozen=True)
class Finding:
    """What was found of a criterion on one network."""

    criterion: Criterion
    network: str
    values: dict[int, float]  # by the seed of the training
    verdict: Verdict

    def row(self) -> dict[str, Any]:
        """Return a row of the table of claims."""
        found = self.verdict
        return {
            "criterion": self.criterion.name,
            "by": self.criterion.by,
            "statement": self.criterion.statement,
            "bound": str(self.criterion.bound),
            "figure": self.criterion.figure,
            "network": self.network,
            "n": found.n,
            "mean": found.mean,
            "deviation": found.deviation,
            "low": found.low,
            "high": found.high,
            "verdict": found.word,
            "values": ", ".join(f"{seed}: {value:.4g}" for seed, value in self.values.items()),
        }

    def __str__(self) -> str:
        found = self.verdict
        interval = "" if math.isnan(found.low) else f" [{found.low:.3g}, {found.high:.3g}]"
        return f"{self.network}: {found.mean:.3g}{interval}, n = {found.n}: {found.word}"


def find(criterion: Criterion, records: Sequence[Record]) -> list[Finding]:
    """Judge a criterion on every network by the trainings that tell of it."""
    trainings: dict[str, dict[int, list[Record]]] = {}
    for record in records:
        trainings.setdefault(criterion.network(record), {}).setdefault(record.seed, []).append(
            record
        )
    findings = []
    for network, seeds in sorted(trainings.items()):
        told = {seed: criterion.quantity(found) for seed, found in sorted(seeds.items())}
        values = {seed: value for seed, value in told.items() if value is not None}
        if values:
            verdict = decide(list(values.values()), criterion.bound)
            findings.append(Finding(criterion, network, values, verdict))
    return findings


def page(found: Sequence[tuple[Claim, Sequence[Finding]]]) -> str:
    """Write the findings as a page in Markdown, a table for each claim.

    Args:
        found: Each claim with its findings; criteria without any are listed as not measured.
    """
    parts = [_HEAD]
    paper = ""
    for claim, findings in found:
        if claim.paper != paper:
            paper = claim.paper
            parts.append(f"## {paper}")
        parts.append(f"### {claim.number}. {claim.sentence}")
        lines = [
            "| | quantity per training | by | claimed | network "
            "| mean [95 % interval] | n | verdict |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for criterion in claim.criteria:
            statement = criterion.statement.replace("|", "\\|")
            about = f"| {criterion.name} | {statement} | {criterion.by} | {criterion.bound} |"
            own = [finding for finding in findings if finding.criterion is criterion]
            lines += [f"{about} {_cells(finding)}" for finding in own]
            lines += [] if own else [f"{about} | | 0 | not measured |"]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


#: What the page of claims begins with.
_HEAD = """# Claims of the papers

What each claim is held to, what was measured, and the verdict. The rules and the sentences of the
papers are in [criteria.md](../analysis/criteria.md); *by* says whose criterion it is, the paper's
own or ours. n is the number of independent trainings; 95 % intervals are Student's. *Not decided*
means that the interval contains the bound, or that there are too few trainings. This page is
written from the kept records by `python -m analysis.claims --page docs/claims.md`, and a test
compares the two."""


def _cells(finding: Finding) -> str:
    verdict = finding.verdict
    interval = "" if math.isnan(verdict.low) else f" [{verdict.low:.3g}, {verdict.high:.3g}]"
    return f"{finding.network} | {verdict.mean:.3g}{interval} | {verdict.n} | {verdict.word} |"
