"""What the loss landscape of a trained network says about it."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from mining import InputError
from mining.curvature import SpectralDensity, spectral_density
from mining.directions.checkpoint import theta_of
from mining.explain.findings import Evidence, Finding, find
from mining.explain.fit import majority_share, measure_fit
from mining.explain.groups import GroupedHessian, draw_groups
from mining.explain.measurement import Measurement
from mining.explain.quantity import Difference, Quantity, difference
from mining.explain.sharpness import measure_adaptive_sharpness, measure_critical_sharpness
from mining.explain.stationarity import (
    Extremes,
    GradientAtTheta,
    measure_extremes,
    measure_fall,
    measure_gradient,
    measure_trace,
)
from mining.explain.surroundings import Surroundings, measure_barrier, measure_surroundings
from mining.functional import Batch
from mining.functional.memory import available_memory
from mining.landscape import Landscape

log = logging.getLogger(__name__)

#: Groups of all examples; fewer where their gradients do not fit.
_GRADIENT_GROUPS = 32


@dataclass(frozen=True)
class AssessmentSettings:
    """How much ``assess`` computes; see ``assess`` in ``conf/config.yaml``.

    Raises:
        InputError: If a value is out of its range.
    """

    curvature_examples: int | None = 256
    check_examples: int | None = 1000
    num_groups: int = 8
    eigenvalue_products: int = 60
    trace_probes: int = 10
    density_steps: int = 20
    density_probes: int = 4
    rho: float = 0.5
    ascent_steps: int = 3
    fall_steps: int = 8
    num_curves: int = 5
    curve_points: int = 21
    barrier_points: int = 11

    def __post_init__(self) -> None:
        least = {
            "curvature_examples": 2, "check_examples": 2, "num_groups": 2,
            "eigenvalue_products": 10, "trace_probes": 2, "density_steps": 1, "density_probes": 2,
            "ascent_steps": 1, "fall_steps": 1, "num_curves": 1, "curve_points": 11,
            "barrier_points": 3,
        }  # fmt: skip
        for name, smallest in least.items():
            value = getattr(self, name)
            if value is not None and value < smallest:
                raise InputError(f"assess.{name} must be at least {smallest}, got {value}.")
        if not 0 < self.rho < float("inf"):
            raise InputError(f"assess.rho must be positive, got {self.rho}.")


@dataclass(frozen=True, eq=False)
class Assessment:
    """What was measured at θ, by name, and what it shows.

    Names of quantities that depend on the examples end in ``_test`` and ``_shifted`` for the
    second and the third set of examples.
    """

    quantities: Mapping[str, Quantity]
    findings: tuple[Finding, ...]
    labels: tuple[str, ...]  # of the curves
    surroundings: Surroundings | None
    density: SpectralDensity | None
    brackets: Mapping[str, tuple[float, float]]  # of lambda_max and lambda_min
    num_examples: Mapping[str, int]  # of each set, and those of which the curvature is
    seconds: float
    described: Mapping[str, Any] = field(default_factory=dict)  # the landscape

    def __getitem__(self, name: str) -> Measurement:
        """Return one measurement."""
        return self.quantities[name].measurement

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
    cannot be measured of a model or loss is missing, with the reason.

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
    started = time.perf_counter()
    used = AssessmentSettings() if settings is None else settings
    sets = {"": landscape.batches}
    for name, loader in {"_test": test, "_shifted": shifted}.items():
        if loader is not None:
            sets[name] = landscape.hold(loader)
    parts = _Parts(landscape, used, seed, progress)
    parts.measure_sets(sets)
    parts.measure_gradient()
    parts.measure_curvature()
    parts.measure_sharpness(learning_rate)
    parts.measure_surroundings()
    if other is not None:
        parts.measure_barrier(theta_of(other, landscape))
    return parts.finish(sets, time.perf_counter() - started)


class _Parts:
    """The parts of an assessment, each measured with random numbers of its own."""

    def __init__(
        self, landscape: Landscape, settings: AssessmentSettings, seed: int, progress: bool
    ) -> None:
        self._landscape, self._settings, self._seed = landscape, settings, seed
        self._progress = progress
        self._found: dict[str, Quantity] = {}
        self._brackets: dict[str, tuple[float, float]] = {}
        self._gradient: GradientAtTheta | None = None
        self._density: SpectralDensity | None = None
        self._surroundings: Surroundings | None = None
        row = landscape.space.size * landscape.theta.element_size()
        fitting = available_memory(landscape.device) // 4 // row
        self._all, _ = draw_groups(
            landscape, None, int(max(2, min(_GRADIENT_GROUPS, fitting))), self._generator(0)
        )
        self._sample, self._others = draw_groups(
            landscape,
            settings.curvature_examples,
            settings.num_groups,
            self._generator(1),
            settings.check_examples,
        )

    def _generator(self, part: int) -> torch.Generator:
        return torch.Generator().manual_seed(1000 * self._seed + part)

    def _take(self, names: list[str], measure: Callable[[], Mapping[str, Quantity]]) -> None:
        """Add quantities, or the reason why they cannot be measured."""
        started = time.perf_counter()
        try:
            self._found |= measure()
        except (InputError, ArithmeticError, MemoryError) as error:
            log.warning("%s: %s", ", ".join(names), error)
            self._found |= {name: Quantity.missing(str(error)) for name in names}
        log.info("%s: %.1f s", ", ".join(names), time.perf_counter() - started)

    def measure_sets(self, sets: Mapping[str, list[Batch]]) -> None:
        """Measure the fit to each set, and what recalibrated batch norm changes."""
        for suffix, batches in sets.items():
            measured = measure_fit(self._landscape, batches, self._seed)
            self._found |= {f"{name}{suffix}": found for name, found in measured.items()}
        effect = self._landscape.statistics_mismatch()
        names = ("loss_stored_statistics", "loss_recalibrated", "batchnorm_mismatch")
        if effect is None:
            missing = Quantity.missing("No layer of the model keeps batch-norm statistics.")
            self._found |= dict.fromkeys(names, missing)
            return
        error = torch.tensor([effect.standard_error], dtype=torch.float64)
        values = (effect.stored_loss, effect.loss, effect.stored_loss - effect.loss)
        errors = (None, None, None if error.isnan().any() else error)
        pairs = zip(names, values, errors, strict=True)
        self._found |= {name: Quantity(value, e) for name, value, e in pairs}

    def measure_gradient(self) -> None:
        """Measure the gradient of all examples against its noise."""

        def measure() -> dict[str, Quantity]:
            if len(self._all) < 2:
                norm = float(self._landscape.gradient().norm())
                why = "There is a single batch: the sampling noise of the gradient is not known."
                return {"gradient_norm": Quantity(norm, applies=False, why=why)}
            found = measure_gradient(self._all, self._generator(2))
            self._gradient = found
            noise = found.noise
            squared_error = torch.tensor([noise.squared_norm_error], dtype=torch.float64)
            return {
                "gradient_norm": found.norm,
                "gradient_noise": Quantity(noise.noise),
                "gradient_squared_norm": Quantity(noise.squared_norm, squared_error),
                "gradient_p_value": Quantity(noise.p_value),
            }

        self._take(["gradient_norm"], measure)

    def measure_curvature(self) -> None:
        """Measure eigenvalues, trace and spectral density of the sample."""
        names = ["lambda_max", "lambda_min", "trace"]
        hessians: list[GroupedHessian] = []

        def measure() -> dict[str, Quantity]:
            hessian = self._sample.hessian()
            hessians.append(hessian)
            extremes = measure_extremes(
                hessian,
                self._sample,
                self._others,
                self._generator(3),
                self._settings.eigenvalue_products,
            )
            self._brackets |= dict(zip(names, extremes.brackets, strict=False))
            lowest = extremes.vectors[:, 1]
            probes = self._settings.trace_probes
            return {
                "lambda_max": extremes.largest,
                "lambda_min": _resolved(extremes),
                "negative_fall": measure_fall(
                    self._sample, self._others, lowest, self._settings.fall_steps
                ),
                "trace": measure_trace(hessian, self._sample, probes, self._generator(4)),
            }

        self._take(names, measure)
        if hessians and self._found["trace"].value is not None:
            self._take(["spectral density"], lambda: self._measure_density(hessians[0]))

    def _measure_density(self, hessian: GroupedHessian) -> dict[str, Quantity]:
        settings = self._settings
        self._density = spectral_density(
            hessian,
            settings.density_steps,
            settings.density_probes,
            generator=self._generator(5),
        )
        return {}

    def measure_sharpness(self, learning_rate: float | None) -> None:
        """Measure adaptive and critical sharpness, and the stability limit of a training."""
        landscape, settings = self._landscape, self._settings
        if learning_rate is not None:
            why = "It is the limit of plain gradient descent with a constant learning rate."
            self._found["stability_limit"] = Quantity(2 / learning_rate, why=why)
        self._take(
            ["adaptive_sharpness"],
            lambda: {
                "adaptive_sharpness": measure_adaptive_sharpness(
                    landscape, self._sample, self._others, settings.rho, settings.ascent_steps
                )
            },
        )

        def critical() -> dict[str, Quantity]:
            gradient = self._gradient.vector if self._gradient else landscape.gradient()
            found = measure_critical_sharpness(landscape, self._all, gradient, gradient)
            return {"critical_sharpness": found}

        self._take(["critical_sharpness"], critical)

    def measure_surroundings(self) -> None:
        """Evaluate curves along random directions."""

        def measure() -> dict[str, Quantity]:
            settings = self._settings
            self._surroundings = measure_surroundings(
                self._landscape.restrict(self._sample.batches),
                settings.num_curves,
                settings.curve_points,
                self._generator(6),
                progress=self._progress,
            )
            return {"curve_width": self._surroundings.width}

        self._take(["curve_width"], measure)

    def measure_barrier(self, other: Tensor) -> None:
        """Measure the barrier to another θ."""
        points = self._settings.barrier_points
        theta = self._landscape.theta
        self._take(
            ["barrier"],
            lambda: {"barrier": measure_barrier(self._sample, theta, other, points)},
        )

    def finish(self, sets: Mapping[str, list[Batch]], seconds: float) -> Assessment:
        """Draw conclusions from what was measured."""
        landscape, surroundings = self._landscape, self._surroundings
        shares = {
            suffix: majority_share(batches)
            for suffix, batches in sets.items()
            if landscape.scores_classes
        }
        names = {"": "examples", "_test": "test", "_shifted": "shifted"}
        counts = {names[s]: sum(b.num_examples for b in batches) for s, batches in sets.items()}
        counts["curvature"] = self._sample.num_examples
        counts["check"] = 0 if self._others is None else self._others.num_examples
        evidence = Evidence(self._found, self._brackets, landscape.chance_loss, shares)
        return Assessment(
            self._found,
            tuple(find(evidence)),
            () if surroundings is None else surroundings.labels,
            surroundings,
            self._density,
            self._brackets,
            counts,
            seconds,
            landscape.describe(),
        )


def _resolved(extremes: Extremes) -> Quantity:
    """Give the smallest eigenvalue, which does not count if its residual is as large."""
    value, residual = extremes.values[1], extremes.residuals[1]
    if residual <= 0.5 * abs(value):
        return extremes.smallest
    why = f"It is not resolved: the residual of its eigenvector is {residual:.2g}."
    return replace(extremes.smallest, applies=False, why=why)
