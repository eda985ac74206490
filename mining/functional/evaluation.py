"""Loss, accuracy and gradient of what was prepared, at points in parameter space."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mining import InputError
from mining.functional.loss import Batch
from mining.functional.metrics import (
    ConfidenceMetrics,
    Evaluation,
    ExampleMetrics,
    MeanMetrics,
    Metrics,
)
from mining.functional.points import combine, measure_together
from mining.functional.prepare import Prepared
from mining.ranks import ONE, Ranks

#: Buffers by name.
Buffers = dict[str, Tensor]


def share(prepared: Prepared, batches: Sequence[Batch], group: Ranks) -> Sequence[Batch]:
    """Give this rank's share of batches: equally many examples, or else equally many batches.

    Args:
        prepared: The model and the loss.
        batches: As ``Prepared.hold`` returns them, or cut into smaller ones.
        group: The ranks among which they are shared.
    """
    if group.size == 1:
        return batches
    if not prepared.regroups or prepared.network.needs_graph:
        return group.share(batches)
    return prepared.loss.cut(batches, *group.interval(sum(b.num_examples for b in batches)))


@torch.no_grad()
def evaluate(
    prepared: Prepared,
    theta: Tensor,
    batches: Sequence[Batch] | None = None,
    statistics: Buffers | None = None,
    group: Ranks = ONE,
) -> Evaluation:
    """Evaluate loss and accuracy at ``theta``.

    Args:
        prepared: The model, the loss and its examples.
        theta: Flat parameters, shape ``(D,)``.
        batches: Other examples, as ``Prepared.hold`` returns them.
        statistics: The buffers of the point, to share them between sets of examples.
        group: Ranks that share the batches.

    Returns:
        Loss and accuracy over all examples. A loss that overflows stays ``inf`` or ``nan``.
    """
    batches = prepared.batches if batches is None else batches
    buffers = prepared.statistics.at(theta, group) if statistics is None else statistics
    metrics = MeanMetrics(prepared.loss, batches, classes=prepared.num_classes is not None)
    prepared.network.measure(metrics, theta, share(prepared, batches, group), buffers)
    metrics.add_up(group)
    return metrics.mean()


@torch.no_grad()
def evaluate_points(
    prepared: Prepared,
    directions: Sequence[Tensor],
    coefficients: Sequence[Sequence[float]],
    sets: Sequence[Sequence[Batch]],
) -> Tensor:
    """Evaluate loss and accuracy at points θ + Σ c_k ε_k together.

    What the points have in common is computed once: the products of inputs and first layer,
    where the plan has one and no statistics depend on the point.

    Args:
        prepared: The model, the loss and its examples.
        directions: K directions ε, each of shape ``(D,)``.
        coefficients: A row c of length K for each of P points.
        sets: S sets of examples.

    Returns:
        Loss and accuracy, shape ``(P, S, 2)``, float64, on the device; accuracy is ``nan`` where
        there is none.
    """
    metrics = _measure(prepared, MeanMetrics, directions, coefficients, sets)
    return torch.stack([torch.stack([of_set.row() for of_set in row]) for row in metrics])


@torch.no_grad()
def losses_of_examples(
    prepared: Prepared,
    directions: Sequence[Tensor],
    coefficients: Sequence[Sequence[float]],
    batches: Sequence[Batch],
    statistics: Sequence[Buffers] | None = None,
) -> Tensor:
    """Evaluate every example at points θ + Σ c_k ε_k; see ``evaluate_points``.

    Args:
        prepared: The model, the loss and its examples.
        directions: K directions ε, each of shape ``(D,)``.
        coefficients: A row c of length K for each of P points.
        batches: n examples, as ``Prepared.hold`` returns them.
        statistics: The buffers of each point.

    Returns:
        Loss and whether the example is classified correctly, shape ``(P, n, 2)``, float64.

    Raises:
        InputError: If examples share batch statistics, or the loss is no plain mean.
    """
    if prepared.network.stochastic:
        raise InputError(
            "tolerance needs a model and a loss that do not draw random numbers (dropout in eval "
            "mode, no sampling), since these numbers depend on the batch."
        )
    if prepared.network.mixes_examples:
        raise InputError(
            "The loss of an example depends on the other examples of its batch: tolerance needs "
            "batchnorm=recalibrate or frozen."
        )
    if any(batch.weight == 0 for batch in batches):
        raise InputError(
            "All targets of a batch are ignored: tolerance needs a loss that is a plain mean."
        )
    metrics = _measure(prepared, ExampleMetrics, directions, coefficients, [batches], statistics)
    return torch.stack([of_point.row() for (of_point,) in metrics])


@torch.no_grad()
def confidences(
    prepared: Prepared,
    theta: Tensor,
    batches: Sequence[Batch] | None = None,
    statistics: Buffers | None = None,
) -> Tensor:
    """Compute the probability of the predicted class of every example; see ``evaluate``.

    Returns:
        The softmax probability, and 1 if the prediction is right, shape ``(n, 2)``, float64;
        examples whose target is ignored are left out.

    Raises:
        InputError: If the outputs are not the scores of a cross-entropy.
    """
    if prepared.num_classes is None or not prepared.loss.takes_indices:
        raise InputError(
            "The probability of a class is known of a model whose outputs are one score per class "
            "and whose loss is nn.CrossEntropyLoss or nn.NLLLoss with class indices as targets."
        )
    batches = prepared.batches if batches is None else batches
    buffers = prepared.statistics.at(theta) if statistics is None else statistics
    metrics = ConfidenceMetrics(prepared.loss)
    prepared.network.measure(metrics, theta, batches, buffers)
    return metrics.row()


def _measure(
    prepared: Prepared,
    kind: type[MeanMetrics] | type[ExampleMetrics],
    directions: Sequence[Tensor],
    coefficients: Sequence[Sequence[float]],
    sets: Sequence[Sequence[Batch]],
    statistics: Sequence[Buffers] | None = None,
) -> list[list[Metrics]]:
    """Compute metrics at P points on S sets of examples."""
    network, classes = prepared.network, prepared.num_classes is not None
    metrics: list[list[Metrics]] = [
        [kind(prepared.loss, batches, classes=classes) for batches in sets] for _ in coefficients
    ]
    if network.plan.first_layer is not None and network.statistics_are_fixed:
        for batches, column in zip(sets, zip(*metrics, strict=True), strict=True):
            measure_together(network, column, directions, coefficients, batches)
        return metrics
    for number, (row, point) in enumerate(zip(coefficients, metrics, strict=True)):
        theta = combine(network.theta, directions, row)
        buffers = prepared.statistics.at(theta) if statistics is None else statistics[number]
        for batches, of_set in zip(sets, point, strict=True):
            network.measure(of_set, theta, batches, buffers)
    return metrics


def gradient(
    prepared: Prepared,
    theta: Tensor | None,
    batches: Sequence[Batch] | None = None,
    statistics: Buffers | None = None,
) -> Tensor:
    """Compute the gradient of the loss, shape ``(D,)``; see ``Landscape.gradient``."""
    network, loss_fn = prepared.network, prepared.loss
    given = network.theta if theta is None else theta
    theta = prepared.derivable(theta)
    batches = prepared.batches if batches is None else batches
    group = network.sharing()
    buffers = prepared.statistics.at(given, group) if statistics is None else statistics
    prepared.check_derivable(network.space)
    # A forward pass may write to buffers: under ``batch`` it updates running statistics.
    buffers = {name: buffer.clone() for name, buffer in buffers.items()}
    total = loss_fn.denominator(batch.weight for batch in batches)
    if total == 0:
        raise InputError("All targets are ignored: there is no loss to differentiate.")
    found = torch.zeros_like(theta)
    with torch.enable_grad():
        for number, (inputs, targets, weight, *_) in enumerate(share(prepared, batches, group)):
            if weight > 0:
                leaf = theta.detach().requires_grad_()
                tensors = network.tensors(leaf, buffers)
                with network.running(tensors) as forward, network.noise(number):
                    loss = loss_fn(forward(inputs), targets) * (weight / total)
                    if loss.requires_grad:  # else no batch depends on any parameter
                        found += torch.autograd.grad(loss, leaf, materialize_grads=True)[0]
    return group.sum(found)
