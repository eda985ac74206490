"""Batch-norm statistics away from the point at which they were collected."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from mining import InputError
from mining.ranks import ONE, Ranks

Mode = Literal["recalibrate", "frozen", "batch"]

#: Examples of a batch that statistics are estimated on; ``Dataset.batches(128)`` of 1,000, 5,000
#: or 50,000 examples has so many too.
_BATCH, _SMALLEST = 125, 32


@dataclass(frozen=True)
class BatchNormPolicy:
    """Which statistics normalize the activations at a perturbed point θ + αε.

    - ``recalibrate``: statistics are re-estimated at every point, then held fixed for the loss
      and its derivatives (UpBN in Xu et al., 2024).
    - ``frozen``: the running statistics stored in the model, at every point (No UpBN).
    - ``batch``: every batch is normalized by its own statistics, which are differentiated.

    Dropout and other noise layers are off under every policy, and the running statistics stored in
    the model are never changed. Layers without running statistics always use those of the batch.

    Args:
        mode: One of the three.
        num_examples: Number of examples on which ``recalibrate`` estimates; ``None``: all.

    Raises:
        InputError: If ``mode`` is none of the three or ``num_examples`` is below 2.
    """

    mode: Mode = "recalibrate"
    num_examples: int | None = None

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise InputError(f"batchnorm must be one of {get_args(Mode)}, got {self.mode!r}.")
        if self.num_examples is not None and self.num_examples < 2:
            raise InputError(
                "batchnorm.num_examples must be at least 2, one example has no variance: "
                f"got {self.num_examples}."
            )


def norm_layers(model: nn.Module) -> list[_NormBase]:
    """List the layers of ``model`` that keep running statistics."""
    return [m for m in model.modules() if isinstance(m, _NormBase) and m.running_mean is not None]


def names_of_statistics(model: nn.Module) -> set[str]:
    """List the buffers of those layers by name."""
    layers = norm_layers(model)
    modules = model.named_modules(remove_duplicate=False)
    return {n for p, module in modules if module in layers for n, _ in module.named_buffers(p)}


def mixes_examples(model: nn.Module, policy: BatchNormPolicy) -> bool:
    """Whether the output for one example depends on the others of its batch under ``policy``."""
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    return any(policy.mode == "batch" or layer.running_mean is None for layer in layers)


def recalibration_batch_size(largest: int) -> int:
    """Choose the examples of a batch on which statistics are estimated.

    The same for all loaders, since statistics of small batches are others: the layers behind the
    first see activations normalized by a batch that is not the whole. A loader of smaller batches
    may have them for want of memory; but a pass without derivatives takes little of it.

    Args:
        largest: Examples of the loader's largest batch.
    """
    return max(_SMALLEST, min(_BATCH, largest))


@contextmanager
def modes(model: nn.Module, *, batch_statistics: bool) -> Iterator[None]:
    """Put ``model`` in eval mode, and restore every module's own mode on leaving.

    Embeddings give the gradient itself meanwhile: dense, not divided by how often a token occurs
    in the batch, and that of the padding token too.

    Args:
        model: The model.
        batch_statistics: Whether norm layers use the statistics of the batch (and update the
            running ones) instead of the running ones.
    """
    modules = list(model.modules())
    before = [module.training for module in modules]
    embeddings = [m for m in modules if isinstance(m, nn.Embedding | nn.EmbeddingBag)]
    gradients = [(layer.sparse, layer.scale_grad_by_freq) for layer in embeddings]
    padded = [m for m in modules if isinstance(m, nn.Embedding)]  # a bag leaves padding out
    padding = [layer.padding_idx for layer in padded]
    try:
        model.eval()
        for layer in embeddings:
            layer.sparse = layer.scale_grad_by_freq = False
        for embedding in padded:
            embedding.padding_idx = None
        if batch_statistics:
            for norm in norm_layers(model):
                norm.train()
        yield
    finally:
        for layer, (sparse, scaled) in zip(embeddings, gradients, strict=True):
            layer.sparse, layer.scale_grad_by_freq = sparse, scaled
        for embedding, index in zip(padded, padding, strict=True):
            embedding.padding_idx = index
        for module, training in zip(modules, before, strict=True):
            module.training = training


def recalibrate(
    model: nn.Module,
    batches: Iterable[Any],
    forward: Callable[[Any], object],
    group: Ranks = ONE,
) -> None:
    """Estimate the running statistics of ``model`` anew, in place.

    The estimate is the mean over batches of the batch mean and the unbiased batch variance, each
    batch weighing as many times as it has examples, so a ragged last batch counts no more than
    its share. With equal batches it is what ``torch.optim.swa_utils.update_bn`` computes, except
    that dropout is off. Modes and momenta are restored.

    Args:
        model: The model, whose buffers are overwritten.
        batches: Inputs, each with its examples along the first axis; of several ranks each has
            its share of them.
        forward: Runs the model on inputs.
        group: The ranks.
    """
    layers = norm_layers(model)
    if not layers:
        return
    for layer in layers:
        assert layer.running_mean is not None
        assert layer.running_var is not None
        layer.running_mean.zero_()
        layer.running_var.fill_(1)
    with modes(model, batch_statistics=True), _cumulative_average(layers) as seen:
        for inputs in batches:
            forward(inputs)
    if group.size > 1:
        _average_over_ranks(seen, group)


def _average_over_ranks(seen: Mapping[_NormBase, int], group: Ranks) -> None:
    """Average the statistics of ranks, each weighing as many times as it has seen examples."""
    parts = []
    for layer, num in seen.items():
        assert layer.running_mean is not None
        assert layer.running_var is not None
        statistics = torch.cat([layer.running_mean.double(), layer.running_var.double()])
        parts.append(torch.cat([num * statistics, statistics.new_tensor([num])]))
    sums = torch.split(group.sum(torch.cat(parts)), [len(part) for part in parts])
    for layer, part in zip(seen, sums, strict=True):
        assert layer.running_mean is not None
        assert layer.running_var is not None
        if part[-1] > 0:  # else it is in no batch
            mean, variance = (part[:-1] / part[-1]).chunk(2)
            layer.running_mean.copy_(mean)
            layer.running_var.copy_(variance)


@contextmanager
def _cumulative_average(layers: Iterable[_NormBase]) -> Iterator[Mapping[_NormBase, int]]:
    """Let running statistics be plain averages over examples, also of a layer used twice.

    Gives how many examples each layer has seen.
    """
    seen = dict.fromkeys(layers, 0)
    momenta = {layer: layer.momentum for layer in seen}

    def before_forward(
        layer: nn.Module, arguments: tuple[Tensor, ...], named: dict[str, Tensor]
    ) -> None:
        assert isinstance(layer, _NormBase)
        (inputs,) = (*arguments, *named.values())
        seen[layer] += len(inputs)
        layer.momentum = len(inputs) / seen[layer]

    hooks = [layer.register_forward_pre_hook(before_forward, with_kwargs=True) for layer in seen]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()
        for layer, momentum in momenta.items():
            layer.momentum = momentum
