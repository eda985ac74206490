"""The gradient and the extreme eigenvalues at θ, with their sampling errors."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mining.curvature import eigenpairs, make_dense
from mining.curvature.gradient_noise import GradientNoise, gradient_noise
from mining.explain.groups import GroupedHessian, Groups
from mining.explain.quantity import Quantity
from mining.explain.resampling import spread_of_groups
from mining.functional.random_vectors import rademacher

#: Operators of at most this size are diagonalized.
_DENSE = 64
#: A gradient is compatible with zero above this probability.
SIGNIFICANCE = 0.05


@dataclass(frozen=True, eq=False)
class GradientAtTheta:
    """The mean gradient and its noise."""

    vector: Tensor  # (D,)
    noise: GradientNoise
    norm: Quantity


@dataclass(frozen=True, eq=False)
class Extremes:
    """The largest and the smallest eigenvalue of the Hessian of some examples."""

    values: tuple[float, float]  # largest, smallest
    residuals: tuple[float, float]  # ‖Hv - λv‖
    vectors: Tensor  # (D, 2)
    largest: Quantity
    smallest: Quantity
    brackets: tuple[tuple[float, float], tuple[float, float]]  # ends in ascending order


def measure_gradient(groups: Groups, generator: torch.Generator) -> GradientAtTheta:
    """Measure the norm of the gradient against its sampling noise.

    Args:
        groups: At least two groups of examples.
        generator: For the p-value, on the CPU.
    """
    gradients = groups.gradients()
    found = gradient_noise(gradients, groups.shares, generator)
    vector = (groups.shares.to(gradients) @ gradients).detach()
    along = gradients.double() @ (vector.double() / max(found.norm, 1e-300))
    compatible = found.p_value > SIGNIFICANCE
    why = ""
    if compatible:
        why = (
            f"The norm is no larger than its sampling noise, {found.noise:.3g}, which adds to it: "
            f"the gradient may be zero (p = {found.p_value:.2g})."
        )
    norm = Quantity(
        found.norm, spread_of_groups(along, groups.shares), applies=not compatible, why=why
    )
    return GradientAtTheta(vector, found, norm)


def measure_extremes(
    hessian: GroupedHessian,
    groups: Groups,
    others: Groups | None,
    generator: torch.Generator,
    max_products: int,
) -> Extremes:
    """Measure the largest and the smallest eigenvalue of the Hessian.

    The largest eigenvalue of a sample of examples is above that of all on average, and the
    quotient vᵀHv of its eigenvector v on other examples is below: the value is the middle of this
    bracket, whose half-width is part of the error. For the smallest eigenvalue it is the other
    way round. Without other examples it is the eigenvalue of the sample, which is all there is.

    Args:
        hessian: Of ``groups``.
        groups: The examples of which eigenvectors are computed.
        others: Other examples, if there are any.
        generator: Of the start vector.
        max_products: Most products for the two pairs.
    """
    if hessian.shape[0] <= _DENSE:
        eigenvalues, eigenvectors = torch.linalg.eigh(make_dense(hessian).double())
        values, vectors = eigenvalues[[-1, 0]], eigenvectors[:, [-1, 0]]
        residuals = torch.zeros(2, dtype=torch.float64)
    else:
        pairs = eigenpairs(
            hessian, 1, "both", tol=0.05, generator=generator, max_products=max_products
        )
        values, vectors, residuals = pairs.values, pairs.vectors, pairs.residuals
    own = hessian.quotients(vectors)
    elsewhere = None if others is None else others.hessian(keep=False).quotients(vectors)
    found, brackets = [], []
    for number in range(2):
        value, residual = float(values[number]), float(residuals[number])
        other = None
        if others is not None and elsewhere is not None:
            other = (elsewhere[:, number], others)
        found.append(bracketed(value, own[:, number], groups, other, residual))
        end = value if other is None else float(other[1].mean(other[0]))
        brackets.append((min(value, end), max(value, end)))
    return Extremes(
        (float(values[0]), float(values[1])),
        (float(residuals[0]), float(residuals[1])),
        vectors,
        found[0],
        found[1],
        (brackets[0], brackets[1]),
    )


def bracketed(
    value: float,
    own: Tensor,
    groups: Groups,
    others: tuple[Tensor, Groups] | None,
    residual: float = 0.0,
) -> Quantity:
    """Put a number that was optimized on some examples beside its value on others.

    Args:
        value: On the examples of ``groups``.
        own: The same by group, shape ``(K,)``.
        groups: The examples on which it was optimized.
        others: The number by group on other examples, shape ``(J,)``, and their groups.
        residual: What is left open by the optimization.
    """
    sampling = spread_of_groups(own, groups.shares) if len(groups) > 1 else None
    if others is None:
        return Quantity(value, sampling, residual)
    values, elsewhere = others
    mean = float(elsewhere.mean(values))
    rest = math.hypot(residual, (value - mean) / 2)
    if sampling is None or len(elsewhere) < 2:
        return Quantity((value + mean) / 2, None, rest)
    both = torch.cat([sampling, spread_of_groups(values, elsewhere.shares)]) / 2
    return Quantity((value + mean) / 2, both, rest)


def measure_trace(
    hessian: GroupedHessian, groups: Groups, num_probes: int, generator: torch.Generator
) -> Quantity:
    """Estimate the trace by Hutchinson's method; the error is over probes and over examples.

    Args:
        hessian: Of ``groups``.
        groups: The examples.
        num_probes: Random vectors with entries ±1, at least 2.
        generator: On the CPU.
    """
    size = hessian.shape[0]
    found = torch.cat(
        [hessian.quotients(rademacher(size, generator)[:, None]) for _ in range(num_probes)], 1
    )
    by_probe = groups.mean(found)
    probes = (by_probe - by_probe.mean()) / math.sqrt(num_probes * (num_probes - 1))
    value = float(by_probe.mean())
    if len(groups) < 2:
        return Quantity(value, None)
    return Quantity(value, torch.cat([spread_of_groups(found.mean(1), groups.shares), probes]))


def measure_fall(groups: Groups, others: Groups | None, vector: Tensor, num_steps: int) -> Quantity:
    """Measure how far the loss falls from θ along a vector, averaged over its two sides.

    The fall L(θ) - (L(θ + sv) + L(θ - sv)) / 2 is that which curvature causes: a slope cancels.
    The steps s are ‖θ‖ / 2, ‖θ‖ / 4, …; that with the largest fall counts. Where there are other
    examples, it is chosen on the groups, and the fall is that of the others.

    Args:
        groups: The examples.
        others: Other examples.
        vector: A unit vector v, shape ``(D,)``.
        num_steps: How many steps.
    """
    theta = groups.parts[0].theta
    length = float(theta.norm()) or 1.0
    steps = [length * 0.5**number for number in range(1, num_steps + 1)]

    def fall(of: Groups, step: float) -> Tensor:
        sides = [of.losses(theta + sign * step * vector) for sign in (1.0, -1.0)]
        return of.losses(theta) - (sides[0] + sides[1]) / 2

    falls = torch.stack([groups.mean(fall(groups, step)) for step in steps])
    best = int(falls.nan_to_num(-math.inf, neginf=-math.inf).argmax())
    judges = groups if others is None else others
    found = fall(judges, steps[best])
    if not found.isfinite().all():
        return Quantity.missing("The loss overflows along the eigenvector.")
    sampling = spread_of_groups(found, judges.shares) if len(judges) > 1 else None
    return Quantity(float(judges.mean(found)), sampling)
