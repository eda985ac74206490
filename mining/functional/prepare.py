"""From a model, a loss and a loader to the loss as a function of θ."""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor, nn

from mining import InputError
from mining.functional.averaging import Averaging, find_gap, on_first_batches
from mining.functional.batches import (
    as_leaves,
    lay_out,
    mixed,
    pick_examples,
    read_batches,
    regroup,
    shuffle,
)
from mining.functional.batchnorm import BatchNormPolicy, Mode, recalibration_batch_size
from mining.functional.checks import (
    check_labels,
    check_substituted,
    find_num_classes,
    is_stochastic,
    underivable_parameters,
)
from mining.functional.derivatives import check_recording
from mining.functional.execution_plan import ExecutionPlan
from mining.functional.loss import Batch, Loss, LossFunction, WeightFunction
from mining.functional.network import Network
from mining.functional.parameters import ParameterSpace
from mining.functional.randomness import seeded
from mining.functional.recalibration import Statistics

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A model, a loss and examples that were found to go together.

    Args:
        network: Runs the model.
        loss: The loss.
        batches: The examples, each batch of one pass.
        num_classes: How many classes outputs score; ``None`` where they score none.
        averaging: Batches whose losses do not average to the loss of all their examples, if any.
        counters: Settings of the loss that change when it is called.
        statistics: Batch-norm statistics at any point.
    """

    network: Network
    loss: Loss
    batches: list[Batch]
    num_classes: int | None
    averaging: Averaging | None
    counters: frozenset[str]
    statistics: Statistics

    def hold(self, loader: Iterable[tuple[Tensor, Tensor]]) -> list[Batch]:
        """Read batches and group them as the execution plan takes them."""
        pairs = _read(self.network, loader)
        return _group(self.network, self.loss, pairs, self.num_classes)

    def pick(
        self, batches: Sequence[Batch], chosen: Tensor, size: int | None = None
    ) -> list[Batch]:
        """Pick examples out of batches laid end to end, by ascending indices of shape ``(n,)``.

        Args:
            batches: As ``hold`` returns them.
            chosen: The indices.
            size: Most examples of a batch; ``None`` takes them as ``plan`` does.
        """
        inputs, targets = pick_examples(batches, chosen)
        size = len(inputs) if size is None else size
        return self.hold(zip(torch.split(inputs, size), torch.split(targets, size), strict=True))

    @property
    def chance_loss(self) -> float | None:
        """The chance-level cross-entropy log C of C classes; ``None`` for another loss."""
        if self.num_classes is None or not self.loss.log_c_at_chance:
            return None
        return math.log(self.num_classes)

    def derivable(self, theta: Tensor | None) -> Tensor:
        """Detach ``theta``, by default that of the model, of whatever mode it was made in."""
        check_recording()
        theta = self.network.theta if theta is None else theta
        return theta.clone() if theta.is_inference() else theta.detach()

    @cached_property
    def _underivable(self) -> list[str]:
        return underivable_parameters(self.network, self.batches)

    def check_derivable(self, space: ParameterSpace) -> None:
        """Raise ``InputError`` if the loss has no derivative by parameters that change it."""
        check_recording()
        names = [name for name in space.names if name in self._underivable]
        if names:
            raise InputError(
                f"The loss changes with {', '.join(names[:3])}, but its derivative by it is zero "
                "everywhere: somewhere it is detached (detach, item, no_grad) or constant in steps "
                "(argmax, round, a 0-1 error). There is no gradient and no curvature then. Give a "
                "loss that can be differentiated, or leave these parameters out "
                "(requires_grad=False)."
            )


@torch.inference_mode(False)  # what is made within it cannot be differentiated later
def prepare(
    model: nn.Module,
    loss_fn: LossFunction,
    loader: Iterable[tuple[Tensor, Tensor]],
    *,
    batchnorm: BatchNormPolicy | Mode,
    recalibration: Iterable[tuple[Tensor, Tensor]] | None,
    autocast: torch.dtype | None,
    tf32: bool,
    plan: ExecutionPlan | None,
    weight: WeightFunction | None,
    compile: bool,
) -> Prepared:
    """Read the examples, check that they fit model and loss, and choose how to run the model.

    See ``Landscape`` for the arguments and errors.
    """
    loss = Loss(loss_fn, weight)
    settings = loss.settings()
    policy = batchnorm if isinstance(batchnorm, BatchNormPolicy) else BatchNormPolicy(batchnorm)
    network = Network(model, loss, policy, autocast, tf32=tf32, compile=compile)
    batches = _group(network, loss, _read(network, loader), None)
    # Trials leave the caller's random numbers as they are, and so does all that follows.
    with seeded(0, network.theta.device):
        num_classes = find_num_classes(network, loss, batches)
        check_substituted(network, batches[0])
        _note_randomness(network, loss, batches)
    _check_options(network, plan)
    # Settings that change when the loss is called count something.
    changed = loss.settings().items() ^ settings.items()
    with seeded(0, network.theta.device):
        averaging = _compare_batches(network, loss, batches)
        network.plan = _find_plan(network, batches, averaging) if plan is None else plan
    pairs = [(network.plan.prepare(batch.inputs), batch.targets) for batch in batches]
    largest = max(len(inputs) for inputs, _ in pairs)
    del batches  # examples are not held twice
    if recalibration is None and network.recalibrates:
        pairs = lay_out(pairs)
    batches = _group(network, loss, pairs, num_classes)
    inputs = _recalibration_inputs(network, batches, recalibration, largest)
    return Prepared(
        network,
        loss,
        batches,
        num_classes,
        averaging,
        frozenset(name for name, _ in changed),
        Statistics(network, loss, batches, inputs),
    )


def _note_randomness(network: Network, loss: Loss, batches: Sequence[Batch]) -> None:
    network.stochastic = is_stochastic(network, loss, batches)
    if network.stochastic:
        network.compiled = None
        log.warning(
            "%s or its loss draws random numbers (functional dropout, sampling, noise). Each "
            "batch gets the same ones at every point, so that losses and gradients are those "
            "of one draw; there is no curvature and no tolerance. Turn it off for the loss "
            "without noise.",
            type(network.model).__name__,
        )


def _check_options(network: Network, plan: ExecutionPlan | None) -> None:
    """Raise ``InputError`` if a plan cannot be carried out, or the loss is no function of θ."""
    if plan is not None and plan.micro_batch is not None and network.mixes_examples:
        raise InputError(
            "plan.micro_batch must be None where examples share batch statistics, got "
            f"{plan.micro_batch}."
        )
    if network.changes_parameters:
        raise InputError(
            f"The forward pass of {type(network.model).__name__} changes parameters in place, as "
            "an Embedding with max_norm does: its loss is no function of them. Leave max_norm "
            "out, or compute with changed copies."
        )


def _compare_batches(network: Network, loss: Loss, batches: Sequence[Batch]) -> Averaging | None:
    """Look for batches whose losses do not average, and warn of them."""
    averaging = find_gap(network, loss, batches)
    if averaging is not None and len(batches) > 1:
        averaging = on_first_batches(network, loss, batches, averaging)
        log.warning("%s", averaging.describe())
    return averaging


@torch.no_grad()
def _find_plan(
    network: Network, batches: Sequence[Batch], averaging: Averaging | None
) -> ExecutionPlan:
    if network.needs_graph:
        return ExecutionPlan().because("model or loss differentiate by the examples")
    plan = network.find_plan(batches)
    if plan.micro_batch is not None and averaging is not None:
        plan = replace(plan, micro_batch=None).because("the loss is no mean over examples")
    return plan


def _recalibration_inputs(
    network: Network,
    batches: Sequence[Batch],
    recalibration: Iterable[tuple[Tensor, Tensor]] | None,
    largest: int,
) -> Sequence[Tensor]:
    """Give the batches of inputs on which statistics are estimated."""
    if not network.recalibrates:
        return []
    inputs = [batch.inputs for batch in batches]
    if recalibration is not None:
        inputs = [pair[0] for pair in _read(network, recalibration)]
        largest = max(map(len, inputs))
    return mixed(inputs, recalibration_batch_size(largest), network.policy.num_examples)


def _read(network: Network, loader: Iterable[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    pairs = [(network.plan.prepare(x), y) for x, y in read_batches(loader, network.theta.device)]
    # A batch of one class has other statistics than one of all classes.
    return shuffle(pairs) if network.mixes_examples else pairs


def _group(
    network: Network, loss: Loss, pairs: list[tuple[Tensor, Tensor]], num_classes: int | None
) -> list[Batch]:
    """Give batches of one pass each."""
    if network.plan.micro_batch is not None:
        pairs = regroup(pairs, network.plan.micro_batch)
    pairs = [as_leaves(pair) for pair in pairs]
    batches = [Batch(*pair, *loss.weigh(*pair)) for pair in pairs]
    check_labels(loss, batches, num_classes)
    return batches
