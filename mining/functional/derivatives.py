"""Whether automatic differentiation has a derivative to give."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from mining import InputError

#: How far parameters are moved, relative to their norm, to see whether the loss depends on them.
_STEPS = (0.05, 1.0)

#: Maps parameters by name to the loss, shape (), and its gradient by name.
LossAndGradient = Callable[[Mapping[str, Tensor]], tuple[Tensor, Mapping[str, Tensor]]]


def check_recording() -> None:
    """Raise ``InputError`` inside ``torch.inference_mode()``, where every derivative is zero."""
    if torch.is_inference_mode_enabled():
        raise InputError(
            "Nothing can be differentiated inside torch.inference_mode(). Leave it out, or use "
            "torch.no_grad(), inside which landscapes, operators and miners do work."
        )


def find_underivable(loss: LossAndGradient, theta: Mapping[str, Tensor]) -> list[str]:
    """Find parameters that change the loss, but by which its derivative is zero everywhere.

    So it is where a loss is detached from them (``detach``, ``item``, ``no_grad``) or constant in
    steps (``argmax``, ``round``). A derivative that is exactly zero at θ, at two points away from
    it, and wherever the loss was found to differ from that at θ, is taken for such. Parameters
    that the loss does not depend on are none of these, nor are those at which it happens to be
    stationary, or constant in a neighborhood.

    Args:
        loss: The loss, and its gradient with zeros where there is none.
        theta: The parameters.

    Returns:
        Names, in the order of ``theta``.
    """
    at_theta, gradient = loss(theta)
    names = [name for name in theta if not gradient[name].any()]
    for seed, step in enumerate(_STEPS):
        if names:
            _, gradient = loss(_moved(theta, names, step, seed))
            names = [name for name in names if not gradient[name].any()]

    def look(moving: Sequence[str], steps: Sequence[float] = _STEPS) -> tuple[bool, bool]:
        """Whether the loss differs away from θ, and whether it has a slope there."""
        found = [loss(_moved(theta, moving, step, 2)) for step in steps]
        values = torch.stack([value for value, _ in found])
        scale = torch.maximum(values.abs().max(), at_theta.abs())
        rounding = 1e3 * torch.finfo(at_theta.dtype).eps * scale
        slope = any(bool(gradient[name].any()) for _, gradient in found for name in moving)
        return bool(((values - at_theta).abs() > rounding).any()), slope

    # A loss that draws random numbers changes by itself.
    if not names or look([], (0.0,))[0] or not look(names)[0]:
        return []
    return [name for name in names if look([name]) == (True, False)]


def _moved(
    theta: Mapping[str, Tensor], names: Sequence[str], step: float, seed: int
) -> dict[str, Tensor]:
    """Move some of the parameters at random."""
    generator = torch.Generator().manual_seed(seed)
    moved = dict(theta)
    for name in names:
        value = theta[name]
        noise = torch.randn(value.shape, generator=generator).to(value)
        length = step * (value.norm() if value.any() else value.numel() ** 0.5)
        moved[name] = value + noise * (length / noise.norm())
    return moved
