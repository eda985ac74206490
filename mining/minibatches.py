"""The loss on random mini-batches: what stochastic optimization sees."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from mining.criterion import Criterion
from mining.errors import InputError
from mining.network import Network

#: Maps flat parameters (D,) to the loss on one batch, shape (), and its gradient (D,).
LossOnBatch = Callable[[Tensor], tuple[Tensor, Tensor]]


class MiniBatches:
    """Examples in random order and equal parts, and the loss on each part.

    Args:
        network: Runs the model.
        criterion: The loss.
        inputs: Of n examples, the first axis.
        targets: Of the same examples.
        batch_size: Most examples of a mini-batch, at least 1.
    """

    def __init__(
        self,
        network: Network,
        criterion: Criterion,
        inputs: Tensor,
        targets: Tensor,
        batch_size: int,
    ) -> None:
        self._network, self._criterion = network, criterion
        self._inputs, self._targets = inputs, targets
        num_batches = -(-len(inputs) // batch_size)
        if network.mixes_examples:  # a single example has no variance to normalize by
            num_batches = max(1, min(num_batches, len(inputs) // 2))
        #: Mini-batches in one pass over the examples, those without a target included.
        self.num_batches = num_batches
        self._some_ignored = criterion.weigh(targets)[1] < targets.numel()

    def shuffled(self, generator: torch.Generator) -> Iterator[LossOnBatch]:
        """Pass over the examples once, in random order.

        Args:
            generator: Source of the order, on the CPU.

        Yields:
            The loss on each mini-batch as a function of the parameters. Sizes differ by one at
            most; a mini-batch of which all targets are ignored is left out.
        """
        order = torch.randperm(len(self._inputs), generator=generator).to(self._inputs.device)
        for chosen in order.tensor_split(self.num_batches):
            inputs, targets = self._inputs[chosen], self._targets[chosen]
            if not self._some_ignored or self._criterion.weigh(targets)[0] > 0:
                yield self._on(self._network.path.prepare(inputs), targets)

    def _on(self, inputs: Tensor, targets: Tensor) -> LossOnBatch:
        network = self._network

        def loss_and_gradient(theta: Tensor) -> tuple[Tensor, Tensor]:
            leaf = theta.detach().requires_grad_()
            # Copies of the buffers: a forward pass may write to them.
            tensors = network.tensors(leaf, network.copy_buffers())
            with torch.enable_grad(), network.running(tensors) as forward:
                loss = self._criterion.loss_fn(forward(inputs), targets)
                (gradient,) = torch.autograd.grad(loss, leaf)
            return loss.detach(), gradient

        return loss_and_gradient


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Lay tensors end to end along their first axis, without a copy where they lie so already.

    Raises:
        InputError: If they differ in shape beyond the first axis.
    """
    if len({part.shape[1:] for part in parts}) > 1:
        shapes = sorted({tuple(part.shape[1:]) for part in parts})
        raise InputError(f"Mini-batches need examples of one shape, got {shapes[:3]}.")
    whole = parts[0]._base
    if (
        whole is not None
        and whole.shape == (sum(map(len, parts)), *parts[0].shape[1:])
        and all(part.dtype == whole.dtype for part in parts)
        and all(part.stride() == whole.stride() for part in parts)
        and whole.data_ptr() == parts[0].data_ptr()
        and all(_follows(b, a) for a, b in pairwise(parts))
    ):
        return whole
    return torch.cat(list(parts))


def _follows(part: Tensor, previous: Tensor) -> bool:
    """Whether ``part`` begins in memory where the next row of ``previous`` would."""
    step = previous.stride(0) * len(previous) * previous.element_size()
    return part.data_ptr() == previous.data_ptr() + step
