"""Batch norm away from the point where its running statistics were collected."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

Mode = Literal["recalibrate", "frozen", "batch"]


@dataclass(frozen=True)
class BatchNormPolicy:
    """Which statistics normalize the activations at a perturbed point θ + αε.

    - ``recalibrate``: statistics are estimated anew at every point, then held fixed for the loss
      and its derivatives (the paper's UpBN).
    - ``frozen``: the running statistics stored in the model, everywhere (No UpBN).
    - ``batch``: every batch is normalized by its own statistics, and derivatives go through them.

    Dropout and the like are off under every policy, and the running statistics stored in the
    model are never changed. Layers without running statistics use those of the batch always.

    Args:
        mode: One of the three.
        num_examples: Examples used by ``recalibrate``; ``None`` uses all.

    Raises:
        ValueError: If ``mode`` is none of the three or ``num_examples`` is below 1.
    """

    mode: Mode = "recalibrate"
    num_examples: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ValueError(f"batchnorm must be one of {get_args(Mode)}, got {self.mode!r}.")
        if self.num_examples is not None and self.num_examples < 1:
            raise ValueError(f"batchnorm.num_examples must be positive, got {self.num_examples}.")


def norm_layers(model: nn.Module) -> dict[str, _NormBase]:
    """Find the layers of ``model`` that keep running statistics, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _NormBase) and module.running_mean is not None
    }


@contextmanager
def modes(model: nn.Module, *, batch_statistics: bool) -> Iterator[None]:
    """Put ``model`` in eval mode, and restore every module's own mode on leaving.

    Args:
        model: The model.
        batch_statistics: Whether norm layers use the statistics of the batch (and update the
            running ones) instead of the running ones.
    """
    modules = list(model.modules())
    before = [module.training for module in modules]
    try:
        model.eval()
        if batch_statistics:
            for layer in norm_layers(model).values():
                layer.train()
        yield
    finally:
        for module, training in zip(modules, before, strict=True):
            module.training = training


def recalibrate(
    model: nn.Module,
    buffers: dict[str, Tensor],
    batches: Sequence[Tensor],
    forward: Callable[[Tensor, dict[str, Tensor]], object],
) -> dict[str, Tensor]:
    """Estimate running statistics anew from ``batches``.

    The estimate is the mean over batches of the batch mean and the unbiased batch variance, each
    batch weighing as many times as it has examples, so a ragged last batch counts no more than
    its share. With equal batches it is what ``torch.optim.swa_utils.update_bn`` computes, except
    that dropout is off.

    Args:
        model: The model; its modes and momenta are restored and its buffers untouched.
        buffers: The model's buffers by name.
        batches: Inputs, each with its examples along the first axis.
        forward: Runs the model on inputs with the given buffers, which it may update in place.

    Returns:
        Buffers by name, those of the norm layers estimated anew, the others as given.
    """
    layers = norm_layers(model)
    if not layers:
        return buffers
    estimated = {name: buffer.clone() for name, buffer in buffers.items()}
    for name in layers:
        estimated[f"{name}.running_mean"].zero_()
        estimated[f"{name}.running_var"].fill_(1)
    with modes(model, batch_statistics=True), _cumulative_average(layers.values()):
        for inputs in batches:
            forward(inputs, estimated)
    return estimated


@contextmanager
def _cumulative_average(layers: Iterable[_NormBase]) -> Iterator[None]:
    """Let running statistics be plain averages over examples, also of a layer used twice."""
    seen = dict.fromkeys(layers, 0)
    momenta = {layer: layer.momentum for layer in seen}

    def before_forward(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, _NormBase)
        seen[layer] += len(arguments[0])
        layer.momentum = len(arguments[0]) / seen[layer]

    hooks = [layer.register_forward_pre_hook(before_forward) for layer in seen]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
        for layer, momentum in momenta.items():
            layer.momentum = momentum
