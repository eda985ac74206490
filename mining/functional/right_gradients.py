"""Functions whose gradient torch gets wrong: replaced by a formula, or refused."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812

from mining import InputError
from mining.functional.calls import CallMode, TorchFunction


class RightGradients(CallMode):
    """Replaces or refuses calls whose gradient is wrong in torch 2.14.

    Instance norm of a single example mixes up its channels in the gradient if those of its output's
    gradient are last in memory (wrong by more than its size); its formula is differentiated
    instead. The gradient of the soft margin loss negates its targets before it promotes them, so
    that an unsigned -1 is 255 in the loss and 1 in its gradient; that is refused.
    """

    def __init__(self) -> None:
        super().__init__()
        #: Whether a function that is replaced was called.
        self.replaced = False

    def call(self, function: TorchFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Look at instance norm and the soft margin loss, and let all else through."""
        if function is F.instance_norm:
            self.replaced = True
            return normalize_instances(*args, **kwargs)
        if function is F.soft_margin_loss:
            targets = args[1] if len(args) > 1 else kwargs.get("target")
            if isinstance(targets, Tensor) and targets.dtype is torch.uint8:
                raise InputError(
                    "Targets of the soft margin loss must be signed, got torch.uint8, for which "
                    "torch gives a wrong gradient. Convert them: targets.to(torch.int64)."
                )
        return function(*args, **kwargs)


def normalize_instances(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalize each channel of each example, as ``torch.nn.functional.instance_norm`` does.

    Both derivatives are right, which torch's are not for a single example with channels last.
    """
    shape = (-1,) + (1,) * (input.dim() - 2)
    if use_input_stats or running_mean is None or running_var is None:
        space = tuple(range(2, input.dim()))
        variance, mean = torch.var_mean(input, space, correction=0, keepdim=True)
        if running_mean is not None:
            with torch.no_grad():  # for the update of the running statistics
                F.instance_norm(input, running_mean, running_var, momentum=momentum)
    else:
        variance, mean = running_var.view(shape), running_mean.view(shape)
    scale = torch.rsqrt(variance + eps)
    scale = scale if weight is None else scale * weight.view(shape)
    shifted = (input - mean) * scale
    return shifted if bias is None else shifted + bias.view(shape)
