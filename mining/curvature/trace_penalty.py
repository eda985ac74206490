"""Estimates of the trace of a curvature matrix that can themselves be differentiated."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import grad
from torch.nn import functional as F  # noqa: N812  (the name under which everybody knows it)

from mining import InputError
from mining.functional.loss import Loss
from mining.functional.random_vectors import rademacher, standard_normal

#: How far a loss may depart from a multiple of softmax cross-entropy, in units of rounding.
_ROUNDING = 1e3


def hutchinson(
    loss: Tensor,
    tensors: Sequence[Tensor],
    weights: Sequence[float],
    generator: torch.Generator,
    probes: int = 1,
) -> Tensor:
    """Estimate Σ_p w_p tr(H_p) over the diagonal blocks of the Hessian of a loss.

    The mean over random vectors with entries ±1 of Σ_p w_p v_p·(Hv)_p. It is unbiased, and so is
    its gradient, since the vectors do not depend on the parameters. Hutchinson (1990).

    Args:
        loss: Shape ``()``, with its graph.
        tensors: The parameters p of the blocks, one block each.
        weights: Their weights w_p.
        generator: Source of the random vectors, on the CPU.
        probes: Number of random vectors.

    Returns:
        Shape ``()``, with its graph.
    """
    slopes = grad(loss, tensors, create_graph=True, materialize_grads=True)
    total = torch.zeros_like(loss)
    for _ in range(probes):
        vectors = _signs(tensors, generator)
        # Where the loss is linear in a parameter its gradient is constant and has no graph.
        pairs = [(s, v) for s, v in zip(slopes, vectors, strict=True) if s.requires_grad]
        if not pairs:
            break
        products = grad(
            [slope for slope, _ in pairs],
            tensors,
            [vector for _, vector in pairs],
            create_graph=True,
            materialize_grads=True,
        )
        for weight, vector, product in zip(weights, vectors, products, strict=True):
            total = total + weight * (vector * product).sum()
    return total / probes


def sampled_labels(
    scores: Tensor,
    scales: Tensor,
    tensors: Sequence[Tensor],
    weights: Sequence[float],
    generator: torch.Generator,
    probes: int = 1,
    *,
    corrected: bool = True,
) -> Tensor:
    """Estimate Σ_p w_p tr(G_p) over blocks of the Gauss-Newton matrix from one gradient.

    Labels are drawn from the softmax p of the scores. The gradient of the cross-entropy with them
    has mean zero, and its squared norm has the trace of G as its mean; Liu et al. (2023), Sophia,
    Sec. 2.3. If labels are held fixed, the derivative of that squared norm is not unbiased, because
    their distribution depends on the parameters. Each gradient is therefore multiplied by
    √(p(label) / p(label) at this point), which is 1 and makes the derivative unbiased.

    Args:
        scores: Shape ``(R, C)``, with their graph.
        scales: How the loss weighs each row; see ``softmax_scales``. Shape ``(R,)``.
        tensors: The parameters p of the blocks, one block each.
        weights: Their weights w_p.
        generator: Source of the labels, on the CPU.
        probes: How often labels are drawn.
        corrected: Whether that factor is applied; without it labels are taken as constant.

    Returns:
        Shape ``()``, with its graph.
    """
    logarithms = F.log_softmax(scores, 1)
    shares = logarithms.exp()
    drawn_from = shares.detach().double().cpu()
    total = scores.new_zeros(())
    for _ in range(probes):
        labels = torch.multinomial(drawn_from, 1, generator=generator).to(scores.device)
        cotangents = shares.scatter_add(1, labels, -torch.ones_like(shares[:, :1]))
        if corrected:
            chosen = logarithms.gather(1, labels)
            cotangents = cotangents * (0.5 * (chosen - chosen.detach())).exp()
        total = total + _squared_norm(scores, scales.sqrt()[:, None] * cotangents, tensors, weights)
    return total / probes


def per_class(
    scores: Tensor,
    scales: Tensor,
    tensors: Sequence[Tensor],
    weights: Sequence[float],
    generator: torch.Generator,
    probes: int = 1,
) -> Tensor:
    """Estimate Σ_p w_p tr(G_p) over blocks of the Gauss-Newton matrix from C gradients.

    The sum over classes Σ_c p_c (p - e_c)(p - e_c)ᵀ = diag(p) - ppᵀ is exact, and random signs
    separate the examples: of a single example the trace itself is computed.

    Arguments and result are those of ``sampled_labels``; ``probes`` counts the draws of signs.
    """
    logarithms = F.log_softmax(scores, 1)
    shares, total = logarithms.exp(), scores.new_zeros(())
    for _ in range(probes):
        for label in range(scores.shape[1]):
            (signs,) = _signs([scales], generator)
            factors = scales.sqrt() * signs * (0.5 * logarithms[:, label]).exp()
            labels = torch.full_like(scales, label, dtype=torch.long)[:, None]
            cotangents = shares.scatter_add(1, labels, -torch.ones_like(shares[:, :1]))
            total = total + _squared_norm(scores, factors[:, None] * cotangents, tensors, weights)
    return total / probes


def as_rows(outputs: Tensor) -> Tensor:
    """Give class scores ``(B, C, ...)`` as rows ``(R, C)``, one for each target.

    Raises:
        InputError: If outputs have no axis of at least two classes.
    """
    if outputs.dim() < 2 or outputs.shape[1] < 2 or not outputs.is_floating_point():
        raise InputError(
            f"method needs outputs that are scores of classes, (B, C, ...), got "
            f"{tuple(outputs.shape)} {outputs.dtype}. Use method='hutchinson'."
        )
    return outputs.movedim(1, -1).reshape(-1, outputs.shape[1])


def softmax_scales(
    loss: Loss,
    outputs: Tensor,
    targets: Tensor,
    parameters: Sequence[Tensor],
    generator: torch.Generator,
) -> Tensor:
    """Find s_r such that the loss has the Hessian s_r (diag(p) - ppᵀ) in each row of scores.

    That is so for cross-entropy: with class weights, ignored targets, label smoothing, targets
    that are probabilities, means and sums. The numbers are found where p is uniform, and checked
    at the outputs and at random scores.

    Args:
        loss: The loss.
        outputs: Shape ``(B, C, ...)``.
        targets: Those of the batch.
        parameters: Of the model; the loss must not read them.
        generator: Source of random scores, on the CPU.

    Returns:
        The scales, shape ``(R,)``, not negative.

    Raises:
        InputError: If the loss is another one.
    """

    def normal() -> Tensor:
        drawn = standard_normal(outputs.numel(), generator).view(outputs.shape)
        return drawn.to(outputs)

    def compare(at: Tensor, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Multiply the Hessians of the loss and of the softmax, as rows."""
        at = at.detach().clone().requires_grad_()
        value = loss(at, targets)
        read = grad(value, parameters, retain_graph=True, allow_unused=True)
        if any(slope is not None for slope in read):
            raise InputError(
                "The loss reads parameters of the model, so it has no Gauss-Newton matrix. Leave "
                "that term out, or use method='hutchinson'."
            )
        (slope,) = grad(value, at, create_graph=True, materialize_grads=True)
        found = torch.zeros_like(at)
        if slope.requires_grad:
            (found,) = grad(slope, at, vector, materialize_grads=True)
        shares, rows = as_rows(at.detach()).softmax(1), as_rows(vector)
        expected = shares * (rows - (shares * rows).sum(1, keepdim=True))
        return as_rows(found), expected

    found, expected = compare(torch.zeros_like(outputs), normal())
    scales = (found * expected).sum(1) / expected.square().sum(1)
    tolerance = _ROUNDING * torch.finfo(outputs.dtype).eps * float(scales.abs().max())
    for at in (torch.zeros_like(outputs), outputs, normal()):
        vector = normal()
        found, expected = compare(at, vector)
        departure = (found - scales[:, None] * expected).abs().amax()
        if not float(departure) <= tolerance * float(vector.abs().max()):
            raise InputError(
                "method takes a loss that is softmax cross-entropy of class scores; the Hessian of "
                f"this one in the outputs differs by {float(departure):.2g}. Use "
                "method='hutchinson', which takes any loss."
            )
    if float(scales.min()) < -tolerance:
        raise InputError(
            "method needs class weights that are not negative. Use method='hutchinson'."
        )
    return scales.clamp(min=0)


def _signs(tensors: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
    """Draw entries ±1 of the shapes of some tensors."""
    return [rademacher(t.numel(), generator).view(t.shape).to(t) for t in tensors]


def _squared_norm(
    scores: Tensor, cotangents: Tensor, tensors: Sequence[Tensor], weights: Sequence[float]
) -> Tensor:
    """Compute Σ_p w_p ‖J_pᵀu‖² for cotangents u that may depend on the parameters."""
    pulled = grad(scores, tensors, cotangents, create_graph=True, materialize_grads=True)
    terms = [w * t.square().sum() for w, t in zip(weights, pulled, strict=True)]
    return torch.stack(terms).sum()
