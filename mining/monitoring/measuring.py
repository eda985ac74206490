"""What a monitor measures at one point of a training."""

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.linalg import vector_norm

from mining import InputError
from mining.curvature import CurvatureOperator, Eigenpairs, eigenpairs, trace
from mining.curvature.critical_sharpness import critical_sharpness
from mining.curvature.gradient_noise import gradient_noise
from mining.curvature.preconditioned import PreconditionedOperator
from mining.curvature.trace import TraceEstimate
from mining.explain.groups import GroupedHessian, Groups, draw_groups
from mining.explain.resampling import spread_of_groups
from mining.functional.random_vectors import standard_normal
from mining.landscape import Landscape
from mining.monitoring.stability import Stability, stability_of, update_of

#: Largest residual of an eigenpair, relative to its eigenvalue, and most products for one. With
#: 0.02, one product fewer, an eigenvalue that overtakes another is seen late, 5 % too small.
_TOLERANCE, _PRODUCTS = 0.005, 40
#: Power iterations of Alabdulkareem (2022).
_POWER_ITERATIONS = 10
#: Most evaluations of the loss along the last update.
_PASSES = 10
#: Batches into which the examples are divided, whose spread is the sampling error.
_GROUPS = 8
#: Length of the random part of the first vector, whose rest is the eigenvector found before: the
#: new one may be orthogonal to that.
_RANDOM_PART = 0.1


#: Columns of the table with their values; None where there is no such number.
Row = dict[str, float | int | None]


@dataclass(frozen=True)
class Measured:
    """What was measured at one point."""

    row: dict[str, Any]
    layers: list[dict[str, Any]]  # a row for the block of each layer


class Measurer:
    """Measures the curvature at points of one training, each with the help of the one before.

    Args:
        method: ``lanczos`` or ``power``.
        probes: Random vectors of the trace.
        seed: Of all random vectors.
        layers: Whether the largest eigenvalue of the block of each layer is found, too.

    Raises:
        InputError: If the method is unknown.
    """

    def __init__(self, method: str, probes: int, seed: int, layers: bool = False) -> None:
        if method not in ("lanczos", "power"):
            raise InputError(f"method must be lanczos or power, got {method!r}.")
        self._method, self._probes, self._seed, self._by_layer = method, probes, seed, layers
        self._vectors: dict[str, Tensor] = {}  # the last eigenvectors, by what they are of

    def measure(
        self, landscape: Landscape, model: nn.Module, optimizer: torch.optim.Optimizer
    ) -> Measured:
        """Measure everything at the parameters that the model has now.

        Args:
            landscape: Of the model as it is; half of its examples are measured, and the other half
                is for comparison.
            model: The model.
            optimizer: Of the training.

        Raises:
            ArithmeticError: If the loss or a product is not finite.
            InputError: If the loss is a sum.
        """
        if landscape.sums:
            raise InputError(
                "The loss is a sum over examples, whose curvature grows with their number: give "
                "the monitor the mean."
            )
        generator = torch.Generator().manual_seed(self._seed)
        num = landscape.num_examples // 2
        groups, others = draw_groups(landscape, num, _GROUPS, generator)
        own = landscape.restrict(groups.batches)
        loss = float(own.loss(own.theta))
        if not math.isfinite(loss):
            raise ArithmeticError(f"The loss is {loss}, which has no curvature.")
        operator = groups.hessian()
        vector, row = self._largest(operator, "loss")
        elsewhere = None if others is None else landscape.restrict(others.batches)
        row |= _sampling(groups, elsewhere, operator, vector)
        traced = self._trace(operator)
        row |= {
            "trace": traced.mean,
            "trace_standard_error": traced.standard_error,
            "trace_sampling_error": _error(operator, groups, self._probes),
        }
        row |= _gradient_columns(groups)
        row |= self._against_steps(own, model, optimizer, operator, row)
        row |= {"products": operator.products, "num_examples": own.num_examples}
        return Measured({"loss": loss, **row}, self._layers(operator, traced))

    def _layers(self, operator: GroupedHessian, traced: TraceEstimate) -> list[dict[str, Any]]:
        """Describe the diagonal block of every layer."""
        assert operator.space is not None
        layers, rows = operator.space.layers, []
        for number, (layer, names) in enumerate(layers.items()):
            mean, error = traced.of(names)
            row: dict[str, Any] = {"layer": layer, "place": (number + 0.5) / len(layers)}
            row |= {"trace": mean, "trace_standard_error": error}
            if self._by_layer:
                block = operator.block(names)
                row |= self._largest(block, f"layer {layer}")[1]
                row["products"] = block.products
            rows.append(row)
        return rows

    def time_product(self, landscape: Landscape) -> float:
        """Time a matrix-vector product as ``measure`` takes them, seconds.

        Args:
            landscape: As for ``measure``.
        """
        generator = torch.Generator().manual_seed(self._seed)
        groups, _ = draw_groups(landscape, landscape.num_examples // 2, _GROUPS, generator)
        operator = groups.hessian()
        vector = standard_normal(operator.shape[0], generator).to(operator.device, operator.dtype)
        operator @ vector  # which builds the graphs that the other products share
        started = time.perf_counter()
        float((operator @ vector).sum())
        return time.perf_counter() - started

    def _largest(self, operator: CurvatureOperator, of: str) -> tuple[Tensor, Row]:
        """Find the largest eigenvalue and its eigenvector, from the last one on."""
        generator = torch.Generator().manual_seed(self._seed)
        if self._method == "power":
            return _power(operator, generator)
        start = self._vectors.get(of)
        if start is not None:
            noise = standard_normal(len(start), generator).to(start)
            start = start + noise * (_RANDOM_PART / vector_norm(noise))
        found: Eigenpairs = eigenpairs(
            operator,
            1,
            tol=_TOLERANCE,
            generator=generator,
            max_products=_PRODUCTS,
            verify=False,
            start=start,
        )
        self._vectors[of] = found.vectors[:, 0]
        return self._vectors[of], {
            "lambda_max": float(found.values[0]),
            "lambda_max_residual": float(found.residuals[0]),
        }

    def _trace(self, operator: CurvatureOperator) -> TraceEstimate:
        generator = torch.Generator().manual_seed(self._seed + 1)
        return trace(operator, "hutchinson", generator, num_products=self._probes)

    def _against_steps(
        self,
        landscape: Landscape,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        operator: CurvatureOperator,
        found: Row,
    ) -> Row:
        """Compare the curvature with what the steps of the optimizer bear."""
        parameters = dict(model.named_parameters())
        limit = stability_of(optimizer, parameters, landscape.space)
        row: Row = {"lr": None, "stability": None, "critical_sharpness": None}
        if isinstance(limit, Stability):
            row["lr"] = limit.lr
            row["stability"] = self._stability(operator, limit, found)
        update = update_of(optimizer, parameters, landscape.space)
        if update is not None and row["lr"]:
            row["critical_sharpness"] = _critical(landscape, update, row["lr"])
        return row

    def _stability(self, operator: CurvatureOperator, limit: Stability, found: Row) -> float | None:
        """Compute λmax of S (H + W); see ``Stability``."""
        scales, largest = limit.scales, found["lambda_max"]
        if not bool(scales.any()):  # the learning rate is zero
            return 0.0
        shifts = scales.new_zeros(1) if limit.shifts is None else limit.shifts
        if bool((scales == scales[0]).all()) and bool((shifts == shifts[0]).all()):
            assert largest is not None
            return float(scales[0]) * (largest + float(shifts[0]))
        preconditioned = PreconditionedOperator(operator, scales, limit.shifts)
        return self._largest(preconditioned, "steps")[1]["lambda_max"]


def _error(operator: GroupedHessian, groups: Groups, num: int) -> float | None:
    """Estimate the sampling error of the mean of the last ``num`` quadratic forms."""
    if len(groups) < 2:
        return None
    values = groups.estimates(torch.stack(operator.quadratics[-num:], 1)).mean(1)
    return float(vector_norm(spread_of_groups(values, groups.shares)))


def _sampling(
    groups: Groups, others: Landscape | None, operator: GroupedHessian, vector: Tensor
) -> Row:
    """Say what the largest eigenvalue owes to the examples on which it was found."""
    operator @ vector
    return {
        "lambda_max_sampling_error": _error(operator, groups, 1),
        "lambda_max_elsewhere": None if others is None else _along(others, vector),
    }


def _along(landscape: Landscape, vector: Tensor) -> float:
    """Compute the Rayleigh quotient of a unit vector."""
    product = landscape.hessian(memory=0) @ vector  # no graph is kept for a single product
    return float(vector.double() @ product.double())


def _power(operator: CurvatureOperator, generator: torch.Generator) -> tuple[Tensor, Row]:
    """Iterate v ← Hv / ‖Hv‖; Alabdulkareem (2022), Algorithm 1.

    The value is that of the eigenvalue of largest magnitude.
    """
    vector = standard_normal(operator.shape[0], generator).to(operator.device, operator.dtype)
    vector = vector / vector_norm(vector)
    for _ in range(_POWER_ITERATIONS):
        product = operator @ vector
        value = float(vector.double() @ product.double())
        residual = float(vector_norm(product - value * vector))
        last = vector
        if not bool(product.any()):  # the operator is zero along it, in this precision
            break
        vector = product / vector_norm(product)
    return last, {"lambda_max": value, "lambda_max_residual": residual}


def _gradient_columns(groups: Groups) -> Row:
    """Give norm and noise scale tr Σ / ‖G‖²: McCandlish et al. (2018), Eq. 2.9."""
    names = ("gradient_norm", "gradient_noise", "noise_scale")
    if len(groups) < 2:
        return dict.fromkeys(names)
    noise = gradient_noise(groups.gradients(), groups.shares)
    variance = groups.num_examples * noise.noise**2
    scale = variance / noise.squared_norm if noise.squared_norm > 0 else None
    return dict(zip(names, (noise.norm, noise.noise, scale), strict=True))


def _critical(landscape: Landscape, update: Tensor, lr: float) -> float | None:
    """Search along the last step, in units of an eigenvalue: 2 / η if its length is critical.

    The search begins where the step did. Behind it, where a step that overshot has landed, the
    loss rises along the update, and there would be no value exactly where there is a warning.
    """
    before = landscape.theta + update
    slope = -float(landscape.gradient(before).double() @ update.double())
    found = critical_sharpness(
        lambda factor: float(landscape.loss(before - factor * update)),
        slope,
        start=1.0,
        tolerance=0.1,
        max_passes=_PASSES,
    )
    return None if found.sharpness is None else found.sharpness / lr
