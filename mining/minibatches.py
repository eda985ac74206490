"""The loss on random mini-batches: what stochastic optimization sees."""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from mining.criterion import LossFunction
from mining.network import Network

#: Maps flat parameters (D,) to the loss on one batch, shape (), and its gradient (D,).
LossOnBatch = Callable[[Tensor], tuple[Tensor, Tensor]]


class MiniBatches:
    """Examples in random order and equal parts, and the loss on each part.

    Args:
        network: Runs the model.
        loss_fn: Maps outputs and targets to their mean loss, shape ``()``.
        inputs: Of n examples, the first axis.
        targets: Of the same examples.
        batch_size: Most examples of a mini-batch, at least 1.
    """

    def __init__(
        self,
        network: Network,
        loss_fn: LossFunction,
        inputs: Tensor,
        targets: Tensor,
        batch_size: int,
    ) -> None:
        self._network, self._loss_fn = network, loss_fn
        self._inputs, self._targets = inputs, targets
        #: Mini-batches in one pass over the examples.
        self.num_batches = -(-len(inputs) // batch_size)

    def shuffled(self, generator: torch.Generator) -> Iterator[LossOnBatch]:
        """Pass over the examples once, in random order.

        Args:
            generator: Source of the order, on the CPU.

        Yields:
            The loss on each mini-batch as a function of the parameters. Sizes differ by one at
            most: a last batch of a single example has no variance to normalize by.
        """
        order = torch.randperm(len(self._inputs), generator=generator).to(self._inputs.device)
        for chosen in order.tensor_split(self.num_batches):
            yield self._on(self._network.path.prepare(self._inputs[chosen]), self._targets[chosen])

    def _on(self, inputs: Tensor, targets: Tensor) -> LossOnBatch:
        network = self._network

        def loss_and_gradient(theta: Tensor) -> tuple[Tensor, Tensor]:
            leaf = theta.detach().requires_grad_()
            # Copies of the buffers: a forward pass may write to them.
            tensors = network.tensors(leaf, network.copy_buffers())
            with torch.enable_grad(), network.running(tensors) as forward:
                loss = self._loss_fn(forward(inputs), targets)
                (gradient,) = torch.autograd.grad(loss, leaf)
            return loss.detach(), gradient

        return loss_and_gradient


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Lay tensors end to end along their first axis, without a copy where they lie so already.

    Raises:
        ValueError: If they differ in shape beyond the first axis.
    """
    if len({part.shape[1:] for part in parts}) > 1:
        shapes = sorted({tuple(part.shape[1:]) for part in parts})
        raise ValueError(f"Mini-batches need examples of one shape, got {shapes[:3]}.")
    whole = parts[0]._base
    if (
        whole is not None
        and all(part._base is whole for part in parts)
        and whole.shape[1:] == parts[0].shape[1:]
        and len(whole) == sum(map(len, parts))
        and all(a.data_ptr() < b.data_ptr() for a, b in pairwise(parts))
    ):
        return whole
    return torch.cat(list(parts))
