"""The parts of an assessment, measured one after the other."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from mining import InputError
from mining.curvature import SpectralDensity, spectral_density
from mining.explain.assessment_settings import AssessmentSettings
from mining.explain.fit import measure_fit
from mining.explain.groups import GroupedHessian, draw_groups
from mining.explain.quantity import Quantity
from mining.explain.sharpness import measure_adaptive_sharpness, measure_critical_sharpness
from mining.explain.spectral_criteria import spectral_criteria
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

_CRITERIA = ["r_e", "k_h05", "k_h1", "c_t", "negative_share"]
#: Groups of all examples; fewer where their gradients do not fit.
_GRADIENT_GROUPS = 32


class Parts:
    """The parts of an assessment, each measured with random numbers of its own.

    Args:
        landscape: Of all examples.
        settings: How much is computed.
        seed: Of all random numbers.
        progress: Whether to show progress bars.
    """

    def __init__(
        self, landscape: Landscape, settings: AssessmentSettings, seed: int, progress: bool
    ) -> None:
        self._landscape, self._settings, self._seed = landscape, settings, seed
        self._progress = progress
        self.found: dict[str, Quantity] = {}
        self.brackets: dict[str, tuple[float, float]] = {}
        self._gradient: GradientAtTheta | None = None
        self._extremes: Extremes | None = None
        self.density: SpectralDensity | None = None
        self.surroundings: Surroundings | None = None
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
            self.found |= measure()
        except (InputError, ArithmeticError, MemoryError) as error:
            log.warning("%s: %s", ", ".join(names), error)
            self.found |= {name: Quantity.missing(str(error)) for name in names}
        log.info("%s: %.1f s", ", ".join(names), time.perf_counter() - started)

    def measure_sets(self, sets: Mapping[str, list[Batch]]) -> None:
        """Measure the fit to each set, and what recalibrated batch norm changes."""
        for suffix, batches in sets.items():
            measured = measure_fit(self._landscape, batches, self._seed)
            self.found |= {f"{name}{suffix}": found for name, found in measured.items()}
        effect = self._landscape.statistics_mismatch()
        names = ("loss_stored_statistics", "loss_recalibrated", "batchnorm_mismatch")
        if effect is None:
            missing = Quantity.missing("No layer of the model keeps batch-norm statistics.")
            self.found |= dict.fromkeys(names, missing)
            return
        error = torch.tensor([effect.standard_error], dtype=torch.float64)
        values = (effect.stored_loss, effect.loss, effect.stored_loss - effect.loss)
        errors = (None, None, None if error.isnan().any() else error)
        pairs = zip(names, values, errors, strict=True)
        self.found |= {name: Quantity(value, e) for name, value, e in pairs}

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
            self._extremes = extremes
            self.brackets |= dict(zip(names, extremes.brackets, strict=False))
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
        if hessians and self.found["trace"].value is not None:
            self._take(_CRITERIA, lambda: self._measure_spectrum(hessians[0]))

    def _measure_spectrum(self, hessian: GroupedHessian) -> dict[str, Quantity]:
        settings = self._settings
        self.density = spectral_density(
            hessian,
            settings.density_steps,
            settings.density_probes,
            generator=self._generator(5),
        )
        assert self._extremes is not None
        largest, smallest = self._extremes.values
        values = torch.tensor([smallest, largest], dtype=torch.float64)
        residuals = torch.tensor(self._extremes.residuals[::-1], dtype=torch.float64)
        criteria = spectral_criteria(self.density, values, residuals).measurements()
        # Ratios of the eigenvalues that are reported, whose errors contain the sampling error.
        ratio = _ratio(self.found["lambda_min"], self.found["lambda_max"])
        found = {name: Quantity.of(measured) for name, measured in criteria.items()}
        if ratio is not None and found["c_t"].value is not None:
            found["c_t"] = replace(ratio, applies=found["c_t"].applies, why=found["c_t"].why)
            size = max(0.0, -(ratio.value or 0.0))
            unfit = found["r_e"]
            found["r_e"] = replace(ratio, value=size, applies=unfit.applies, why=unfit.why)
        return {name: _known(quantity) for name, quantity in found.items()}

    def measure_sharpness(self, learning_rate: float | None) -> None:
        """Measure adaptive and critical sharpness, and the stability limit of a training."""
        landscape, settings = self._landscape, self._settings
        if learning_rate is not None:
            why = "It is the limit of plain gradient descent with a constant learning rate."
            self.found["stability_limit"] = Quantity(2 / learning_rate, why=why)
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
            return measure_critical_sharpness(self._all, gradient, gradient)

        self._take(["critical_sharpness", "gradient_fall"], critical)

    def measure_surroundings(self) -> None:
        """Evaluate curves along random directions."""

        def measure() -> dict[str, Quantity]:
            settings = self._settings
            self.surroundings = measure_surroundings(
                self._landscape.restrict(self._sample.batches),
                settings.num_curves,
                settings.curve_points,
                self._generator(6),
                progress=self._progress,
            )
            return {"curve_width": self.surroundings.width}

        self._take(["curve_width"], measure)

    def measure_barrier(self, other: Tensor) -> None:
        """Measure the barrier to another θ."""
        points = self._settings.barrier_points
        theta = self._landscape.theta
        self._take(
            ["barrier"],
            lambda: {"barrier": measure_barrier(self._sample, theta, other, points)},
        )

    @property
    def num_examples(self) -> dict[str, int]:
        """How many examples the curvature is of, and on how many others it was checked."""
        others = 0 if self._others is None else self._others.num_examples
        return {"curvature": self._sample.num_examples, "check": others}


def _resolved(extremes: Extremes) -> Quantity:
    """Give the smallest eigenvalue, which does not count if its residual is as large."""
    value, residual = extremes.values[1], extremes.residuals[1]
    if residual <= 0.5 * abs(value):
        return extremes.smallest
    why = f"It is not resolved: the residual of its eigenvector is {residual:.2g}."
    return replace(extremes.smallest, applies=False, why=why)


def _ratio(smallest: Quantity, largest: Quantity) -> Quantity | None:
    """Divide the smallest eigenvalue by the largest one, if that is positive (delta method)."""
    low, high = smallest.value, largest.value
    if low is None or high is None or high <= 0:
        return None
    if smallest.error is None or largest.error is None:
        return Quantity(low / high)
    error = math.hypot(smallest.error, low / high * largest.error) / high
    return Quantity(low / high, torch.zeros(1, dtype=torch.float64), error)


def _known(found: Quantity) -> Quantity:
    """Give a criterion, which does not count if its error is as large."""
    if found.value is None or found.error is None or found.error < abs(found.value):
        return found
    return replace(found, applies=False, why=found.why or "The error is as large as the value.")
