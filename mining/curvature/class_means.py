"""Class means of the vectors of which the Gauss-Newton matrix of cross-entropy consists."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import grad

from mining import InputError
from mining.curvature.loss_at import LossAt
from mining.curvature.trace_penalty import softmax_scales
from mining.functional.loss import Batch
from mining.functional.memory import available_memory
from mining.functional.parameters import ParameterSpace
from mining.functional.precision import products_in


@dataclass(frozen=True, eq=False)
class ClassMeans:
    """The means δ_{c,c'} over the examples of class c, for each other class c'.

    The Gauss-Newton matrix is G = Σ_i w_i Σ_c' δ_{i,c'} δ_{i,c'}ᵀ with
    δ_{i,c'} = √p_c' Jᵀ(e_c' - p) for the softmax p of an example and the Jacobian J of its outputs.
    G less the second moments of the means is positive semi-definite. Papyan (2019), Measurements of
    Three-Level Hierarchical Structure in the Outliers in the Spectrum of Deepnet Hessians, Sec. 3.
    """

    vectors: Tensor  # (C, C, d); zero where c' = c
    weights: Tensor  # (C,) float64, the sum of the w_i of each class: its share for a mean loss
    space: ParameterSpace  # of d parameters

    @property
    def num_classes(self) -> int:
        """The number C of classes."""
        return len(self.weights)

    @property
    def pairs(self) -> Tensor:
        """The means δ_{c,c'} as rows, shape ``(C (C - 1), d)``, those of one c together."""
        others = ~torch.eye(self.num_classes, dtype=torch.bool, device=self.vectors.device)
        return self.vectors[others]

    @property
    def classes(self) -> Tensor:
        """The means δ_c of δ_{c,c'} over the other classes c', shape ``(C, d)``."""
        return self.vectors.sum(1) / (self.num_classes - 1)

    def of(self, parameters: str | Sequence[str]) -> "ClassMeans":
        """Restrict the vectors to some of the parameters.

        Args:
            parameters: As ``ParameterSpace.select`` takes it.
        """
        part = self.space.select(parameters)
        pieces = dict(
            zip(self.space.names, torch.split(self.vectors, self.space.sizes, -1), strict=True)
        )
        return ClassMeans(torch.cat([pieces[n] for n in part.names], -1), self.weights, part)

    def explained(self, vectors: Tensor) -> tuple[float, float]:
        """Sum the second moments of the means along orthonormal vectors.

        Args:
            vectors: Shape ``(d, K)``. For eigenvectors of G, both sums are at most that of their
                eigenvalues.

        Returns:
            Σ_k vᵀMv of the means δ_c of classes, with M = (C - 1) Σ_c w_c δ_c δ_cᵀ, and of the
            means δ_{c,c'} of pairs, with M = Σ_c w_c Σ_c' δ_{c,c'} δ_{c,c'}ᵀ.
        """
        num, along = self.num_classes, vectors.to(self.vectors)
        squares = [
            (means @ along).double().square().sum(-1).cpu() for means in (self.classes, self.pairs)
        ]
        of_classes = (num - 1) * float(self.weights @ squares[0])
        return of_classes, float(self.weights @ squares[1].view(num, num - 1).sum(1))

    def cosines(self) -> Tensor | None:
        """Return the cosines between the rows of ``pairs``, float64; ``None`` if one is zero."""
        rows = self.pairs
        products = (rows @ rows.T).double().cpu()
        lengths = products.diagonal().sqrt()
        if not bool((lengths > 0).all()):
            return None
        return (products / lengths / lengths[:, None]).clamp(-1, 1)


def class_means(loss: LossAt, num_classes: int) -> ClassMeans:
    """Compute the class means by a backward pass for each pair of classes and each batch.

    Args:
        loss: Softmax cross-entropy of outputs ``(B, C)`` with classes ``(B,)``.
        num_classes: The number C of outputs.

    Raises:
        InputError: If the loss is another one, or a class has no example.
        MemoryError: If the vectors do not fit.
    """
    shape = num_classes, num_classes, loss.space.size
    needed = 2 * num_classes**2 * loss.space.size * loss.theta.element_size()
    if needed > available_memory(loss.theta.device):
        raise MemoryError(
            f"{num_classes}² vectors of {loss.space.size} parameters take {needed / 1e9:.1f} GB: "
            "choose fewer parameters."
        )
    vectors = torch.zeros(shape, dtype=loss.theta.dtype, device=loss.theta.device)
    weights = torch.zeros(num_classes, dtype=torch.float64)
    with products_in(loss.theta.device), torch.enable_grad():
        for batch in loss.own:
            if batch.weight > 0:
                weights += _add(loss, batch, vectors)
    vectors, weights = loss.ranks.sum(vectors), loss.ranks.sum(weights)
    missing = (weights == 0).nonzero().flatten().tolist()
    if missing:
        raise InputError(f"The classes {missing} have no examples, and so no mean: take more.")
    vectors /= weights.to(vectors)[:, None, None]
    return ClassMeans(vectors, weights, loss.space)


def _add(loss: LossAt, batch: Batch, vectors: Tensor) -> Tensor:
    """Add the weighted vectors of a batch, and return the weight of each class in it."""
    num = len(vectors)
    leaves = loss.leaves()
    tensors = list(leaves.values())
    with loss.running(leaves) as forward:
        outputs = forward(batch.inputs)
        targets = _classes(outputs, batch.targets, num)
        given = outputs.detach()
        scales = softmax_scales(
            loss.loss_fn, given, targets, tensors, torch.Generator().manual_seed(0)
        )
        scales = scales * (batch.weight / loss.total)
        shares = given.softmax(1)
        totals = torch.zeros(num, dtype=torch.float64)
        for own in range(num):
            factors = torch.where(targets == own, scales, 0)
            totals[own] = float(factors.double().sum())
            if totals[own] == 0:
                continue
            for other in range(num):
                if other != own:
                    cotangents = -shares
                    cotangents[:, other] += 1
                    cotangents *= (factors * shares[:, other].sqrt())[:, None]
                    found = grad(
                        outputs, tensors, cotangents, retain_graph=True, materialize_grads=True
                    )
                    vectors[own, other] += torch.cat([t.reshape(-1) for t in found])
    return totals


def _classes(outputs: Tensor, targets: object, num: int) -> Tensor:
    """Check that outputs are scores of classes, and targets classes."""
    whole = isinstance(targets, Tensor) and not targets.is_floating_point() and targets.dim() == 1
    if outputs.dim() != 2 or outputs.shape[1] != num or not whole:
        raise InputError(
            f"Class means need scores of shape (B, {num}) and a class for each example, got "
            f"outputs {tuple(outputs.shape)} and targets "
            f"{tuple(targets.shape) if isinstance(targets, Tensor) else type(targets).__name__}."
        )
    assert isinstance(targets, Tensor)
    return targets
