"""What identifies a landscape: a digest of all that decides its losses, and a few losses."""

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from mining.functional.evaluation import evaluate
from mining.functional.loss import Batch
from mining.functional.prepare import Prepared
from mining.functional.pytrees import leaves_of, tensors_of
from mining.storage.fingerprint import Fingerprint, rounding_of


def fingerprint(prepared: Prepared, also: Sequence[Batch] = ()) -> str:
    """Digest what decides a loss: parameters, examples, model, loss, policy and precision.

    Args:
        prepared: The model, the loss and its examples.
        also: Further examples, those of a test set for instance.

    Returns:
        64 hexadecimal digits, the same in every process.
    """
    network = prepared.network
    precision = (network.autocast, network.tf32)
    loss = prepared.loss.describe(prepared.counters)
    described = (network.policy, precision, network.model, loss)
    digest = hashlib.sha256(repr(described).encode())
    tensors = [network.theta, *network.frozen.values(), *network.buffers.values()]
    tensors += prepared.loss.tensors()
    tensors += [tensor for inputs in prepared.statistics.inputs for tensor in tensors_of(inputs)]
    for tensor in tensors:
        digest.update(repr(tuple(tensor.shape)).encode())
        update_digest(digest, tensor)
    batches = [*prepared.batches, *also]
    if prepared.loss.weight is not None:
        digest.update(repr([batch.weight for batch in batches]).encode())
    if network.mixes_examples:  # else it does not matter how they are grouped
        digest.update(repr([batch.num_examples for batch in batches]).encode())
    for tree in (*(b.inputs for b in batches), *(b.targets for b in batches)):
        for leaf in leaves_of(tree):
            if isinstance(leaf, Tensor):
                update_digest(digest, leaf)
            else:
                digest.update(repr(leaf).encode())
    return digest.hexdigest()


@torch.no_grad()
def identify(prepared: Prepared, digest: str) -> Fingerprint:
    """Join a digest of what is computed with the losses of a few examples.

    The examples are the first, and the points θ and θ/2 with the buffers of the model: their
    losses change with what no digest sees, a constant in the code of the model for instance.

    Args:
        prepared: The model, the loss and its examples.
        digest: Of the work and of the ``fingerprint``.
    """
    network = prepared.network
    first, values = prepared.batches[:1], []
    if network.plan.micro_batch is not None:  # any number may be taken together
        few = torch.arange(min(16, first[0].num_examples))
        first = prepared.pick(first, few)
    device = network.theta.device
    for point in (network.theta, network.theta / 2):
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            torch.manual_seed(0)  # of a model that draws random numbers
            values.append(float(evaluate(prepared, point, first, network.copy_buffers()).loss))
    coarse = network.autocast is not None or network.tf32
    return Fingerprint(digest, tuple(values), rounding_of(network.theta.dtype, coarse=coarse))


def update_digest(digest: "hashlib._Hash", tensor: Tensor) -> None:
    """Feed the numbers of a tensor to ``digest``, however they lie in memory."""
    content = tensor.detach().cpu().contiguous()
    # One number can have any stride and still count as contiguous.
    flat = content.as_strided((content.numel(),), (1,))
    digest.update(flat.view(torch.uint8).numpy().data)
