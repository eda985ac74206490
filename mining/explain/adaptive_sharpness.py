"""Sharpness that does not change when the layers of a ReLU network are rescaled."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.linalg import vector_norm

from mining import InputError
from mining.functional.random_vectors import standard_normal
from mining.landscape import Landscape


@dataclass(frozen=True, eq=False)
class AdaptiveSharpness:
    """The largest rise of the loss that was found within relative changes of the parameters."""

    rise: float  # max L(θ + ε) - L(θ) over the steps, in units of the loss; inf if it overflows
    one_step: float  # the rise after the first step, that of ASAM
    perturbation: Tensor  # (D,) ε, at which the rise was found
    rho: float  # radius ρ
    rises: tuple[float, ...]  # after each step


def adaptive_sharpness(
    landscape: Landscape, rho: float = 0.5, steps: int = 5, *, seed: int = 0
) -> AdaptiveSharpness:
    """Maximize L(θ + ε) - L(θ) over ‖T⁻¹ε‖₂ ≤ ρ, with T = diag(|θ_1|, …, |θ_D|).

    Kwon et al. (2021), ASAM, Eq. 3 with p = 2 and the element-wise operator for all parameters,
    biases included; the paper trains with ρ = 0.5 on CIFAR-10. A rescaling θ → Aθ with a positive
    diagonal A that leaves the network's function unchanged leaves this value unchanged.

    The first step is that of ASAM, which maximizes the linearized loss: ε = ρ T²g / ‖Tg‖ with the
    gradient g at θ. Each further step takes the gradient at θ + ε in its place. The largest of
    the rises is returned, which is a lower bound of the maximum. If the gradient at θ is zero, the
    first ε is random.

    Args:
        landscape: Its examples and its batch-norm policy define the loss. Under ``recalibrate``
            the statistics are estimated at every θ + ε, and held fixed in its gradient.
        rho: Radius ρ of the relative change.
        steps: Gradients that are computed, at least 1.
        seed: Of the random direction where the gradient is zero.

    Raises:
        InputError: If ``rho`` is not positive, ``steps`` not at least 1, or all parameters are 0.
    """
    if not 0 < rho < math.inf:
        raise InputError(f"rho must be positive, got {rho}.")
    if steps < 1:
        raise InputError(f"steps must be at least 1, got {steps}.")
    theta = landscape.theta
    scale = theta.abs()
    if not scale.any():
        raise InputError("All parameters are zero: there is no relative change of them.")
    at_theta = float(landscape.loss(theta))
    normal = scale * landscape.gradient()
    if not normal.any():
        generator = torch.Generator().manual_seed(seed)
        drawn = standard_normal(len(theta), generator).to(theta)
        normal = torch.where(scale > 0, drawn, 0.0)
    rises: list[float] = []
    best, found = -math.inf, torch.zeros_like(theta)
    for step in range(steps):
        perturbation = scale * (normal * (rho / vector_norm(normal)))
        rise = float(landscape.loss(theta + perturbation)) - at_theta
        rises.append(rise if math.isfinite(rise) else math.inf)
        if rises[-1] > best:
            best, found = rises[-1], perturbation
        if best == math.inf or step == steps - 1:
            break
        normal = scale * landscape.gradient(theta + perturbation)
        if not normal.any():
            break
    return AdaptiveSharpness(best, rises[0], found, rho, tuple(rises))
