"""The size of what each module of a model puts out, at points in parameter space."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from mining.functional.evaluation import Buffers, evaluate
from mining.functional.loss import Batch
from mining.functional.prepare import Prepared
from mining.functional.pytrees import tensors_of


@dataclass(frozen=True)
class Activation:
    """The outputs of one call of a module, over all examples."""

    rms: float  # root of the mean square of all entries
    finite: bool  # whether all entries are


def activations(
    prepared: Prepared,
    theta: Tensor,
    batches: Sequence[Batch] | None = None,
    statistics: Buffers | None = None,
) -> dict[str, Activation]:
    """Measure the outputs of all modules at ``theta``, as the model runs without fused layers.

    Args:
        prepared: The model, the loss and its examples.
        theta: Flat parameters, shape ``(D,)``.
        batches: Other examples, as ``Prepared.hold`` returns them.
        statistics: The buffers of the point, if they are known.

    Returns:
        By name, in the order in which modules finish: a layer before the block that it is in, and
        the model itself, ``(output)``, last. Further calls of one module in a pass have their
        number in the name. Outputs without floating-point tensors are left out.
    """
    # Before the hooks: estimating statistics runs the model too.
    buffers = prepared.statistics.at(theta) if statistics is None else statistics
    plain = replace(prepared, network=prepared.network.unfused())
    sums: dict[str, list[Tensor]] = {}
    with _hooked(plain.network.model, sums):
        evaluate(plain, theta, batches, buffers)
    return {name: _summarize(parts) for name, parts in sums.items()}


@contextmanager
def _hooked(model: nn.Module, sums: dict[str, list[Tensor]]) -> Iterator[None]:
    """Collect what ``_measure`` finds of every output."""
    calls: dict[str, int] = {}
    hooks: list[RemovableHandle] = []

    def start(*_: object) -> None:
        calls.clear()

    def watch(name: str, module: nn.Module) -> RemovableHandle:
        def after(_module: nn.Module, _inputs: Any, outputs: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            key = name if calls[name] == 1 else f"{name} (call {calls[name]})"
            for tensor in tensors_of(outputs):
                if tensor.is_floating_point() and tensor.numel():
                    sums.setdefault(key, []).append(_measure(tensor.detach()))

        return module.register_forward_hook(after)

    try:
        hooks.append(model.register_forward_pre_hook(start))
        hooks += [watch(name or "(output)", module) for name, module in model.named_modules()]
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _measure(outputs: Tensor) -> Tensor:
    """Return number of entries, largest magnitude and mean square relative to its square."""
    wide = outputs.double()
    largest = wide.abs().max()  # NaN if one entry is
    # Squares of large entries of float64 would overflow.
    relative = (wide / torch.where(largest > 0, largest, 1.0)).square().mean()
    return torch.stack([largest.new_tensor(float(wide.numel())), largest, relative])


def _summarize(parts: Sequence[Tensor]) -> Activation:
    num, largest, relative = torch.stack(list(parts)).unbind(1)
    top = largest.max()
    if not bool(torch.isfinite(top)):
        return Activation(math.nan if bool(torch.isnan(top)) else math.inf, False)
    if top == 0:
        return Activation(0.0, True)
    mean = (num * relative * (largest / top).square()).sum() / num.sum()
    return Activation(float(top * mean.sqrt()), True)
