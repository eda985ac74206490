"""Disjoint random groups of examples, between which numbers are compared for their errors."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mining.curvature import CurvatureOperator, HessianOperator
from mining.functional import Batch
from mining.functional.memory import available_memory
from mining.landscape import Landscape

#: Share of the free memory in which the graphs of all groups are kept between products.
_KEPT_SHARE = 0.4


@dataclass(frozen=True, eq=False)
class Groups:
    """Disjoint groups of examples of a landscape, each with a landscape of its own.

    The loss of all groups is Σ_k factor_k L_k: their mean, or an estimate of the sum over all
    examples of the landscape from the sums of the groups.
    """

    parts: tuple[Landscape, ...]  # K
    shares: Tensor  # (K,) float64, of the examples or of the weights in the mean; sum to one
    factors: Tensor  # (K,) float64
    num_examples: int

    def __len__(self) -> int:
        return len(self.parts)

    @property
    def batches(self) -> list[Batch]:
        """The examples of all groups."""
        return [batch for part in self.parts for batch in part.batches]

    def estimates(self, values: Tensor) -> Tensor:
        """Turn numbers of the losses of groups, shape ``(K, ...)``, into estimates of the whole."""
        shape = (-1,) + (1,) * (values.dim() - 1)
        return values * (self.factors / self.shares).view(shape)

    def losses(self, theta: Tensor) -> Tensor:
        """Estimate the loss at ``theta``, shape ``(D,)``, by each group: shape ``(K,)``."""
        statistics = self.parts[0].statistics(theta)
        found = [part.evaluate(theta, statistics=statistics).loss for part in self.parts]
        return self.estimates(torch.stack(found).cpu())

    def gradients(self) -> Tensor:
        """Estimate the gradient at θ by each group, shape ``(K, D)``, in the dtype of θ."""
        statistics = self.parts[0].statistics(self.parts[0].theta)
        rows = [part.gradient(statistics=statistics) for part in self.parts]
        return self.estimates(torch.stack(rows)).to(rows[0])

    def mean(self, estimates: Tensor) -> Tensor:
        """Average estimates of the groups, shape ``(K, ...)``, over them."""
        averaged: Tensor = torch.tensordot(self.shares, estimates.double().cpu(), dims=1)
        return averaged

    def hessian(self, *, keep: bool = True) -> "GroupedHessian":
        """Return the Hessian at θ of all groups.

        Args:
            keep: Whether graphs are kept between products, which a single one does not need.
        """
        memory = available_memory(self.parts[0].device) if keep else 0
        each = int(_KEPT_SHARE * memory / len(self))
        return GroupedHessian([part.hessian(memory=each) for part in self.parts], self)


class GroupedHessian(CurvatureOperator):
    """The Hessian of the loss of all groups, which also gives that of each along a vector.

    Args:
        parts: The Hessian of each group.
        groups: The groups.

    Attributes:
        quadratics: vᵀH_k v of every vector v that was multiplied, in their order: tensors of shape
            ``(K,)``, float64, on the CPU, of the losses of the groups.
    """

    def __init__(self, parts: Sequence[HessianOperator], groups: Groups) -> None:
        first = parts[0]
        super().__init__(first.shape[0], first.device, first.dtype, first.space)
        self._parts, self._groups, self.ranks = parts, groups, first.ranks
        self.quadratics: list[Tensor] = []

    def _multiply(self, rows: Tensor) -> Tensor:
        products, told = torch.zeros_like(rows), []
        for part, factor in zip(self._parts, self._groups.factors.tolist(), strict=True):
            product = part._multiply(rows)
            told.append((rows.double() * product.double()).sum(1).cpu())
            products += factor * product
        self.quadratics += torch.stack(told, 1)
        return products

    def block(self, parameters: str | Sequence[str]) -> "GroupedHessian":
        """Return the diagonal block of some of the parameters; see ``HessianOperator.block``."""
        return GroupedHessian([part.block(parameters) for part in self._parts], self._groups)

    def quotients(self, vectors: Tensor) -> Tensor:
        """Estimate vᵀHv by each group for each column of ``vectors``, ``(D, P)``: ``(K, P)``."""
        self @ vectors
        found = self.quadratics[len(self.quadratics) - vectors.shape[1] :]
        return self._groups.estimates(torch.stack(found, 1))


def divide(
    landscape: Landscape, batches: Sequence[Sequence[Batch]], *, total: int | None = None
) -> Groups:
    """Make groups of lists of batches.

    Args:
        landscape: Of all examples.
        batches: Of each group.
        total: Examples to which a sum is extrapolated; ``None``: those of the landscape.
    """
    parts = tuple(landscape.restrict(group) for group in batches)
    sizes = torch.tensor([part.num_examples for part in parts], dtype=torch.float64)
    num = int(sizes.sum())
    if landscape.sums:
        shares = sizes / num
        total = landscape.num_examples if total is None else total
        return Groups(parts, shares, torch.full_like(shares, total / num), num)
    weights = [sum(batch.weight for batch in group) for group in batches]
    shares = torch.tensor(weights, dtype=torch.float64) / sum(weights)
    return Groups(parts, shares, shares, num)


def draw_groups(
    landscape: Landscape,
    num_examples: int | None,
    num_groups: int,
    generator: torch.Generator,
    num_others: int | None = None,
) -> tuple[Groups, Groups | None]:
    """Draw examples at random, divide them into groups, and the other examples likewise.

    Batches stay whole if their examples cannot be regrouped.

    Args:
        landscape: Of all examples.
        num_examples: How many to draw; ``None``: all.
        num_groups: Most groups of each of the two.
        generator: On the CPU.
        num_others: Most of the other examples; ``None``: all of them.

    Returns:
        The groups of the drawn examples and those of the others; ``None`` if there are no others.
    """
    whole = landscape.num_examples
    wanted = whole if num_examples is None else min(num_examples, whole)
    if landscape.regroups:
        order = torch.randperm(whole, generator=generator)
        drawn, rest = order[:wanted], order[wanted:][:num_others]
        cut = [_chunks(part, num_groups) for part in (drawn, rest)]
        picked = [
            [landscape.pick(landscape.batches, chunk.sort().values) for chunk in chunks]
            for chunks in cut
        ]
    else:
        picked = _deal(landscape, (wanted, num_others), num_groups, generator)
    # All targets of a group may be ignored.
    picked = [[group for group in part if sum(b.weight for b in group) > 0] for part in picked]
    first, *others = [divide(landscape, part) for part in picked if part]
    return first, others[0] if others else None


def _chunks(chosen: Tensor, num: int) -> list[Tensor]:
    return list(chosen.tensor_split(min(num, len(chosen)))) if len(chosen) else []


def _deal(
    landscape: Landscape,
    wanted: tuple[int, int | None],
    num_groups: int,
    generator: torch.Generator,
) -> list[list[list[Batch]]]:
    """Deal whole batches out to the groups of the drawn examples and of the others."""
    batches = [batch for batch in landscape.batches if batch.weight > 0]
    left = torch.randperm(len(batches), generator=generator).tolist()
    parts = []
    for most in wanted:
        numbers: list[int] = []
        count = 0
        while left and (most is None or count < most):
            numbers.append(left.pop(0))
            count += batches[numbers[-1]].num_examples
        size = math.ceil(len(numbers) / num_groups) or 1
        cut = [numbers[start : start + size] for start in range(0, len(numbers), size)]
        parts.append([[batches[number] for number in group] for group in cut])
    return parts
