"""From a model, a loss and a loader to the loss as a function of θ."""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from mining import InputError
from mining.functional.averaging import Averaging, find_gap, on_first_batches
from mining.functional.batches import Pair, lay_out, mixed, pick_examples, regroup, shuffle
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
from mining.functional.loss import Batch, CountFunction, Loss, LossFunction, WeightFunction
from mining.functional.model_call import Objective, OutputsError, call_model
from mining.functional.network import Network
from mining.functional.parameters import ParameterSpace
from mining.functional.pytrees import is_divisible, num_examples
from mining.functional.randomness import seeded
from mining.functional.reading import as_leaves, read_batches
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

    def hold(self, loader: Iterable[Any]) -> list[Batch]:
        """Read batches and group them as the execution plan takes them."""
        pairs = _read(self.network, loader)
        if self.loss.objective is None and not all(_has_outputs(*pair) for pair in pairs):
            raise InputError(
                "Targets must be tensors with one row per example, as those of the landscape."
            )
        return _group(self.network, pairs, self.num_classes)

    def pick(
        self, batches: Sequence[Batch], chosen: Tensor, size: int | None = None
    ) -> list[Batch]:
        """Pick examples out of batches laid end to end, by ascending indices of shape ``(n,)``.

        Args:
            batches: As ``hold`` returns them.
            chosen: The indices.
            size: Most examples of a batch; ``None`` takes them as ``plan`` does.
        """
        if any(batch.num_examples != num_examples(batch.inputs) for batch in batches):
            raise InputError(
                "Single examples cannot be selected from batches that are counted by count=."
            )
        pair = pick_examples(batches, chosen)
        pairs = [pair] if size is None else regroup([pair], size)
        pairs = [(self.network.plan.prepare(inputs), targets) for inputs, targets in pairs]
        if self.network.mixes_examples:
            pairs = shuffle(pairs)
        return _group(self.network, pairs, self.num_classes)

    @property
    def regroups(self) -> bool:
        """Whether the loss over any group of examples is known: a mean, or a sum, of theirs."""
        return (
            self.loss.objective is None
            and self.averaging is None
            and not (self.network.mixes_examples or self.network.stochastic)
            and all(is_divisible((batch.inputs, batch.targets)) for batch in self.batches)
            and all(batch.num_examples == num_examples(batch.inputs) for batch in self.batches)
        )

    def restrict(self, batches: Sequence[Batch]) -> "Prepared":
        """Take other examples, as ``hold`` returns them; the statistics stay those they were."""
        other = replace(self, batches=list(batches))
        if "_underivable" in vars(self):  # found at some cost, and the same for other examples
            vars(other)["_underivable"] = self._underivable
        return other

    @property
    def chance_loss(self) -> float | None:
        """The cross-entropy of guessing among C classes: log C, times the targets for a sum."""
        if self.num_classes is None or not self.loss.log_c_at_chance:
            return None
        chance = math.log(self.num_classes)
        if not self.loss.sums:
            return chance
        if getattr(self.loss.function, "weight", None) is not None:
            return None
        return chance * sum(batch.counted for batch in self.batches)

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
                f"The loss changes with {', '.join(names[:3])}, but its derivative is zero "
                "everywhere: it is detached (detach, item, no_grad) or piecewise constant (argmax, "
                "round, a 0-1 error). There is no gradient and no curvature then. Use a "
                "differentiable loss, or exclude these parameters (requires_grad=False)."
            )


@torch.inference_mode(False)  # what is made within it cannot be differentiated later
def prepare(
    model: nn.Module,
    loss_fn: LossFunction | None,
    loader: Iterable[Any] | None,
    *,
    objective: Objective | None,
    batches: Iterable[Any] | None,
    weight: WeightFunction | None,
    count: CountFunction | None,
    batchnorm: BatchNormPolicy | Mode,
    recalibration: Iterable[Any] | None,
    autocast: torch.dtype | None,
    tf32: bool,
    plan: ExecutionPlan | None,
    compile: bool,
) -> Prepared:
    """Read the examples, check that they fit model and loss, and choose how to run the model.

    See ``Landscape`` for the arguments and errors.
    """
    loss, examples = _choose(loss_fn, loader, objective, batches)
    loss = replace(loss, weight=weight, count=count)
    policy = batchnorm if isinstance(batchnorm, BatchNormPolicy) else BatchNormPolicy(batchnorm)
    network = Network(model, loss, policy, autocast, tf32=tf32, compile=compile)
    pairs = _read(network, examples)
    if loss.objective is None and not all(_has_outputs(*pair) for pair in pairs):
        network, pairs = _as_objective(network, pairs)
    settings = loss.settings()
    # Trials leave the caller's random numbers as they are, and so does all that follows.
    with seeded(0, network.theta.device):
        network, held, num_classes = _try_out(network, pairs)
        loss = network.loss_fn
        check_substituted(network, held[0])
        _note_randomness(network, loss, held)
    _check_options(network, plan, held)
    # Settings that change when the loss is called count something.
    changed = loss.settings().items() ^ settings.items()
    with seeded(0, network.theta.device):
        averaging = _compare_batches(network, loss, held)
        network.plan = _find_plan(network, held, averaging) if plan is None else plan
    pairs = [(network.plan.prepare(batch.inputs), batch.targets) for batch in held]
    largest = max(num_examples(inputs) for inputs, _ in pairs)
    del held  # examples are not held twice
    if recalibration is None and network.recalibrates:
        pairs = lay_out(pairs)
    held = _group(network, pairs, num_classes)
    inputs = _recalibration_inputs(network, held, recalibration, largest)
    counters = frozenset(name for name, _ in changed)
    statistics = Statistics(network, loss, held, inputs)
    return Prepared(network, loss, held, num_classes, averaging, counters, statistics)


def _choose(
    loss_fn: LossFunction | None,
    loader: Iterable[Any] | None,
    objective: Objective | None,
    batches: Iterable[Any] | None,
) -> tuple[Loss, Iterable[Any]]:
    """Give the loss and its examples, of the two ways to describe them."""
    if objective is None and batches is None and loss_fn is not None and loader is not None:
        return Loss(loss_fn), loader
    if loss_fn is None and loader is None and objective is not None and batches is not None:
        return Loss(objective, objective=objective), batches
    raise InputError(
        "Give either loss_fn and loader, which yields (inputs, targets), or objective and batches: "
        "Landscape(model, loss_fn, loader) or Landscape(model, objective=lambda model, batch: "
        "model(**batch).loss, batches=loader)."
    )


def _has_outputs(inputs: Any, targets: Any) -> bool:
    """Whether a pair has a tensor of targets with a row for each example of the inputs."""
    return (
        isinstance(targets, Tensor) and targets.dim() > 0 and len(targets) == num_examples(inputs)
    )


def _as_objective(network: Network, pairs: list[Pair]) -> tuple[Network, list[Pair]]:
    """Let a loss of outputs or targets that are no tensors be an objective of whole pairs."""
    function = network.loss_fn.function

    def objective(model: nn.Module, batch: Any) -> Tensor:
        inputs, targets = batch
        found: Tensor = function(call_model(model, inputs), targets)
        return found

    loss = replace(network.loss_fn, objective=objective)
    return network.with_loss(loss), [(pair, None) for pair in pairs]


def _try_out(network: Network, pairs: list[Pair]) -> tuple[Network, list[Batch], int | None]:
    """Run model and loss, and settle what stands for outputs that are no tensor.

    torch's own losses get ``logits``, where the model returns such. Any other loss gets what the
    model returns if it takes that, and ``logits`` otherwise.
    """
    network.call.takes_logits = network.loss_fn.known
    batches = _group(network, pairs, None)
    try:
        return network, batches, find_num_classes(network, network.loss_fn, batches)
    except OutputsError as error:
        if network.loss_fn.known:
            raise
        whole, whole_pairs = _as_objective(network, pairs)
        whole_batches = _group(whole, whole_pairs, None)
        try:
            return whole, whole_batches, find_num_classes(whole, whole.loss_fn, whole_batches)
        except InputError:
            network.call.takes_logits = True
            try:
                return network, batches, find_num_classes(network, network.loss_fn, batches)
            except OutputsError:
                raise error from None


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


def _check_options(network: Network, plan: ExecutionPlan | None, batches: Sequence[Batch]) -> None:
    """Raise ``InputError`` if a plan cannot be carried out, or the loss is no function of θ."""
    single = network.loss_fn.objective is None and isinstance(batches[0].inputs, Tensor)
    if network.compiled is not None and not single:
        raise InputError(
            "compile=true needs a model whose inputs are one tensor, and a loss of its outputs: "
            "leave compile out for an objective, or for inputs of another structure."
        )
    if plan is not None and plan.micro_batch is not None and network.mixes_examples:
        raise InputError(
            "plan.micro_batch must be None if the examples of a batch share its statistics "
            f"(batchnorm=batch), got {plan.micro_batch}."
        )
    if network.changes_parameters:
        raise InputError(
            f"The forward pass of {type(network.model).__name__} changes parameters in place, as "
            "an Embedding with max_norm does: its loss is not a function of the parameters. "
            "Leave max_norm out, or change copies of the parameters."
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
    recalibration: Iterable[Any] | None,
    largest: int,
) -> Sequence[Any]:
    """Give the batches of inputs on which statistics are estimated."""
    if not network.recalibrates:
        return []
    inputs = [batch.inputs for batch in batches]
    if recalibration is not None:
        inputs = [pair[0] for pair in _read(network, recalibration)]
        largest = max(map(num_examples, inputs))
    return mixed(inputs, recalibration_batch_size(largest), network.policy.num_examples)


def _read(network: Network, loader: Iterable[Any]) -> list[Pair]:
    """Read the batches of a loader in the layout of the plan, dealt out anew if that matters."""
    loss, device = network.loss_fn, network.theta.device
    whole = loss.objective is not None and loss.objective is loss.function
    pairs = read_batches(loader, device, pairs=not whole)
    if loss.objective is not None and not whole:
        pairs = [(pair, None) for pair in pairs]
    pairs = [(network.plan.prepare(x), y) for x, y in pairs]
    # A batch of one class has other statistics than one of all classes.
    return shuffle(pairs) if network.mixes_examples else pairs


def _group(network: Network, pairs: list[Pair], num_classes: int | None) -> list[Batch]:
    """Give batches of one pass each."""
    if network.plan.micro_batch is not None:
        pairs = regroup(pairs, network.plan.micro_batch)
    loss = network.loss_fn
    batches = [loss.batch(*as_leaves(pair)) for pair in pairs]
    check_labels(loss, batches, num_classes)
    return batches
