"""The loss on random mini-batches: what stochastic optimization sees."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from mining import InputError
from mining.functional.batches import joined
from mining.functional.derivatives import check_recording
from mining.functional.loss import Loss
from mining.functional.network import Network
from mining.functional.prepare import Prepared
from mining.functional.pytrees import map_tensors, num_examples, rows
from mining.ranks import ONE

#: A loss, shape (), and its gradient (D,).
_Gradient = tuple[Tensor, Tensor]
#: Maps flat parameters (D,) to the loss on one batch, shape (), and its gradient (D,).
LossOnBatch = Callable[[Tensor], tuple[Tensor, Tensor]]


class MiniBatches:
    """Examples in random order and equal parts, and the loss on each part.

    Args:
        network: Runs the model.
        loss_fn: The loss.
        inputs: Of n examples, the first axis.
        targets: Of the same examples.
        batch_size: Most examples of a mini-batch, at least 1.
        regroups: Whether several ranks may share the examples of a mini-batch.
    """

    def __init__(
        self,
        network: Network,
        loss_fn: Loss,
        inputs: Any,
        targets: Any,
        batch_size: int,
        *,
        regroups: bool,
    ) -> None:
        self._network, self._loss_fn, self._regroups = network, loss_fn, regroups
        self._inputs, self._targets = inputs, targets
        self._num_examples = num_examples(inputs)
        num_batches = -(-self._num_examples // batch_size)
        if network.mixes_examples:  # a single example has no variance to normalize by
            num_batches = max(1, min(num_batches, self._num_examples // 2))
        #: Mini-batches in one pass over the examples, those without a target included.
        self.num_batches = num_batches
        self._some_ignored = loss_fn.weight is not None or (
            loss_fn.objective is None and loss_fn.weigh(inputs, targets)[1] < targets.numel()
        )

    def shuffled(self, generator: torch.Generator) -> Iterator[LossOnBatch]:
        """Pass over the examples once, in random order.

        Args:
            generator: Source of the order, on the CPU.

        Yields:
            The loss on each mini-batch as a function of the parameters. Sizes differ by one at
            most; a mini-batch of which all targets are ignored is left out. Random numbers that
            the model draws are new on each, and the same at all points.
        """
        device = self._network.theta.device
        order = torch.randperm(self._num_examples, generator=generator).to(device)
        for chosen in order.tensor_split(self.num_batches):
            inputs = map_tensors(partial(_drawn, chosen), self._inputs)
            # A loss that differentiates outputs by inputs finds these among the targets.
            targets = inputs if self._targets is self._inputs else rows(self._targets, chosen)
            if not self._some_ignored or self._loss_fn.weigh(inputs, targets)[0] > 0:
                seed = 0
                if self._network.stochastic:
                    seed = int(torch.randint(2**62, (), generator=generator))
                yield self._on(self._network.plan.prepare(inputs), targets, seed)

    def _on(self, inputs: Any, targets: Any, seed: int) -> LossOnBatch:
        network = self._network
        # That of a sum over all examples, as estimated from these.
        scale = self._num_examples / num_examples(inputs) if self._loss_fn.sums else 1.0

        def compute(theta: Tensor, inputs: Any, targets: Any, scale: float) -> _Gradient:
            check_recording()
            leaf = theta.detach().clone().requires_grad_()
            # Copies of the buffers: a forward pass may write to them.
            tensors = network.tensors(leaf, network.copy_buffers())
            with torch.enable_grad(), network.running(tensors) as forward, network.noise(seed):
                loss = self._loss_fn(forward(inputs), targets)
                loss = loss if scale == 1.0 else loss * scale
                (gradient,) = torch.autograd.grad(loss, leaf)
            return loss.detach(), gradient

        group = network.sharing() if self._regroups else ONE
        if group.size == 1:
            return lambda theta: compute(theta, inputs, targets, scale)
        whole = self._loss_fn.batch(inputs, targets)
        own = self._loss_fn.cut([whole], *group.interval(whole.num_examples))
        total = self._loss_fn.denominator([whole.weight])

        def compute_together(theta: Tensor) -> _Gradient:
            sums = torch.zeros(len(theta) + 1, dtype=theta.dtype, device=theta.device)
            for part in own:
                if part.weight > 0:
                    share = scale * part.weight / total
                    loss, gradient = compute(theta, part.inputs, part.targets, share)
                    sums += torch.cat([gradient, loss.to(gradient)[None]])
            group.sum(sums)
            return sums[-1], sums[:-1]

        return compute_together


def _drawn(chosen: Tensor, tensor: Tensor) -> Tensor:
    """Take rows of a tensor as a leaf, which a model may differentiate by."""
    taken = tensor[chosen] if tensor.dim() > 0 else tensor
    return taken.detach().requires_grad_(tensor.requires_grad)


def mini_batches(
    prepared: Prepared, batch_size: int, autocast: torch.dtype | None = None
) -> MiniBatches:
    """Give the examples as stochastic optimization takes them; see ``Landscape.mini_batches``."""
    network = prepared.network
    prepared.check_derivable(network.space)
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, got {batch_size}.")
    if network.policy.mode != "frozen":
        network = network.with_batch_statistics()
    if autocast is not None:
        network = network.in_precision(autocast)
    inputs, targets = (
        joined(tensors)
        for tensors in zip(*((b.inputs, b.targets) for b in prepared.batches), strict=True)
    )
    if all(batch.targets is batch.inputs for batch in prepared.batches):
        targets = inputs
    # Examples that are normalized together cannot be divided.
    regroups = prepared.regroups and not (network.mixes_examples or network.needs_graph)
    return MiniBatches(network, prepared.loss, inputs, targets, batch_size, regroups=regroups)
