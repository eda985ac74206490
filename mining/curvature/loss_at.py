"""The loss around one point, as curvature operators differentiate it."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (the name under which everybody knows it)
from torch.nn.attention import SDPBackend, sdpa_kernel

from mining import InputError
from mining.functional.calls import CallMode, TorchFunction
from mining.functional.checks import check_independent
from mining.functional.evaluation import evaluate, share
from mining.functional.loss import Batch, Loss
from mining.functional.network import Network
from mining.functional.parameters import ParameterSpace
from mining.functional.prepare import Prepared
from mining.functional.randomness import seeded
from mining.functional.substitution import Forward
from mining.ranks import Ranks

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LossAt:
    """The mean loss over examples, a sum of micro-batches, as a function around one θ.

    Args:
        space: The d parameters to differentiate by.
        theta: Their values, shape ``(d,)``.
        running: Puts those parameters, by name, into the model, and gives it as a function of
            inputs. A loss may read the model, and a graph run parts of it again: both happen
            within.
        loss_fn: Maps outputs and targets to the loss of a batch.
        batches: The micro-batches, each with its weight.
        ranks: The ranks that share the examples.
        own: The micro-batches of this rank.
    """

    space: ParameterSpace
    theta: Tensor
    running: Callable[[dict[str, Tensor]], AbstractContextManager[Callable[[Any], Tensor]]]
    loss_fn: Loss
    batches: Sequence[Batch]
    ranks: Ranks
    own: Sequence[Batch]

    def __repr__(self) -> str:
        """Say what it is, in one line."""
        return f"LossAt({self.space.size} parameters, {len(self.batches)} micro-batches)"

    @cached_property
    def total(self) -> float:
        """The total weight of all micro-batches, 1 for a sum."""
        return self.loss_fn.denominator(batch.weight for batch in self.batches)

    def leaves(self) -> dict[str, Tensor]:
        """Return θ by name, as leaf tensors that require gradients."""
        return {
            name: tensor.detach().clone().requires_grad_()
            for name, tensor in self.space.unflatten(self.theta).items()
        }

    def check_repeatable(self) -> None:
        """Raise ``InputError`` unless model and loss are deterministic."""
        # Not one whose targets are all ignored: its loss is nan.
        inputs, targets, *_ = next(batch for batch in self.batches if batch.weight > 0)
        leaves = self.space.unflatten(self.theta)
        # Models and losses that differentiate by their inputs need gradients to be recorded.
        with (
            seeded(0, self.theta.device),  # the caller's random numbers stay as they are
            torch.enable_grad(),
            self.running(leaves) as forward,
            _AttentionNotice(),
        ):
            before = _random_states(self.theta.device)
            first, second = (forward(inputs) for _ in range(2))
            losses = [self.loss_fn(first, targets) for _ in range(2)]
            after = _random_states(self.theta.device)
        drawn = any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))
        # Sums on a GPU may be taken in another order each time; dropout changes far more than that.
        tolerance = 1e3 * torch.finfo(first.dtype).eps
        difference = (first - second).abs().max() / first.abs().max().clamp(min=1e-30)
        if drawn or difference > tolerance or not torch.equal(*losses):
            raise InputError(
                "The model or the loss is stochastic: it draws random numbers, or the same inputs "
                f"gave outputs that differ by {float(difference):.3g} of their size. The Hessian "
                "is then undefined. Turn the randomness off (functional dropout with "
                "training=True, stochastic depth)."
            )


_ATTENTION = {
    F.scaled_dot_product_attention,
    F.multi_head_attention_forward,
    torch._native_multi_head_attention,
    torch._transformer_encoder_layer_fwd,
}


class _AttentionNotice(CallMode):
    """Logs once that attention uses another kernel than in evaluations."""

    _said = False

    def call(self, function: TorchFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Look at the function, and let it through."""
        if function in _ATTENTION and not self._said:
            self._said = True
            log.info("Attention uses the math kernel: the fused kernels have no second derivative.")
        return function(*args, **kwargs)


def _random_states(device: torch.device) -> list[Tensor]:
    """The states of torch's global generators."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def loss_at(
    prepared: Prepared,
    theta: Tensor | None = None,
    parameters: str | Sequence[str] | None = None,
    micro_batch: int | None = None,
) -> LossAt:
    """Give the loss as a differentiable function around ``theta``; see ``Landscape.hessian``.

    Args:
        prepared: The model, the loss and its examples.
        theta: Flat parameters, shape ``(D,)``; by default those of the model.
        parameters: What to differentiate by, as ``ParameterSpace.select`` takes it.
        micro_batch: Most examples in one graph; ``None``: those of one pass.

    Raises:
        InputError: If there are no second derivatives there, or the model is stochastic.
    """
    network = prepared.network
    _check_precision(network)
    if micro_batch is not None and micro_batch < 1:
        raise InputError(f"micro_batch must be at least 1, got {micro_batch}.")
    given = network.theta if theta is None else theta  # whose statistics may be known
    theta = prepared.derivable(theta)
    space = network.space if parameters is None else network.space.select(parameters)
    prepared.check_derivable(space)
    group = network.sharing()
    statistics = prepared.statistics.at(given, group)
    loss = evaluate(prepared, theta, statistics=statistics, group=group).loss
    if not torch.isfinite(loss):
        raise InputError(f"The loss at theta is {loss.item()}, so its curvature is undefined.")
    values = network.space.unflatten(theta)
    fixed = {name: tensor for name, tensor in values.items() if name not in space.names}
    fixed |= network.frozen

    @contextmanager
    def running(leaves: dict[str, Tensor]) -> Iterator[Forward]:
        # A forward pass may write to buffers, and a graph may be kept.
        buffers = {name: buffer.clone() for name, buffer in statistics.items()}
        tensors = {**fixed, **buffers, **leaves}
        with (
            network.modes(),
            network.substitution(tensors),
            sdpa_kernel(SDPBackend.MATH),
            network.right_gradients(),
        ):
            yield network.plan.folding.fold(network.forward, tensors, affine=True)

    batches = prepared.batches
    if not network.mixes_examples:
        if micro_batch is not None and network.plan.micro_batch is None:
            check_independent(network, prepared.loss, batches, micro_batch)
        if micro_batch is not None:
            batches = prepared.loss.split(batches, micro_batch)
    chosen = {name: values[name] for name in space.names}
    own = share(prepared, batches, group)
    flat = space.flatten(chosen)
    differentiable = LossAt(space, flat, running, prepared.loss, batches, group, own)
    differentiable.check_repeatable()
    return differentiable


def _check_precision(network: Network) -> None:
    """Raise ``InputError`` if second derivatives would be noise."""
    if network.autocast is not None or network.tf32:
        raise InputError(
            f"Second derivatives in {network.autocast or 'tf32'} are noise: use precision fp32 "
            "or fp64 (autocast=None, tf32=False)."
        )
    if network.theta.dtype in (torch.bfloat16, torch.float16):
        raise InputError(
            f"Second derivatives in {network.theta.dtype} are noise: give the model in float32 or "
            "float64."
        )
