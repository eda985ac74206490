"""Whether the losses of batches average to the loss of all their examples."""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mining.functional.batches import Pair
from mining.functional.loss import Batch, Loss
from mining.functional.memory import is_out_of_memory
from mining.functional.network import Network
from mining.functional.pytrees import cat, is_divisible, rows, signature
from mining.functional.substitution import Forward

log = logging.getLogger(__name__)

#: Outputs of the model that are dealt out to examples on which the loss is tried.
_POOL = 64
#: Batches are joined until they give so many: the outputs of one example would all be alike.
_FEWEST = 16
#: Numbers in the outputs on which a loss is tried.
_TRIED_OUTPUTS = 2**24
#: Numbers in the targets among which values that may stand for none are looked for.
_SEARCHED = 2**24
#: Examples of the batches whose difference a warning gives.
_SHOWN = 512


@dataclass(frozen=True)
class Averaging:
    """A loss of batches taken together, and the mean of their losses."""

    together: float  # nan where the loss does not take them so
    mean: float
    num_batches: int

    @property
    def gap(self) -> float:
        """How far the two differ, relative to the larger one; ``nan`` where it is unknown."""
        larger = max(abs(self.together), abs(self.mean))
        return abs(self.together - self.mean) / larger if larger > 0 else 0.0

    def describe(self) -> str:
        """Say in one line how large the difference is, and what to do."""
        found = "it accepts only the batches of the loader"
        if not math.isnan(self.together):
            found = (
                f"{self.num_batches} batches joined have the loss {self.together:.4g}, and their "
                f"losses the mean {self.mean:.4g} (a difference of {100 * self.gap:.2g} %)"
            )
        return (
            f"The loss is no mean over examples: {found}. The landscape averages the losses of "
            "the batches nevertheless. Put all examples into one batch or, if the loss is a mean "
            "over something other than examples, give weight=FUNCTION, the denominator of the "
            "mean over a batch (inputs, targets): "
            "weight=lambda batch: (batch[1] != -100).sum()."
        )


@torch.no_grad()
def find_gap(network: Network, loss_fn: Loss, batches: Sequence[Batch]) -> Averaging | None:
    """Look for batches whose losses do not average to the loss of all their examples.

    The loss is tried on outputs of the model dealt out at random: on the first batch in two
    parts, on the first two batches, and on pairs of batches that have a value (of ignored targets
    or of padding) most and least often.

    Returns:
        The first such batches, ``None`` if there are none. torch's own losses are known to have
        none, unless their batches are given weights or outputs and targets are broadcast.
    """
    if loss_fn.objective is not None:
        return _gap_of_objective(network, loss_fn, batches)
    if network.needs_graph:  # it differentiates by inputs: no other outputs will do
        return None
    try:
        with network.at_theta() as forward:
            pool = _pool(forward, batches)
            if loss_fn.averages(pool, batches[0].targets):
                return None
            for pair in _pairs(batches, max(1, _TRIED_OUTPUTS // max(pool[0].numel(), 1))):
                dealt = _deal(pool, [len(y) for _, y in pair])
                if network.stochastic and _draws(network, loss_fn, dealt[0], pair[0][1]):
                    log.info("The loss draws random numbers: what it averages is not tried.")
                    return None
                found = _compare(loss_fn, dealt, pair)
                undefined = math.isnan(found.together) and math.isnan(found.mean)
                if not (found.gap <= network.rounding or undefined):
                    return found
    except (RuntimeError, ValueError, IndexError) as error:
        if is_out_of_memory(error):
            raise
        # It insists on a batch as it is, or on the outputs of its own.
        log.info("The loss takes no other outputs than those of a batch: %s", error)
        return Averaging(math.nan, math.nan, len(batches))
    return None


def _deal(pool: Tensor, sizes: Sequence[int]) -> tuple[Tensor, ...]:
    """Deal outputs out at random, none twice as far as there are enough."""
    generator, total = torch.Generator().manual_seed(0), sum(sizes)
    order = torch.randperm(len(pool), generator=generator)
    more = torch.randint(len(pool), (max(0, total - len(pool)),), generator=generator)
    return torch.split(pool[torch.cat([order, more])[:total].to(pool.device)], list(sizes))


def _pool(forward: Forward, batches: Sequence[Batch]) -> Tensor:
    """Compute the model's outputs for the first batches of one shape."""
    parts: list[Tensor] = []
    for batch in batches:
        if sum(map(len, parts)) < _FEWEST and _shape(batch) == _shape(batches[0]):
            parts.append(forward(rows(batch.inputs, slice(_POOL))))
    return torch.cat(parts)


@torch.no_grad()
def on_first_batches(
    network: Network, loss_fn: Loss, batches: Sequence[Batch], tried: Averaging
) -> Averaging:
    """Compare the losses of the first batches with the outputs that the model has for them.

    Args:
        network: Runs the model.
        loss_fn: The loss.
        batches: The examples.
        tried: What ``find_gap`` found, which stands where the first batches show nothing.
    """
    if loss_fn.objective is not None:
        return tried
    pairs: list[Pair] = []
    shape = _shape(batches[0])
    for batch in batches:
        if sum(len(y) for _, y in pairs) < _SHOWN and _shape(batch) == shape and batch.weight > 0:
            pairs.append((batch.inputs, batch.targets))
    if len(pairs) < 2 or math.isnan(tried.together):
        return tried
    with network.at_theta() as forward, network.noise(0):
        found = _compare(loss_fn, [forward(inputs) for inputs, _ in pairs], pairs)
    return found if found.gap > network.rounding else tried


def _draws(network: Network, loss_fn: Loss, outputs: Tensor, targets: Tensor) -> bool:
    losses = []
    for seed in range(2):
        with network.noise(seed):
            losses.append(float(loss_fn(outputs, targets)))
    return losses[0] != losses[1]


def _compare(loss_fn: Loss, outputs: Sequence[Tensor], pairs: Sequence[Pair]) -> Averaging:
    weights = [loss_fn.weigh(*pair)[0] for pair in pairs]
    losses = [float(loss_fn(o, y)) for o, (_, y) in zip(outputs, pairs, strict=True)]
    total = sum(weight * loss for weight, loss in zip(weights, losses, strict=True) if weight)
    if not sum(weights):
        return Averaging(0.0, 0.0, len(pairs))
    together = float(loss_fn(torch.cat(list(outputs)), torch.cat([y for _, y in pairs])))
    return Averaging(together, total / loss_fn.denominator(weights), len(pairs))


def _gap_of_objective(
    network: Network, loss_fn: Loss, batches: Sequence[Batch]
) -> Averaging | None:
    """Compare parts of the first batch with it, and the first two batches with both together."""
    if network.stochastic or network.mixes_examples:
        return None
    if not all(is_divisible(batch.inputs) for batch in batches[:2]):
        return None
    first = batches[0]
    size = min(first.num_examples, _SHOWN)
    trials = []
    if size > 1:
        cut = max(1, 2 * size // 3)
        trials.append([rows(first.inputs, part) for part in (slice(cut), slice(cut, size))])
    if len(batches) > 1 and _shape(batches[0]) == _shape(batches[1]):
        trials.append([rows(batch.inputs, slice(_SHOWN)) for batch in batches[:2]])
    for parts in trials:
        try:
            found, rounding = _compare_parts(network, loss_fn, parts)
        except (RuntimeError, ValueError, LookupError, TypeError) as error:
            if is_out_of_memory(error):
                raise
            log.info("The objective takes no other batches than those given: %s", error)
            return None
        if found.gap > rounding:
            return found
    return None


def _compare_parts(
    network: Network, loss_fn: Loss, parts: Sequence[Any]
) -> tuple[Averaging, float]:
    """Compare the losses of an objective on parts with that on all of them.

    Returns:
        Both, and how far they may differ by rounding.
    """
    weights = [loss_fn.batch(part, None).weight for part in parts]
    with torch.set_grad_enabled(network.needs_graph), network.at_theta() as forward:
        losses = [float(forward(part)) for part in parts]
        whole = forward(cat(parts))
    rounding = network.rounding_of(whole)
    total = sum(weight * loss for weight, loss in zip(weights, losses, strict=True) if weight)
    if not sum(weights):
        return Averaging(0.0, 0.0, len(parts)), rounding
    mean = total / loss_fn.denominator(weights)
    return Averaging(float(whole), mean, len(parts)), rounding


def _shape(batch: Batch) -> object:
    return signature((batch.inputs, batch.targets))


def _pairs(batches: Sequence[Batch], most: int) -> Iterator[list[Pair]]:
    """Give pairs of batches, parts of one, and many together, of at most ``most`` examples."""
    first = batches[0]
    size = min(len(first.targets), most)
    if size > 1:
        cut = max(1, 2 * size // 3)
        pair = (first.inputs, first.targets)
        yield [rows(pair, part) for part in (slice(cut), slice(cut, size))]
    alike = [batch for batch in batches if _shape(batch) == _shape(first)]
    if len(alike) < 2:
        return
    most = max(1, most // 2)
    yield [rows((batch.inputs, batch.targets), slice(most)) for batch in alike[:2]]
    together: list[Pair] = []
    for inputs, targets, *_ in alike:
        if sum(len(y) for _, y in together) + len(targets) <= min(_SHOWN, 2 * most):
            together.append((inputs, targets))
    if len(together) > 2:
        yield together
    alike = alike[: max(2, _SEARCHED // max(first.targets.numel(), 1))]
    if first.targets.dtype == torch.bool or first.targets.is_complex():
        return
    for value in _special_values(alike):
        hits = [(b.targets == value).reshape(len(b.targets), -1).sum(1) for b in alike]
        shares = [float(hit.sum()) / len(hit) for hit in hits]
        low, high = shares.index(min(shares)), shares.index(max(shares))
        if shares[low] < shares[high]:
            chosen = [hits[low].argsort()[:most], hits[high].argsort(descending=True)[:most]]
            yield [
                rows((alike[k].inputs, alike[k].targets), row)
                for k, row in zip((low, high), chosen, strict=True)
            ]


def _special_values(batches: Sequence[Batch]) -> list[float]:
    """List values that may stand for no target: usual ones, the extremes and the most frequent."""
    lows, highs = zip(*(torch.aminmax(batch.targets) for batch in batches), strict=True)
    frequent = batches[0].targets.flatten().mode().values
    found = [min(map(float, lows)), max(map(float, highs)), float(frequent), -100.0, -1.0, 0.0]
    return list(dict.fromkeys(value for value in found if not math.isnan(value)))
