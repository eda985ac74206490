"""What was found out about a landscape, for people and for records."""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from mining.functional.activation import measure_activation
from mining.functional.batchnorm import norm_layers
from mining.functional.evaluation import evaluate
from mining.functional.execution_plan import ExecutionPlan
from mining.functional.loss import Batch, Loss
from mining.functional.network import Network
from mining.functional.prepare import Prepared
from mining.functional.pytrees import num_examples, rows, tensors_of
from mining.functional.recalibration import estimate_statistics

_NORM_LAYERS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.LocalResponseNorm)
#: Examples on which parameters that the loss does not use are looked for.
_TRIED = 64


def describe(prepared: Prepared) -> dict[str, object]:
    """Say what was found out about model, loss and examples; see ``Landscape.describe``."""
    network, loss_fn, batches = prepared.network, prepared.loss, prepared.batches
    effect, stored = prepared.statistics.effect, network.copy_buffers()
    precision = "tf32" if network.tf32 else str(network.autocast or network.space.dtype)
    recalibration = prepared.statistics.inputs
    return {
        "model": type(network.model).__name__,
        "loss": loss_fn.name,
        "device": str(network.theta.device),
        "precision": precision.removeprefix("torch."),
        "examples": sum(batch.num_examples for batch in batches),
        "passes": len(batches),
        "parameters": describe_parameters(network, loss_fn, batches),
        "norm_layers": describe_norm_layers(network.model),
        "batchnorm": network.policy.mode if norm_layers(network.model) else None,
        "recalibration_examples": sum(map(num_examples, recalibration)),
        **({} if effect is None else {"loss_at_theta": effect.losses}),
        "mean_over_examples": prepared.averaging is None,
        "outputs_repeat": not network.stochastic,
        "chance_loss": prepared.chance_loss,
        "plan": describe_plan(network.plan),
        "cost": describe_cost(
            network,
            batches,
            recalibration,
            lambda few: evaluate(prepared, network.theta, few, stored),
            lambda inputs: estimate_statistics(network, network.theta, inputs),
        ),
    }


def describe_parameters(
    network: Network, loss_fn: Loss, batches: Sequence[Batch]
) -> dict[str, int | list[str]]:
    """Count parameters and name those that are tied, frozen or unused.

    Args:
        network: Runs the model.
        loss_fn: The loss.
        batches: Examples. A parameter is unused if the loss of the first of them has no
            derivative by it.
    """
    named = list(network.model.named_parameters(remove_duplicate=False))
    first: dict[int, str] = {}
    tied = [
        f"{name} = {first[id(parameter)]}"
        for name, parameter in named
        if first.setdefault(id(parameter), name) != name
    ]
    return {
        "trainable": network.space.size,
        "frozen": sum(tensor.numel() for tensor in network.frozen.values()),
        "tied": tied,
        "unused": _unused(network, loss_fn, next(b for b in batches if b.weight > 0)),
    }


def _unused(network: Network, loss_fn: Loss, batch: Batch) -> list[str]:
    inputs, targets, *_ = batch
    if not network.insists_on_batches:
        inputs, targets = rows((inputs, targets), slice(_TRIED))
    values = network.space.unflatten(network.theta)
    leaves = {name: value.detach().clone().requires_grad_() for name, value in values.items()}
    tensors = {**leaves, **network.frozen, **network.copy_buffers()}
    # Parameters whose derivative is known to be zero lead to nothing either.
    with torch.enable_grad(), network.running(tensors) as forward, network.noise(0):
        loss = loss_fn(forward(inputs), targets)
        if not loss.requires_grad:
            return list(leaves)
        gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return [name for name, slope in zip(leaves, gradients, strict=True) if slope is None]


def describe_norm_layers(model: nn.Module) -> dict[str, int]:
    """Count the norm layers of each kind."""
    return dict(Counter(type(m).__name__ for m in model.modules() if isinstance(m, _NORM_LAYERS)))


def describe_plan(plan: ExecutionPlan) -> dict[str, object]:
    """Say how the model is run, and why not faster."""
    return {
        "examples_per_pass": plan.micro_batch,
        "channels_last": plan.channels_last,
        "folded_norm_layers": len(plan.folding),
        "shared_first_layer": None if plan.first_layer is None else plan.first_layer.weight,
        "why_not_faster": list(plan.reasons),
    }


def describe_cost(
    network: Network,
    batches: Sequence[Batch],
    recalibration: Sequence[Any],
    evaluate: Callable[[Sequence[Batch]], object],
    recalibrate: Callable[[Sequence[Any]], object],
) -> dict[str, float | int]:
    """Measure what one point costs.

    Args:
        network: Runs the model.
        batches: All examples.
        recalibration: All inputs on which statistics are estimated.
        evaluate: Evaluates some of the examples, without recalibration.
        recalibrate: Estimates the statistics on some of the inputs.

    Returns:
        Seconds of a pass over all examples and of a recalibration, both extrapolated from one
        batch; bytes of the examples, of the parameters and of the largest activation of a pass.
    """
    few = batches[:1]
    total = sum(batch.num_examples for batch in batches)
    seconds = _seconds(network.theta.device, lambda: evaluate(few))
    held = [t for batch in batches for t in tensors_of((batch.inputs, batch.targets))]
    examples = {tensor.data_ptr(): tensor.nbytes for tensor in held}
    graphs = torch.set_grad_enabled(network.needs_graph)
    with graphs, network.at_theta() as forward, network.noise(0):
        # A model may insist on the size of its batches.
        inputs = few[0].inputs
        inputs = inputs if network.insists_on_batches else rows(inputs, slice(2))
        activation = measure_activation(forward, inputs, network.tensors(network.theta, {}))
    return {
        "seconds": seconds * total / few[0].num_examples,
        "seconds_of_recalibration": _seconds(
            network.theta.device, lambda: recalibrate(recalibration[:1])
        )
        * len(recalibration),
        "bytes_of_examples": sum(examples.values()),
        "bytes_of_parameters": network.theta.nbytes,
        "bytes_of_largest_activation": activation * max(batch.num_examples for batch in batches),
    }


def _seconds(device: torch.device, run: Callable[[], object]) -> float:
    run()  # the first time takes longer
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def as_text(description: Mapping[str, object]) -> str:
    """Lay a description out in lines."""
    lines: list[str] = []
    for key, value in description.items():
        if isinstance(value, Mapping):
            parts = [f"{name.replace('_', ' ')} {_word(part)}" for name, part in value.items()]
            value = ", ".join(parts) or "none"
        lines.append(f"{key.replace('_', ' ')}: {_word(value)}")
    return "\n".join(lines)


def _word(value: object) -> str:
    if isinstance(value, list):
        shown = "; ".join(map(str, value[:5])) or "none"
        return f"{shown}; … ({len(value)})" if len(value) > 5 else shown
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
