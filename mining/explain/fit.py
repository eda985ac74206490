"""How well a network fits a set of examples: loss, accuracy and calibration error."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from mining import InputError
from mining.explain.calibration import calibration_error
from mining.explain.groups import draw_groups
from mining.explain.quantity import Quantity
from mining.explain.resampling import (
    interval_of,
    resampled_sums,
    spread_of_groups,
    spread_of_replicates,
)
from mining.functional import Batch
from mining.landscape import Landscape

#: Groups of examples for the error of a loss that is no mean over single examples.
_NUM_GROUPS = 32


def measure_fit(
    landscape: Landscape, batches: Sequence[Batch] | None = None, seed: int = 0
) -> dict[str, Quantity]:
    """Measure loss, accuracy and calibration error at θ, with their sampling errors.

    The errors are those of resampling the examples (bootstrap). A loss that is no mean over
    single examples has an error from groups of them, or of whole batches.

    Args:
        landscape: The model and its loss.
        batches: Other examples, as ``hold`` returns them; ``None``: those of the landscape.
        seed: Of the resampling; the same seed pairs two networks on the same examples.
    """
    of = landscape if batches is None else landscape.restrict(batches)
    statistics = of.statistics(of.theta)
    found = of.evaluate(of.theta, statistics=statistics)
    try:
        rows = of.losses_of_examples([], [[]], of.batches, [statistics])[0].cpu()
    except InputError:  # the loss of single examples is not known
        rows = None
    loss = _loss(of, float(found.loss), rows, seed)
    right = None if rows is None or not of.scores_classes else rows[:, 1]
    try:
        sure = of.confidences(of.theta, statistics=statistics).cpu()
    except InputError as error:
        calibration = Quantity.missing(str(error))
    else:
        calibration, right = _calibration(sure, seed), sure[:, 1]
    if found.accuracy is None:
        accuracy = Quantity.missing("The outputs are not one score per class.")
    elif right is None or not len(right):
        accuracy = Quantity(float(found.accuracy), why="The error is not known for this loss.")
    else:
        accuracy = _share(right, seed)
    return {"loss": loss, "accuracy": accuracy, "calibration_error": calibration}


def majority_share(batches: Sequence[Batch]) -> float:
    """Return the share of the most frequent class: what guessing one class would get right."""
    targets = torch.cat([batch.targets.flatten() for batch in batches])
    return float(targets[targets >= 0].bincount().max()) / len(targets)


def _loss(of: Landscape, value: float, rows: Tensor | None, seed: int) -> Quantity:
    if not torch.isfinite(torch.tensor(value)):
        return Quantity.missing(f"The loss is {value}.")
    if rows is not None:
        return _mean(rows[:, 0], seed)
    groups, _ = draw_groups(of, None, _NUM_GROUPS, torch.Generator().manual_seed(seed))
    if len(groups) < 2:
        return Quantity(value, why="There is a single batch: its sampling error is not known.")
    return Quantity(value, spread_of_groups(groups.losses(of.theta), groups.shares))


def _mean(values: Tensor, seed: int) -> Quantity:
    """Give the mean of the examples with its bootstrap error and interval."""
    mean, generator = float(values.double().mean()), torch.Generator().manual_seed(seed)
    replicates = resampled_sums(values[:, None], generator)[:, 0] / len(values)
    return Quantity(mean, spread_of_replicates(replicates), interval=interval_of(mean, replicates))


def _share(right: Tensor, seed: int) -> Quantity:
    """Give the share of ones, whose error is not zero where all examples are alike."""
    found = _mean(right, seed)
    assert found.value is not None
    if 0 < found.value < 1:
        return found
    # The rule of three: with 95 % confidence at most 3/n are otherwise (e^-3 = 0.05).
    reach = min(3 / len(right), 1.0)
    interval = (1 - reach, 1.0) if found.value == 1 else (0.0, reach)
    return replace(found, rest=reach / 2, interval=interval)


def _calibration(sure: Tensor, seed: int) -> Quantity:
    if not len(sure):
        return Quantity.missing("All targets are ignored.")
    found = calibration_error(sure[:, 0], sure[:, 1], seed=seed)
    by_chance = found.error <= found.by_chance
    why = (
        f"A perfectly calibrated network shows up to {found.by_chance:.3g} on {len(sure)} examples."
        if by_chance
        else ""
    )
    return Quantity(
        found.error,
        spread_of_replicates(found.replicates),
        applies=not by_chance,
        why=why,
        interval=found.interval,
    )
