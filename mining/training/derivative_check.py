"""Whether the derivatives of an estimated trace are those of the loss: by finite differences."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd import grad
from torch.linalg import vector_norm

from mining import InputError
from mining.functional.memory import is_out_of_memory
from mining.functional.pytrees import is_divisible, map_tensors, num_examples, rows
from mining.functional.random_vectors import standard_normal
from mining.functional.substitution import Substitution

#: Examples on which derivatives are compared.
_EXAMPLES = 8
#: Length of a step relative to the parameters. In float64 it is long enough for derivatives of
#: three digits, and so short that hardly any unit of a piecewise linear network changes sides.
_STEP = 1e-7
#: Largest relative difference of equal derivatives.
_TOLERANCE = 1e-2
#: Units of rounding in the values that are subtracted.
_ROUNDING = 1e3
#: Directions in which derivatives may differ before they are taken to be wrong: one may cross the
#: kink of an activation.
_ATTEMPTS = 3


class _Estimated(Protocol):
    @property
    def loss(self) -> Tensor: ...
    @property
    def value(self) -> Tensor: ...


def check_derivatives(
    estimate: Callable[..., _Estimated],
    model: nn.Module,
    loss_module: nn.Module | None,
    batch: Any,
) -> None:
    """Compare the derivatives of an estimated trace with finite differences in float64.

    For a direction w the derivative of the estimate is compared with its change, and the second
    derivative wᵀHw of the loss with the change of its gradient. A function whose derivative is
    computed outside of the graph passes through ``backward()`` once, and is found here.

    Args:
        estimate: Takes penalized parameters and buffers by name, a batch, the number of a call and
            ``constant_labels``; gives loss and estimate.
        model: Whose parameters are replaced by copies for the time of the check.
        loss_module: The loss, if it is a module.
        batch: As the training has it.

    Raises:
        InputError: If derivatives differ, are missing, or model and loss do not run in float64.
    """
    few = batch
    if is_divisible(batch) and num_examples(batch) > _EXAMPLES:
        few = rows(batch, slice(_EXAMPLES))
    # A loss that differentiates outputs by inputs finds these among the targets.
    same = isinstance(batch, tuple | list) and len(batch) == 2 and batch[0] is batch[1]
    few = (map_tensors(_doubled, few[0]),) * 2 if same else map_tensors(_doubled, few)
    parameters = {name: p.detach().double() for name, p in model.named_parameters()}
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    buffers = {name: _doubled(b) for name, b in model.named_buffers()}
    own = {} if loss_module is None or loss_module is model else _tensors_of(loss_module)
    start = {name: parameters[name] for name in parameters if name in trained}
    fixed = {name: value.clone() for name, value in parameters.items() if name not in trained}

    def at(step: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor, Tensor]:
        leaves = {n: (value + step[n]).requires_grad_() for n, value in start.items()}
        with Substitution(model)({**leaves, **fixed}):
            if loss_module is None or loss_module is model:
                found = estimate(leaves, buffers, few, 0, constant_labels=True)
            else:
                with Substitution(loss_module)(own):
                    found = estimate(leaves, buffers, few, 0, constant_labels=True)
        return leaves, found.loss, found.value

    try:
        _compare(at, start)
    except (RuntimeError, TypeError) as error:
        if is_out_of_memory(error):
            raise
        raise InputError(
            f"The derivatives of the penalty cannot be checked: {error} Either model or loss have "
            "no such derivatives, or they do not run in float64: let their tensors follow the "
            "dtype of the inputs, or make sure of the derivatives and give check=False."
        ) from error


def _compare(
    at: Callable[[Mapping[str, Tensor]], tuple[dict[str, Tensor], Tensor, Tensor]],
    start: Mapping[str, Tensor],
) -> None:
    found: list[str] = []
    for attempt in range(_ATTEMPTS):
        step = _step(start, attempt)
        away = [at({n: sign * step[n] for n in step}) for sign in (1.0, -1.0)]
        if not all(bool(value.isfinite()) for _, _, value in away):
            return  # a training that diverges shows itself
        leaves, loss, value = at({n: torch.zeros_like(s) for n, s in step.items()})
        pairs = [
            ("third", *_third(away, leaves, value, step)),
            ("second", *_second(away, leaves, loss, step)),
        ]
        wrong = [
            f"the {order} derivative of the loss along a random direction is {ours:.4g}, and "
            f"{theirs:.4g} by finite differences"
            for order, ours, theirs, rounding in pairs
            if not abs(ours - theirs) <= _TOLERANCE * max(abs(ours), abs(theirs)) + rounding
        ]
        if not wrong:
            return
        found = wrong
    raise InputError(
        f"{found[0][0].upper()}{found[0][1:]}: a function in the model or the loss has a "
        "derivative that cannot be differentiated again (an autograd.Function whose backward "
        "leaves the graph by detach, item or NumPy). Write it with functions of torch."
    )


def _third(
    away: list[tuple[dict[str, Tensor], Tensor, Tensor]],
    leaves: Mapping[str, Tensor],
    value: Tensor,
    step: Mapping[str, Tensor],
) -> tuple[float, float, float]:
    """Give the change of the estimate over a step, twice, and what rounding it may have."""
    ours = 0.0
    if value.requires_grad:
        slopes = grad(value, list(leaves.values()), retain_graph=True, materialize_grads=True)
        ours = _dot(slopes, step)
    ahead, behind = (float(estimated.detach()) for *_, estimated in away)
    size = max(abs(ahead), abs(behind))
    return ours, (ahead - behind) / 2, _ROUNDING * torch.finfo(torch.float64).eps * size


def _second(
    away: list[tuple[dict[str, Tensor], Tensor, Tensor]],
    leaves: Mapping[str, Tensor],
    loss: Tensor,
    step: Mapping[str, Tensor],
) -> tuple[float, float, float]:
    """Give wᵀHw of a step w, twice, and what rounding it may have."""
    inputs = list(leaves.values())
    slopes = grad(loss, inputs, create_graph=True, materialize_grads=True)
    along = torch.stack([(s * step[n]).sum() for n, s in zip(leaves, slopes, strict=True)]).sum()
    ours = 0.0
    if along.requires_grad:
        ours = _dot(grad(along, inputs, materialize_grads=True), step)
    ends = [
        _dot(grad(other, list(moved.values()), materialize_grads=True), step)
        for moved, other, _ in away
    ]
    sizes = [
        vector_norm(s.detach()) * vector_norm(w) for s, w in zip(slopes, step.values(), strict=True)
    ]
    size = float(torch.stack(sizes).sum())
    return ours, (ends[0] - ends[1]) / 2, _ROUNDING * torch.finfo(torch.float64).eps * size


def _step(start: Mapping[str, Tensor], seed: int) -> dict[str, Tensor]:
    """Draw a step of each parameter, in proportion to its norm."""
    generator = torch.Generator().manual_seed(seed)
    step = {}
    for name, value in start.items():
        noise = standard_normal(value.numel(), generator).to(value).view(value.shape)
        size = vector_norm(value) if bool(value.any()) else value.numel() ** 0.5
        step[name] = noise * (_STEP * size / vector_norm(noise).clamp(min=1e-30))
    return step


def _dot(vectors: tuple[Tensor, ...], step: Mapping[str, Tensor]) -> float:
    return sum(float((v * w).sum()) for v, w in zip(vectors, step.values(), strict=True))


def _doubled(tensor: Tensor) -> Tensor:
    """Give a copy in float64 of a tensor of real numbers, a leaf if it is differentiated by."""
    if not tensor.is_floating_point():
        return tensor
    return tensor.detach().double().requires_grad_(tensor.requires_grad)


def _tensors_of(module: nn.Module) -> dict[str, Tensor]:
    tensors = (*module.named_parameters(), *module.named_buffers())
    return {name: _doubled(tensor.detach()) for name, tensor in tensors}
