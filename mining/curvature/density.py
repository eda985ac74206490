"""The spectral density of a curvature operator."""

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mining import InputError
from mining.curvature.krylov import KrylovSpace, check_basis, would_fit
from mining.curvature.operators import CurvatureOperator, check_operator
from mining.curvature.trace import Estimate
from mining.functional.random_vectors import rademacher

#: Errors of products, in units of the last place of the largest: a zero eigenvalue may be this big.
_ROUNDING = 10


@dataclass(frozen=True, eq=False)
class SpectralDensity:
    """A quadrature of the spectrum for each of P random vectors, with m nodes each.

    The fraction of eigenvalues in an interval is approximately the weight of the nodes in it,
    averaged over the vectors. ``evaluate`` broadens the nodes to a smooth density.
    """

    nodes: Tensor  # (P, m) float64, in the units of the operator
    weights: Tensor  # (P, m) float64, each row sums to one
    size: int  # D, the number of all eigenvalues
    products: int  # matrix-vector products
    rounding: float | None = None  # |λ| up to which λ passes for zero; None: 1e-6 of the largest
    exact: bool = False  # whether m steps exhausted every vector: more would change nothing

    @property
    def zero(self) -> float:
        """Magnitude up to which an eigenvalue passes for zero, in the units of the operator."""
        largest = max(abs(self.high), abs(self.low))
        return 1e-6 * largest if self.rounding is None else self.rounding

    @property
    def low(self) -> float:
        """The smallest node of all, an upper bound of the smallest eigenvalue."""
        return float(self.nodes.min())

    @property
    def high(self) -> float:
        """The largest node of all, a lower bound of the largest eigenvalue."""
        return float(self.nodes.max())

    @property
    def width(self) -> float:
        """Standard deviation of the broadening: 1/200 of the extent of the spectrum.

        It scales with the operator. The extent of a spectrum of a single point is a millionth of
        its magnitude, or 1 if it is zero.
        """
        extent = max(self.high - self.low, 1e-6 * max(abs(self.high), abs(self.low)))
        return extent / 200 or 1 / 200

    def grid(self, num: int = 2000) -> Tensor:
        """Return points up to six widths beyond all nodes, shape ``(num,)``."""
        reach = 6 * self.width
        return torch.linspace(self.low - reach, self.high + reach, num, dtype=torch.float64)

    def evaluate(self, points: Tensor, width: float | None = None) -> Tensor:
        """Evaluate the density, with each node broadened to a normal distribution.

        Args:
            points: Shape ``(T,)``.
            width: Standard deviation of the broadening; ``None``: ``self.width``.

        Returns:
            The density of each vector, shape ``(P, T)``; its integral is one. Their mean over the
            vectors is the estimate, and their spread its error.
        """
        width = self.width if width is None else width
        points = points.double()
        density = torch.zeros(len(self.nodes), len(points), dtype=torch.float64)
        for nodes, weights in zip(self.nodes.T, self.weights.T, strict=True):
            away = (points - nodes[:, None]) / width
            density += weights[:, None] * torch.exp(-0.5 * away**2)
        return density / (width * math.sqrt(2 * math.pi))

    def coarser(self, num_steps: int) -> "SpectralDensity":
        """Return what fewer Lanczos steps from the same vectors would have given.

        The recurrence of the orthogonal polynomials of each row is recovered from its nodes and
        weights, and cut off. How far a result is from that of the whole quadrature tells how far
        it has converged, without further products.

        Args:
            num_steps: Nodes of the coarser quadrature, between 1 and m.

        Raises:
            InputError: If ``num_steps`` is out of its range.
        """
        if not 1 <= num_steps <= self.nodes.shape[1]:
            raise InputError(
                f"num_steps must be between 1 and {self.nodes.shape[1]}, the steps of this "
                f"density, got {num_steps}."
            )
        nodes = torch.empty(len(self.nodes), num_steps, dtype=torch.float64)
        weights = torch.zeros_like(nodes)
        for row, (values, shares) in enumerate(zip(self.nodes, self.weights, strict=True)):
            found, found_weights = _truncated(values[shares > 0], shares[shares > 0], num_steps)
            nodes[row] = found[-1]
            nodes[row, : len(found)] = found
            weights[row, : len(found)] = found_weights
        unchanged = self.exact and num_steps == self.nodes.shape[1]
        return replace(self, nodes=nodes, weights=weights, exact=unchanged)

    def moment(self, order: int) -> Estimate:
        """Estimate tr(Hⁿ) = Σ λⁿ for n = ``order``.

        With m nodes each row is exact for its vector up to order 2m - 1. The standard error of few
        vectors is itself unreliable, in particular if a few outliers dominate the moment: with
        eight vectors it may be several times too small.
        """
        moments = self.size * (self.weights * self.nodes**order).sum(1)
        return Estimate.of(moments)


def spectral_density(
    operator: CurvatureOperator,
    num_steps: int = 60,
    num_probes: int = 8,
    generator: torch.Generator | None = None,
) -> SpectralDensity:
    """Estimate the spectral density by stochastic Lanczos quadrature.

    Lanczos runs from ``num_probes`` random vectors with entries ±1; each vector of a run is
    orthogonalized twice against all others. Ghorbani, Krishnan and Xiao (2019), An Investigation
    into Neural Net Optimization via Hessian Eigenvalue Density; Ubaru, Chen and Saad (2017).

    Args:
        operator: Symmetric, of shape ``(D, D)``.
        num_steps: Matrix-vector products m per random vector, limited to D.
        num_probes: Number P of random vectors, at least 2, so that there is an error estimate.
        generator: Source of the random vectors, on the CPU; ``None``: one with seed 0.

    Returns:
        Nodes and weights.

    Raises:
        InputError: If a number is out of its range or the operator is not symmetric.
        MemoryError: If the ``num_steps`` vectors of one run do not fit.
        ArithmeticError: If a product is not finite.
    """
    check_operator(operator)
    if num_steps < 1:
        raise InputError(f"num_steps must be at least 1, got {num_steps}.")
    if num_probes < 2:
        raise InputError(f"num_probes must be at least 2, got {num_probes}.")
    if generator is None:
        generator = torch.Generator().manual_seed(0)
    before = operator.products
    num_steps = min(num_steps, operator.shape[0])
    nodes, weights, scale, exact = _quadrature(operator, num_steps, num_probes, generator)
    rounding = _ROUNDING * torch.finfo(operator.dtype).eps * scale
    products = operator.products - before
    return SpectralDensity(nodes, weights, operator.shape[0], products, rounding, exact)


def _quadrature(
    operator: CurvatureOperator, num_steps: int, num_probes: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, float, bool]:
    """Run Lanczos from several random vectors at once, each in its own space.

    Args:
        operator: Of shape ``(D, D)``.
        num_steps: Products for each start vector, at most D.
        num_probes: How many start vectors P, with entries ±1/√D.
        generator: Source of the start vectors.

    Returns:
        The eigenvalues of the P tridiagonal matrices, shape ``(P, m)``, and the squared first
        entries of their eigenvectors, shape ``(P, m)``, which sum to one: nodes and weights of a
        Gauss quadrature. m is ``num_steps``, or fewer where all spaces closed earlier; one that
        closed before the others repeats its last node with weight 0. Then the largest norm of a
        product with a unit vector, and whether all spaces closed.

    Raises:
        InputError: If the operator is not symmetric.
        MemoryError: If the vectors do not fit.
        ArithmeticError: If a product is not finite.
    """
    size = operator.shape[0]
    starts = [rademacher(size, generator) for _ in range(num_probes)]
    nodes = torch.zeros(num_probes, num_steps, dtype=torch.float64)
    weights = torch.zeros(num_probes, num_steps, dtype=torch.float64)
    scale, exact = 0.0, True
    at_once = _probes_at_once(operator, num_steps, num_probes)
    for chunk in torch.split(torch.arange(num_probes), at_once):
        spaces = [
            KrylovSpace(operator, num_steps, generator, start=starts[probe])
            for probe in chunk.tolist()
        ]
        for _ in range(num_steps):
            growing = [space for space in spaces if not space.closed]
            if growing:
                products = operator @ torch.stack([space.next for space in growing], 1)
                for space, product in zip(growing, products.T, strict=True):
                    space.expand(product)
        scale = max(scale, *(space.scale for space in spaces))
        exact = exact and all(space.closed for space in spaces)
        for probe, space in zip(chunk.tolist(), spaces, strict=True):
            values, vectors, _ = space.ritz_pairs()
            nodes[probe] = values[-1]
            nodes[probe, : space.num] = values
            weights[probe, : space.num] = vectors[0] ** 2
    longest = int((weights > 0).any(0).nonzero().max()) + 1
    return nodes[:, :longest], weights[:, :longest], scale, exact


def _truncated(nodes: Tensor, weights: Tensor, num_steps: int) -> tuple[Tensor, Tensor]:
    """Compute the Gauss quadrature of ``num_steps`` nodes of a discrete measure by Lanczos.

    Args:
        nodes: Where the measure has its mass, shape ``(m,)``.
        weights: How much, shape ``(m,)``.
        num_steps: How many nodes.

    Returns:
        Nodes and weights, shape ``(num_steps,)``, or fewer where the measure has fewer.
    """
    vector = weights.sqrt()
    basis = vector[None] / vector.norm()
    while len(basis) < min(num_steps, len(nodes)):
        rest = nodes * basis[-1]
        for _ in range(2):
            rest = rest - (basis @ rest) @ basis
        if rest.norm() <= 1e-13 * nodes.abs().max():
            break
        basis = torch.cat([basis, rest[None] / rest.norm()])
    projection = (basis * nodes) @ basis.T
    found, vectors = torch.linalg.eigh((projection + projection.T) / 2)
    return found, weights.sum() * vectors[0] ** 2


def _probes_at_once(operator: CurvatureOperator, num_steps: int, num_probes: int) -> int:
    """How many spaces of ``num_steps`` vectors fit into half of the free memory."""
    check_basis(
        operator,
        num_steps + 2,
        f"num_steps={num_steps}",
        lambda fitting: would_fit("num_steps", fitting - 2, 1),
    )
    space = (num_steps + 2) * operator.shape[0] * operator.dtype.itemsize
    return int(min(num_probes, max(1, operator.free_memory() // 2 // space)))
