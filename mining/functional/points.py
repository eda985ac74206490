"""Points of a plane evaluated together."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mining.functional.loss import Batch
from mining.functional.metrics import Metrics
from mining.functional.network import Network
from mining.functional.precision import products_in


def measure_together(
    network: Network,
    metrics: Sequence[Metrics],
    directions: Sequence[Tensor],
    coefficients: Sequence[Sequence[float]],
    batches: Sequence[Batch],
) -> None:
    """Compute metrics at points θ + Σ c_k ε_k that share the products of the first layer.

    Args:
        network: Runs the model; its plan has a first layer.
        metrics: One for each of P points.
        directions: K directions ε, each of shape ``(D,)``.
        coefficients: A row c of length K for each point.
        batches: The examples.
    """
    layer = network.plan.first_layer
    assert layer is not None
    used = [k for k in range(len(directions)) if any(row[k] != 0.0 for row in coefficients)]
    rows = [[row[k] for k in used] for row in coefficients]
    theta = network.space.unflatten(network.theta)
    vectors = [network.space.unflatten(directions[k].to(network.theta)) for k in used]
    products = layer.products(theta, vectors)
    own = layer.without(theta)
    rest = [name for name in own if name not in (layer.weight, layer.bias)]
    points = [
        {
            **own,
            **{n: combine(theta[n], [v[n] for v in vectors], row) for n in rest},
            **network.frozen,
            **{name: buffer.clone() for name, buffer in network.buffers.items()},
        }
        for row in rows
    ]
    with network.modes(), products_in(network.theta.device, tf32=network.tf32):
        for batch in batches:
            if batch.weight == 0:
                continue
            with network.autocasting():
                first, *others = (p.to(theta[layer.weight]) for p in products(batch.inputs))
            for tensors, row, of_point in zip(points, rows, metrics, strict=True):
                with network.substitution(tensors):
                    run = layer.fill_in(network.forward, tensors)
                    # A copy at θ, too: an activation may work in place.
                    pre_activations = combine(first.clone(), others, row)
                    of_point.add(run(batch.inputs, pre_activations), batch)


def combine(start: Tensor, vectors: Sequence[Tensor], coefficients: Sequence[float]) -> Tensor:
    """Compute start + Σ c_k v_k."""
    for coefficient, vector in zip(coefficients, vectors, strict=True):
        if coefficient != 0.0:
            start = torch.add(start, vector.to(start), alpha=coefficient)
    return start
