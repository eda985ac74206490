"""Second-order models of the loss: along a direction, and under random perturbation."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from mining import InputError
from mining.curvature import Estimate
from mining.directions.base import Direction
from mining.functional.random_vectors import standard_normal
from mining.landscape import Landscape


@dataclass(frozen=True, eq=False)
class Expansions:
    """Parabolas L + bx + ½ax² at points α of a curve, and the loss near each point.

    Xu et al. (2024), Fig. 14 and Appendix B.3, which leaves out the constant L.
    """

    alphas: Tensor  # (P,) float64, in units of the direction
    loss: Tensor  # (P,) float64, L(θ + αε)
    slope: Tensor  # (P,) float64, b = εᵀg at θ + αε
    curvature: Tensor  # (P,) float64, a = εᵀHε at θ + αε
    offsets: Tensor  # (O,) float64, x
    loss_near: Tensor  # (P, O) float64, L(θ + (α + x)ε)

    @property
    def predicted(self) -> Tensor:
        """The parabolas at the offsets, shape ``(P, O)``."""
        x = self.offsets
        return self.loss[:, None] + self.slope[:, None] * x + self.curvature[:, None] * x**2 / 2

    @property
    def error(self) -> Tensor:
        """The largest difference of each parabola from the loss, nats, shape ``(P,)``."""
        return (self.predicted - self.loss_near).abs().amax(1)

    @property
    def relative_error(self) -> Tensor:
        """``error`` relative to the largest change of the loss near the point, shape ``(P,)``."""
        return self.error / (self.loss_near - self.loss[:, None]).abs().amax(1)


def expand(
    landscape: Landscape,
    direction: Direction,
    alphas: Tensor,
    offsets: Tensor,
    *,
    progress: bool = True,
) -> Expansions:
    """Expand the loss to second order at points along a direction.

    Each point takes one gradient and one Hessian-vector product. Under ``recalibrate`` the
    parabola holds the batch-norm statistics of the point fixed, whereas the loss near it is
    evaluated with its own statistics: the error then includes the effect of recalibration.

    Args:
        landscape: The point θ and the loss.
        direction: ε, shape ``(D,)``.
        alphas: The points, shape ``(P,)``.
        offsets: Distances from each point, in α, at which its parabola is compared with the loss,
            shape ``(O,)``.
        progress: Whether to draw a progress bar on stderr.

    Raises:
        InputError: If the loss at a point is not finite.
    """
    epsilon = direction.vector.to(landscape.theta)
    alphas, offsets = alphas.double(), offsets.double()
    found = torch.zeros(len(alphas), 3 + len(offsets), dtype=torch.float64)
    bar = tqdm(alphas.tolist(), desc="parabolas", disable=not progress, dynamic_ncols=True)
    for row, alpha in enumerate(bar):
        theta = landscape.theta + alpha * epsilon
        found[row, 0] = landscape.loss(theta)
        found[row, 1] = (epsilon.double() @ landscape.gradient(theta).double()).cpu()
        product = landscape.hessian(theta) @ epsilon
        found[row, 2] = (epsilon.double() @ product.double()).cpu()
        for column, offset in enumerate(offsets.tolist()):
            near = landscape.theta + (alpha + offset) * epsilon
            found[row, 3 + column] = landscape.loss(near)
    loss, slope, curvature = found[:, :3].T
    return Expansions(alphas, loss, slope, curvature, offsets, found[:, 3:])


@dataclass(frozen=True, eq=False)
class Perturbations:
    """The loss under Gaussian perturbation θ + λε, ε with entries N(0, σ²).

    With g and H at θ, L(θ + λε) - L(θ) is about λεᵀg + ½λ²εᵀHε: Xu et al. (2024), Eq. 1. In a
    ReLU network the mean change exceeds that by a term that also grows as λ²: it comes from the
    kinks between θ and θ + λε, which the Hessian at θ does not contain. With smooth activations
    the two agree.
    """

    scales: Tensor  # (S,) float64, λ
    sigma: float
    slopes: Tensor  # (N,) float64, εᵀg
    curvatures: Tensor  # (N,) float64, εᵀHε
    squares: Tensor  # (N,) float64, ‖Hε‖²
    changes: Tensor  # (N, S) float64, L(θ + λε) - L(θ), evaluated, nats
    gradient_norm: float  # ‖g‖

    @property
    def second_order(self) -> Tensor:
        """The second-order change for each sample and λ, shape ``(N, S)``."""
        linear, square = self.slopes[:, None], self.curvatures[:, None]
        return self.scales * linear + self.scales**2 * square / 2

    @property
    def trace(self) -> Estimate:
        """The trace of H: the mean of εᵀHε / σ²."""
        return Estimate.of(self.curvatures / self.sigma**2)

    @property
    def trace_of_square(self) -> Estimate:
        """The trace of H²: the mean of ‖Hε‖² / σ², from the same products."""
        return Estimate.of(self.squares / self.sigma**2)

    def predicted_mean(self) -> Tensor:
        """The mean ½λ²σ² tr H of the second-order change, shape ``(S,)``."""
        return self.scales**2 * self.sigma**2 * self.trace.mean / 2

    def predicted_variance(self) -> Tensor:
        """The variance λ²σ²‖g‖² + ½λ⁴σ⁴ tr H² of the second-order change, shape ``(S,)``.

        The two terms are uncorrelated, since odd moments of a Gaussian vanish; the variance of
        εᵀHε is 2σ⁴ tr H².
        """
        # The paper's Eq. 4 has lambda |g|^2 + lambda^2 sigma^4 tr H^2 / 2: the exponents of lambda
        # and sigma there do not follow from Eq. 1.
        first = self.scales**2 * self.sigma**2 * self.gradient_norm**2
        return first + self.scales**4 * self.sigma**4 * self.trace_of_square.mean / 2

    def printed_variance(self) -> Tensor:
        """The variance as the paper's Eq. 4 prints it: λ‖g‖² + ½λ²σ⁴ tr H², shape ``(S,)``."""
        first = self.scales * self.gradient_norm**2
        return first + self.scales**2 * self.sigma**4 * self.trace_of_square.mean / 2


def perturb(
    landscape: Landscape,
    scales: Sequence[float],
    num_samples: int = 100,
    sigma: float = 1.0,
    *,
    generator: torch.Generator,
    progress: bool = True,
) -> Perturbations:
    """Sample the loss under Gaussian perturbation and its second-order model.

    Args:
        landscape: The point θ and the loss.
        scales: Values of λ, not zero.
        num_samples: Directions ε, at least 2.
        sigma: Standard deviation σ of their entries.
        generator: Source of randomness, on the CPU.
        progress: Whether to draw a progress bar on stderr.

    Raises:
        InputError: If a number is out of range.
    """
    usable = all(math.isfinite(scale) and scale != 0 for scale in scales)
    if num_samples < 2 or not sigma > 0 or not scales or not usable:
        raise InputError(
            "perturb needs at least 2 samples, a positive sigma and finite, nonzero scales, got "
            f"{num_samples}, {sigma} and {list(scales)}."
        )
    theta = landscape.theta
    gradient = landscape.gradient().double()
    origin = landscape.loss(theta)
    hessian = landscape.hessian()
    found = torch.zeros(num_samples, 3 + len(scales), dtype=torch.float64)
    bar = tqdm(range(num_samples), desc="perturbations", disable=not progress, dynamic_ncols=True)
    for row in bar:
        epsilon = sigma * standard_normal(len(theta), generator).to(theta)
        product = (hessian @ epsilon).double()
        wide = epsilon.double()
        values = [wide @ gradient, wide @ product, product @ product]
        values += [landscape.loss(theta + scale * epsilon) - origin for scale in scales]
        found[row] = torch.stack(values).cpu()
    slopes, curvatures, squares = found[:, :3].T
    return Perturbations(
        torch.tensor(scales, dtype=torch.float64),
        sigma,
        slopes,
        curvatures,
        squares,
        found[:, 3:],
        float(gradient.norm()),
    )
