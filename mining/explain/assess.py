"""What the loss landscape of a trained network says about it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mining import InputError
from mining.curvature import SpectralDensity
from mining.directions.checkpoint import theta_of
from mining.explain.assessment_settings import AssessmentSettings
from mining.explain.findings import Evidence, Finding, find
from mining.explain.fit import majority_share
from mining.explain.measurement import Measurement
from mining.explain.measuring import Parts
from mining.explain.quantity import Difference, Quantity, difference
from mining.explain.surroundings import Surroundings
from mining.landscape import Landscape
from mining.ranks import alone

#: What the suffixes of names stand for.
_SETS = {"": "examples", "_test": "test", "_shifted": "shifted"}


@dataclass(frozen=True, eq=False, repr=False)
class Assessment:
    """What was measured at θ, by name, and what it shows; ``print`` prints it as a page.

    Names of quantities that depend on the examples end in ``_test`` and ``_shifted`` for the
    second and the third set of examples.
    """

    quantities: Mapping[str, Quantity]
    findings: tuple[Finding, ...]
    surroundings: Surroundings | None
    density: SpectralDensity | None
    brackets: Mapping[str, tuple[float, float]]  # of lambda_max and lambda_min
    num_examples: Mapping[str, int]  # of each set, and those of which the curvature is

    def __str__(self) -> str:
        """Return the page that the command line prints, with its reference values."""
        from mining.explain.report import page, references  # which reads assessments

        return page(self, references())

    def __repr__(self) -> str:
        named = ", ".join(finding.name for finding in self.findings)
        return f"<Assessment of {len(self.quantities)} quantities: {named}>"

    def __getitem__(self, name: str) -> Measurement:
        """Return one measurement."""
        return self.quantities[name].measurement

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the Gaussian curves."""
        return () if self.surroundings is None else self.surroundings.labels

    @property
    def measurements(self) -> dict[str, Measurement]:
        """All measurements by name."""
        return {name: quantity.measurement for name, quantity in self.quantities.items()}

    def record(self) -> dict[str, Any]:
        """Return what goes into ``run.json``."""
        intervals = {n: list(q.interval) for n, q in self.quantities.items() if q.interval}
        return {
            **{name: found.record() for name, found in self.measurements.items()},
            "intervals": intervals,
            "brackets": {name: list(ends) for name, ends in self.brackets.items()},
            "findings": [finding.record() for finding in self.findings],
            "labels": list(self.labels),
            "num_examples_of": dict(self.num_examples),
        }


def compare(first: Assessment, second: Assessment) -> dict[str, Difference]:
    """Subtract the quantities of one assessment from those of another, with paired errors.

    Both must be of the same examples, with the same seed and settings: then the examples and the
    random vectors are the same, and what they add to both cancels.

    Returns:
        Second minus first, by name; see ``Difference``.

    Raises:
        InputError: If the examples differ in number.
    """
    if first.num_examples != second.num_examples:
        raise InputError(
            "Only assessments of the same examples can be compared, got "
            f"{dict(first.num_examples)} and {dict(second.num_examples)} examples."
        )
    return {
        name: difference(quantity, second.quantities[name])
        for name, quantity in first.quantities.items()
        if name in second.quantities
    }


@alone()
def assess(
    landscape: Landscape,
    *,
    test: Iterable[Any] | None = None,
    shifted: Iterable[Any] | None = None,
    other: Mapping[str, Tensor] | nn.Module | str | None = None,
    learning_rate: float | None = None,
    settings: AssessmentSettings | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Assessment:
    """Assess a trained network: its fit, whether θ is a minimum, and how sharp it is there.

    Every number has a standard error and says whether it applies, see ``Measurement``. What
    cannot be measured of a model or loss is missing, with the reason. Each rank of a job computes
    all of it.

    Args:
        landscape: Of the examples on which the network was trained, or some of them.
        test: Batches of a second set of examples, ``(inputs, targets)``.
        shifted: Batches of a third set.
        other: Another checkpoint of the same architecture, to which the barrier is measured: a
            file, tensors by parameter name, or a module.
        learning_rate: Of the training, for its stability limit 2 / η beside λmax.
        settings: How much is computed; ``None`` takes the defaults.
        seed: Of the choice of examples, of random vectors and of resampling. Two networks that
            are assessed with the same seed on the same examples can be compared, see ``compare``.
        progress: Whether to show progress bars.

    Raises:
        InputError: If a set of examples does not fit the model, or ``other`` is of another
            architecture.
    """
    if learning_rate is not None and not learning_rate > 0:
        raise InputError(f"learning_rate must be positive, got {learning_rate}.")
    used = AssessmentSettings() if settings is None else settings
    sets = {"": landscape.batches}
    for name, loader in {"_test": test, "_shifted": shifted}.items():
        if loader is not None:
            sets[name] = landscape.hold(loader)
    parts = Parts(landscape, used, seed, progress)
    parts.measure_sets(sets)
    parts.measure_gradient()
    parts.measure_curvature()
    parts.measure_sharpness(learning_rate)
    parts.measure_surroundings()
    if other is not None:
        parts.measure_barrier(theta_of(other, landscape))
    scored = sets if landscape.scores_classes else {}
    shares = {suffix: majority_share(batches) for suffix, batches in scored.items()}
    evidence = Evidence(parts.found, parts.brackets, landscape.chance_loss, shares)
    counts = {_SETS[s]: sum(b.num_examples for b in batches) for s, batches in sets.items()}
    return Assessment(
        parts.found,
        tuple(find(evidence)),
        parts.surroundings,
        parts.density,
        parts.brackets,
        counts | parts.num_examples,
    )
