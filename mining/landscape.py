"""The loss of a model as a function of its flat parameter vector."""

import hashlib
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mining import InputError
from mining.curvature import (
    GaussNewtonOperator,
    HessianOperator,
    LossAt,
    ResidualOperator,
)
from mining.functional.averaging import find_gap, on_first_batches
from mining.functional.batches import (
    as_leaves,
    joined,
    lay_out,
    mixed,
    pick_examples,
    read_batches,
    regroup,
    shuffle,
)
from mining.functional.batchnorm import BatchNormPolicy, Mode, norm_layers, recalibration_batch_size
from mining.functional.checks import (
    check_independent,
    check_labels,
    check_substituted,
    find_num_classes,
    is_stochastic,
    underivable_parameters,
)
from mining.functional.derivatives import check_recording
from mining.functional.description import (
    as_text,
    describe_cost,
    describe_norm_layers,
    describe_parameters,
    describe_plan,
)
from mining.functional.execution_plan import ExecutionPlan
from mining.functional.loss import Batch, Loss, LossFunction, WeightFunction
from mining.functional.memory import available_memory
from mining.functional.metrics import Evaluation, ExampleMetrics, MeanMetrics, Metrics
from mining.functional.minibatches import MiniBatches
from mining.functional.network import Network, combine
from mining.functional.parameters import ParameterSpace
from mining.functional.randomness import seeded
from mining.functional.recalibration import PolicyEffect, policy_effect
from mining.functional.substitution import Forward
from mining.storage.fingerprint import Fingerprint, rounding_of

log = logging.getLogger(__name__)


class Landscape:
    """The map θ ↦ loss of a model over fixed examples.

    The model is never changed: an evaluation substitutes parameters and buffers temporarily, and
    restores them and the modes, also after an exception or Ctrl-C. Parameters and buffers are
    those of the model when the landscape was created. Every example has the same weight, also in
    a smaller last batch; with class weights or ignored targets the mean equals that of the loss
    over all examples at once.

    Args:
        model: Any module that maps a batch of inputs to outputs. It stays on its device.
        loss_fn: Maps outputs and targets to the mean loss over the batch, shape ``()``.
        loader: Batches of inputs and targets, a ``DataLoader`` for instance. They are read once
            and kept on the model's device.
        batchnorm: A policy or its mode: ``recalibrate``, ``frozen`` or ``batch``.
        recalibration: Batches whose inputs re-estimate batch-norm statistics under
            ``recalibrate``; by default those of ``loader``. To evaluate on test examples, give
            the training examples here. They are taken in batches of 125 in a random order that
            is always the same, of fewer where those given are smaller, but not below 32.
        autocast: A lower precision for the forward pass (``torch.bfloat16``), or ``None``.
        tf32: Enable TF32 for matrix products and convolutions on a GPU (relative error 5e-4),
            which is several times as fast; without it products have fp32 accuracy.
        plan: The execution plan. ``None`` chooses the fastest one that reproduces the unmodified
            model to rounding; ``ExecutionPlan()`` runs the unmodified model.
        weight: What the mean loss over a batch ``(inputs, targets)`` is divided by, for losses that
            are means over something else than examples: of tokens that are not ignored it is
            ``lambda batch: (batch[1] != -100).sum()``. torch's own losses need none.
        compile: Whether evaluations compile the forward pass. This takes 10 to 60 s and makes a
            pass 10 to 20 % faster on a CPU.

    Raises:
        InputError: If the model has no trainable parameters, the loader is empty or yields
            something else, or the outputs do not fit the loss.
    """

    @torch.inference_mode(False)  # what is made within it cannot be differentiated later
    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        loader: Iterable[tuple[Tensor, Tensor]],
        *,
        batchnorm: BatchNormPolicy | Mode = "recalibrate",
        recalibration: Iterable[tuple[Tensor, Tensor]] | None = None,
        autocast: torch.dtype | None = None,
        tf32: bool = False,
        plan: ExecutionPlan | None = None,
        weight: WeightFunction | None = None,
        compile: bool = False,
    ) -> None:
        self.model = model
        self.loss_fn = loss_fn
        self._loss = Loss(loss_fn, weight)
        settings = self._loss.settings()
        self.batchnorm = (
            batchnorm if isinstance(batchnorm, BatchNormPolicy) else BatchNormPolicy(batchnorm)
        )
        self._network = network = Network(
            model, self._loss, self.batchnorm, autocast, tf32=tf32, compile=compile
        )
        self.space, self.theta = network.space, network.theta
        self.device = self.theta.device
        self._num_classes: int | None = None
        self.batches = self.hold(loader)
        self.num_examples = sum(len(batch.inputs) for batch in self.batches)
        # Trials leave the caller's random numbers as they are, and so does all that follows.
        with seeded(0, self.device):
            self._num_classes = find_num_classes(network, self._loss, self.batches)
            check_substituted(network, self.batches[0])
            network.stochastic = is_stochastic(network, self._loss, self.batches)
        if network.stochastic:
            network.compiled = None
            log.warning(
                "%s or its loss draws random numbers (functional dropout, sampling, noise). Each "
                "batch gets the same ones at every point, so that losses and gradients are those "
                "of one draw; there is no curvature and no tolerance. Turn it off for the loss "
                "without noise.",
                type(model).__name__,
            )
        if plan is not None and plan.micro_batch is not None and network.mixes_examples:
            raise InputError(
                "plan.micro_batch must be None where examples share batch statistics, got "
                f"{plan.micro_batch}."
            )
        if network.changes_parameters:
            raise InputError(
                f"The forward pass of {type(model).__name__} changes parameters in place, as an "
                "Embedding with max_norm does: its loss is no function of them. Leave max_norm "
                "out, or compute with changed copies."
            )
        # Settings that change when the loss is called count something.
        changed = self._loss.settings().items() ^ settings.items()
        self._counters = frozenset(name for name, _ in changed)
        with seeded(0, self.device):
            #: Batches whose losses do not average to the loss of all their examples, if any.
            self.averaging = find_gap(network, self._loss, self.batches)
            if self.averaging is not None and len(self.batches) > 1:
                self.averaging = on_first_batches(network, self._loss, self.batches, self.averaging)
                log.warning("%s", self.averaging.describe())
            network.plan = self._find_plan() if plan is None else plan
        batches, self.batches = self.batches, []
        pairs = [(network.plan.prepare(batch.inputs), batch.targets) for batch in batches]
        largest = max(len(inputs) for inputs, _ in pairs)
        del batches  # examples are not held twice
        if recalibration is None and network.recalibrates:
            pairs = lay_out(pairs)
        self.batches = self._group(pairs)
        self._recalibration: Sequence[Tensor] = []
        self._at_theta: tuple[int, dict[str, Tensor]] | None = None
        self._compared = False
        self._policy_effect: PolicyEffect | None = None
        if network.recalibrates:
            inputs = [batch.inputs for batch in self.batches]
            if recalibration is not None:
                inputs = [pair[0] for pair in self._read(recalibration)]
                largest = max(map(len, inputs))
            size = recalibration_batch_size(largest)
            self._recalibration = mixed(inputs, size, self.batchnorm.num_examples)

    def __repr__(self) -> str:
        """Say what it is, in one line."""
        loss = self.loss_fn
        return (
            f"Landscape({type(self.model).__name__}, "
            f"{getattr(loss, '__name__', type(loss).__name__)}, {self.space.size} parameters, "
            f"{self.num_examples} examples, batchnorm={self.batchnorm.mode}, {self.device})"
        )

    def __str__(self) -> str:
        """Say what was found out, in some lines; see ``describe``."""
        return f"{self!r}\n{as_text(self.describe())}"

    def describe(self) -> dict[str, object]:
        """Say what was found out about model, loss and examples, and measure a pass.

        Returns:
            Plain values, lists and mappings, as JSON takes them: examples, parameters, norm
            layers and statistics, whether batch losses average to the loss and outputs repeat,
            the chance-level loss, the execution plan and why there is no faster one, seconds and
            bytes of one point.
        """
        network, loss_fn = self._network, self._loss
        effect, stored = self._policy_effect, network.copy_buffers()
        precision = "tf32" if network.tf32 else str(network.autocast or self.space.dtype)
        return {
            "model": type(self.model).__name__,
            "loss": getattr(self.loss_fn, "__name__", type(self.loss_fn).__name__),
            "device": str(self.device),
            "precision": precision.removeprefix("torch."),
            "examples": self.num_examples,
            "passes": len(self.batches),
            "parameters": describe_parameters(network, loss_fn, self.batches),
            "norm_layers": describe_norm_layers(self.model),
            "batchnorm": self.batchnorm.mode if norm_layers(self.model) else None,
            "recalibration_examples": sum(map(len, self._recalibration)),
            **({} if effect is None else {"loss_at_theta": effect.losses}),
            "mean_over_examples": self.averaging is None,
            "outputs_repeat": not network.stochastic,
            "chance_loss": self.chance_loss,
            "plan": describe_plan(self.plan),
            "cost": describe_cost(
                network,
                self.batches,
                self._recalibration,
                lambda batches: self.evaluate(self.theta, batches, stored),
                lambda inputs: network.statistics(self.theta, inputs),
            ),
        }

    @torch.inference_mode(False)
    def hold(self, loader: Iterable[tuple[Tensor, Tensor]]) -> list[Batch]:
        """Read batches once and keep them on the model's device.

        They are cut or joined to what ``plan`` takes in one pass; one that takes batches as they
        are gets them so, except that a last one of a single example, which has no variance to
        normalize by, joins its neighbour. Where examples share batch statistics they are dealt
        out anew to batches of these sizes, in a random order that is always the same.

        Raises:
            InputError: If there is none, one is not a pair of tensors of equal length, or a label
                is beyond the outputs of the model.
        """
        return self._group(self._read(loader))

    @property
    def scores_classes(self) -> bool:
        """Whether outputs score classes and targets are their indices, so accuracy exists."""
        return self._num_classes is not None

    @property
    def chance_loss(self) -> float | None:
        """The chance-level cross-entropy log C of C classes; ``None`` for another loss."""
        if self._num_classes is None or not self._loss.log_c_at_chance:
            return None
        return math.log(self._num_classes)

    def statistics(self, theta: Tensor) -> dict[str, Tensor]:
        """Find the buffers with which to evaluate at ``theta``.

        Args:
            theta: Flat parameters, shape ``(D,)``.

        Returns:
            Buffers by name, under ``recalibrate`` with running statistics estimated at ``theta``.
        """
        if theta is not self.theta or torch.is_inference_mode_enabled():
            return self._network.statistics(theta, self._recalibration)
        if self._at_theta is None or self._at_theta[0] != theta._version:
            statistics = self._network.statistics(theta, self._recalibration)
            self._at_theta = (theta._version, statistics)
        return {name: buffer.clone() for name, buffer in self._at_theta[1].items()}

    def warn_of_policy(self) -> PolicyEffect | None:
        """Compare the loss at θ under the batch-norm policy with that of ``model.eval()``.

        The first call logs a warning if they differ by more than the sampling error.

        Returns:
            Both losses; ``None`` where they are the same by definition.
        """
        if not self._compared:
            self._compared = True
            self._policy_effect = policy_effect(
                self._network, self._loss, self.batches, self.statistics(self.theta)
            )
            if self._policy_effect is not None and self._policy_effect.matters:
                log.warning("%s", self._policy_effect.describe(self.batchnorm.mode))
        return self._policy_effect

    @property
    def statistics_are_fixed(self) -> bool:
        """Whether ``statistics`` gives the same at every point."""
        return self._network.statistics_are_fixed

    @property
    def plan(self) -> ExecutionPlan:
        """The execution plan."""
        return self._network.plan

    def points_together(self) -> int:
        """How many points ``evaluate_points`` gains by, as far as memory allows."""
        return self._network.points_together()

    @torch.no_grad()
    def evaluate(
        self,
        theta: Tensor,
        batches: Sequence[Batch] | None = None,
        statistics: dict[str, Tensor] | None = None,
    ) -> Evaluation:
        """Evaluate loss and accuracy at ``theta``.

        Args:
            theta: Flat parameters, shape ``(D,)``.
            batches: Other examples than those of the landscape, as ``hold`` returns them.
            statistics: What ``statistics(theta)`` returned, to share it between sets of examples.

        Returns:
            Loss and accuracy over all examples. A loss that overflows stays ``inf`` or ``nan``.
        """
        batches = self.batches if batches is None else batches
        buffers = self.statistics(theta) if statistics is None else statistics
        metrics = MeanMetrics(self._loss, batches, classes=self.scores_classes)
        self._network.measure(metrics, theta, batches, buffers)
        return metrics.mean()

    @torch.no_grad()
    def evaluate_points(
        self,
        directions: Sequence[Tensor],
        coefficients: Sequence[Sequence[float]],
        batches: Sequence[Sequence[Batch]] | None = None,
    ) -> Tensor:
        """Evaluate loss and accuracy at points θ + Σ c_k ε_k together.

        What the points have in common is computed once: the products of inputs and first layer,
        where ``plan`` has one and no statistics depend on the point.

        Args:
            directions: K directions ε, each of shape ``(D,)``.
            coefficients: A row c of length K for each of P points.
            batches: S sets of examples, by default that of the landscape alone.

        Returns:
            Loss and accuracy, shape ``(P, S, 2)``, float64, on the device; accuracy is ``nan``
            where there is none.
        """
        batches = [self.batches] if batches is None else batches
        metrics = self._measure(MeanMetrics, directions, coefficients, batches)
        return torch.stack([torch.stack([of_set.row() for of_set in row]) for row in metrics])

    @torch.no_grad()
    def losses_of_examples(
        self,
        directions: Sequence[Tensor],
        coefficients: Sequence[Sequence[float]],
        batches: Sequence[Batch],
        statistics: Sequence[dict[str, Tensor]] | None = None,
    ) -> Tensor:
        """Evaluate every example at points θ + Σ c_k ε_k; see ``evaluate_points``.

        Args:
            directions: K directions ε, each of shape ``(D,)``.
            coefficients: A row c of length K for each of P points.
            batches: n examples, as ``hold`` returns them.
            statistics: Of each point what ``statistics`` returned.

        Returns:
            Loss of each example, and 1 where it is classified correctly, shape ``(P, n, 2)``.

        Raises:
            InputError: If examples share batch statistics, or the loss is no plain mean.
        """
        if self._network.stochastic:
            raise InputError(
                "Model or loss draw random numbers, which belong to batches and not to examples: "
                "tolerance needs a model without (dropout in eval mode, no sampling)."
            )
        if self._network.mixes_examples:
            raise InputError(
                "The loss of an example depends on the others of its batch: tolerance needs "
                "batchnorm=recalibrate or frozen."
            )
        if any(batch.weight == 0 for batch in batches):
            raise InputError(
                "All targets of a batch are ignored: tolerance needs a loss that is a plain mean."
            )
        metrics = self._measure(ExampleMetrics, directions, coefficients, [batches], statistics)
        return torch.stack([of_point.row() for (of_point,) in metrics])

    def _measure(
        self,
        kind: type[MeanMetrics] | type[ExampleMetrics],
        directions: Sequence[Tensor],
        coefficients: Sequence[Sequence[float]],
        sets: Sequence[Sequence[Batch]],
        statistics: Sequence[dict[str, Tensor]] | None = None,
    ) -> list[list[Metrics]]:
        """Compute metrics at P points on S sets of examples."""
        metrics: list[list[Metrics]] = [
            [kind(self._loss, batches, classes=self.scores_classes) for batches in sets]
            for _ in coefficients
        ]
        if self.plan.first_layer is not None and self.statistics_are_fixed:
            for batches, column in zip(sets, zip(*metrics, strict=True), strict=True):
                self._network.measure_together(column, directions, coefficients, batches)
            return metrics
        for number, (row, point) in enumerate(zip(coefficients, metrics, strict=True)):
            theta = self.at(directions, row)
            buffers = self.statistics(theta) if statistics is None else statistics[number]
            for batches, of_set in zip(sets, point, strict=True):
                self._network.measure(of_set, theta, batches, buffers)
        return metrics

    def at(self, directions: Sequence[Tensor], coefficients: Sequence[float]) -> Tensor:
        """Give the point θ + Σ c_k ε_k, shape ``(D,)``."""
        return combine(self.theta, directions, coefficients)

    def loss(self, theta: Tensor) -> Tensor:
        """Compute the mean loss over the examples at ``theta``, shape ``(D,)``.

        Returns:
            Shape ``()``, float64, without a graph; for derivatives there is ``gradient``.
        """
        return self.evaluate(theta).loss

    def gradient(
        self,
        theta: Tensor | None = None,
        batches: Sequence[Batch] | None = None,
        statistics: dict[str, Tensor] | None = None,
    ) -> Tensor:
        """Compute the gradient of the mean loss.

        Under ``recalibrate`` statistics are estimated at ``theta`` and held fixed; under
        ``batch`` the derivative goes through the statistics of each batch. Parameters that the
        loss does not use get zeros.

        Args:
            theta: Flat parameters, shape ``(D,)``; by default those of the model.
            batches: Other examples than those of the landscape, as ``hold`` returns them.
            statistics: What ``statistics`` returned, to hold it fixed or to share it.

        Returns:
            Shape ``(D,)``.

        Raises:
            InputError: Inside ``torch.inference_mode()``, or if the loss is detached from
                parameters or constant in steps.
        """
        network = self._network
        theta = self._derivable(self.theta if theta is None else theta)
        batches = self.batches if batches is None else batches
        buffers = self.statistics(theta) if statistics is None else statistics
        self._check_derivable(self.space)
        # A forward pass may write to buffers: under ``batch`` it updates running statistics.
        buffers = {name: buffer.clone() for name, buffer in buffers.items()}
        total = sum(batch.weight for batch in batches)
        if total == 0:
            raise InputError("All targets are ignored: there is no loss to differentiate.")
        gradient = torch.zeros_like(theta)
        with torch.enable_grad():
            for number, (inputs, targets, weight, _) in enumerate(batches):
                if weight > 0:
                    leaf = theta.detach().requires_grad_()
                    tensors = network.tensors(leaf, buffers)
                    with network.running(tensors) as forward, network.noise(number):
                        loss = self._loss(forward(inputs), targets) * (weight / total)
                        if loss.requires_grad:  # else no batch depends on any parameter
                            gradient += torch.autograd.grad(loss, leaf, materialize_grads=True)[0]
        return gradient

    def hessian(
        self,
        theta: Tensor | None = None,
        *,
        parameters: str | Sequence[str] | None = None,
        micro_batch: int | None = None,
        memory: int | None = None,
    ) -> HessianOperator:
        """Give the Hessian of the mean loss.

        Batch norm as for ``gradient``. Attention runs on the math kernel, the only one of
        ``scaled_dot_product_attention`` that has second derivatives.

        Args:
            theta: Flat parameters, shape ``(D,)``; by default those of the model.
            parameters: What to differentiate by, as ``ParameterSpace.select`` takes it: names of
                parameters or layers, patterns, ``weights``; ``None`` takes all D.
            micro_batch: Most examples in one graph, if fewer than in one pass of ``plan``, which
                ``None`` takes. Batches stay whole where examples share batch statistics.
            memory: Bytes of graphs to keep between products; ``None`` takes two fifths of what
                is free.

        Returns:
            An operator of shape ``(d, d)`` over the d chosen parameters. ``operator.space`` names
            them; ``landscape.space.embed(v, operator.space)`` fills a vector up to ``(D,)``.

        Raises:
            InputError: If a name fits no parameter, the loss at ``theta`` is not finite, the
                model gives something else each time it runs, or the landscape autocasts; inside
                ``torch.inference_mode()``; if the loss is detached from parameters or constant in
                steps.
        """
        return HessianOperator(self.loss_at(theta, parameters, micro_batch), memory)

    def gauss_newton(
        self,
        theta: Tensor | None = None,
        *,
        parameters: str | Sequence[str] | None = None,
        micro_batch: int | None = None,
        memory: int | None = None,
    ) -> GaussNewtonOperator:
        """Give the Gauss-Newton matrix of the mean loss; arguments as for ``hessian``."""
        return GaussNewtonOperator(self.loss_at(theta, parameters, micro_batch), memory)

    def residual(
        self,
        theta: Tensor | None = None,
        *,
        parameters: str | Sequence[str] | None = None,
        micro_batch: int | None = None,
        memory: int | None = None,
    ) -> ResidualOperator:
        """Give Hessian minus Gauss-Newton matrix; arguments as for ``hessian``."""
        loss = self.loss_at(theta, parameters, micro_batch)
        memory = available_memory(self.device) * 2 // 5 if memory is None else memory
        half = memory // 2
        return ResidualOperator(HessianOperator(loss, half), GaussNewtonOperator(loss, half))

    def loss_at(
        self,
        theta: Tensor | None = None,
        parameters: str | Sequence[str] | None = None,
        micro_batch: int | None = None,
    ) -> LossAt:
        """Give the loss as a differentiable function around ``theta``; see ``hessian``."""
        network = self._network
        if network.autocast is not None or network.tf32:
            raise InputError(
                f"Second derivatives in {network.autocast or 'tf32'} are noise: use precision fp32 "
                "or fp64 (autocast=None, tf32=False)."
            )
        if self.theta.dtype in (torch.bfloat16, torch.float16):
            raise InputError(
                f"Second derivatives in {self.theta.dtype} are noise: give the model in float32 or "
                "float64."
            )
        if micro_batch is not None and micro_batch < 1:
            raise InputError(f"micro_batch must be at least 1, got {micro_batch}.")
        theta = self._derivable(self.theta if theta is None else theta)
        space = self.space if parameters is None else self.space.select(parameters)
        self._check_derivable(space)
        statistics = self.statistics(theta)
        loss = self.evaluate(theta, statistics=statistics).loss
        if not torch.isfinite(loss):
            raise InputError(f"The loss at theta is {loss.item()}: there is no curvature.")
        values = self.space.unflatten(theta)
        fixed = {name: tensor for name, tensor in values.items() if name not in space.names}
        fixed |= network.frozen

        @contextmanager
        def running(leaves: dict[str, Tensor]) -> Iterator[Forward]:
            # A forward pass may write to buffers, and a graph may be kept.
            buffers = {name: buffer.clone() for name, buffer in statistics.items()}
            tensors = {**fixed, **buffers, **leaves}
            with network.modes(), network.substitution(tensors), sdpa_kernel(SDPBackend.MATH):
                yield self.plan.folding.fold(network.forward, tensors, affine=True)

        batches = self.batches
        if not network.mixes_examples:
            if micro_batch is not None and self.plan.micro_batch is None:
                check_independent(network, self._loss, self.batches, micro_batch)
            batches = self._loss.split(batches, micro_batch or self.num_examples)
        chosen = {name: values[name] for name in space.names}
        differentiable = LossAt(space, space.flatten(chosen), running, self._loss, batches)
        differentiable.check_repeatable()
        return differentiable

    def sample(self, num_examples: int, generator: torch.Generator) -> list[Batch]:
        """Draw examples without replacement.

        Args:
            num_examples: Examples to draw, at most those of the landscape.
            generator: Source of randomness, on the CPU.

        Returns:
            The examples as ``hold`` returns them.

        Raises:
            InputError: If ``num_examples`` is not between 1 and the number of examples.
        """
        if not 1 <= num_examples <= self.num_examples:
            raise InputError(
                f"num_examples must be between 1 and {self.num_examples}, got {num_examples}."
            )
        chosen = torch.randperm(self.num_examples, generator=generator)[:num_examples]
        return self.hold([pick_examples(self.batches, chosen.sort().values)])

    def mini_batches(self, batch_size: int, autocast: torch.dtype | None = None) -> MiniBatches:
        """Give the examples as stochastic optimization takes them.

        Batch norm under ``frozen`` keeps its statistics; otherwise each mini-batch is normalized
        by its own, as in training, and the derivative goes through them.

        Args:
            batch_size: Most examples of a mini-batch.
            autocast: A lower precision for the forward pass than that of the landscape.

        Raises:
            InputError: If ``batch_size`` is below 1, examples differ in shape, or the loss has no
                derivative.
        """
        self._check_derivable(self.space)
        if batch_size < 1:
            raise InputError(f"batch_size must be at least 1, got {batch_size}.")
        fixed = self.batchnorm.mode == "frozen"
        network = self._network if fixed else self._network.with_batch_statistics()
        if autocast is not None:
            network = network.in_precision(autocast)
        inputs, targets = (
            joined(tensors)
            for tensors in zip(*((b.inputs, b.targets) for b in self.batches), strict=True)
        )
        if all(batch.targets is batch.inputs for batch in self.batches):
            targets = inputs
        return MiniBatches(network, self._loss, inputs, targets, batch_size)

    def fingerprint(self, also: Sequence[Batch] = ()) -> str:
        """Digest what decides a loss: parameters, examples, model, loss, policy and precision.

        Args:
            also: Further examples, those of a test set for instance.

        Returns:
            64 hexadecimal digits, the same in every process.
        """
        network = self._network
        precision = (network.autocast, network.tf32)
        loss = self._loss.describe(self._counters)
        described = (self.batchnorm, precision, self.model, loss)
        digest = hashlib.sha256(repr(described).encode())
        tensors = [self.theta, *network.frozen.values(), *network.buffers.values()]
        tensors += self._loss.tensors()
        for tensor in (*tensors, *self._recalibration):
            digest.update(repr(tuple(tensor.shape)).encode())
            update_digest(digest, tensor)
        batches = [*self.batches, *also]
        if self._loss.weight is not None:
            digest.update(repr([batch.weight for batch in batches]).encode())
        if network.mixes_examples:  # else it does not matter how they are grouped
            digest.update(repr([len(batch.inputs) for batch in batches]).encode())
        for tensor in (*(b.inputs for b in batches), *(b.targets for b in batches)):
            update_digest(digest, tensor)
        return digest.hexdigest()

    def _derivable(self, theta: Tensor) -> Tensor:
        """Detach ``theta`` of whatever mode it was made in."""
        check_recording()
        return theta.clone() if theta.is_inference() else theta.detach()

    @cached_property
    def _underivable(self) -> list[str]:
        return underivable_parameters(self._network, self.batches)

    def _check_derivable(self, space: ParameterSpace) -> None:
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

    @torch.no_grad()
    def identify(self, digest: str) -> Fingerprint:
        """Join a digest of what is computed here with the losses of a few examples.

        The examples are the first, and the points θ and θ/2 with the buffers of the model: their
        losses change with what no digest sees, a constant in the code of the model for instance.

        Args:
            digest: Of the work and of the ``fingerprint``.
        """
        first, values = self.batches[:1], []
        if self.plan.micro_batch is not None:  # any number may be taken together
            few = torch.arange(min(16, len(first[0].inputs)))
            first = self.hold([pick_examples(first, few)])
        cuda = [self.device] if self.device.type == "cuda" else []
        for point in (self.theta, self.theta / 2):
            buffers = {name: buffer.clone() for name, buffer in self._network.buffers.items()}
            with torch.random.fork_rng(cuda):
                torch.manual_seed(0)  # of a model that draws random numbers
                values.append(float(self.evaluate(point, first, buffers).loss))
        coarse = self._network.autocast is not None or self._network.tf32
        return Fingerprint(digest, tuple(values), rounding_of(self.theta.dtype, coarse=coarse))

    @torch.no_grad()
    def _find_plan(self) -> ExecutionPlan:
        if self._network.needs_graph:
            return ExecutionPlan().because("model or loss differentiate by the examples")
        plan = self._network.find_plan(self.batches)
        if plan.micro_batch is not None and self.averaging is not None:
            plan = replace(plan, micro_batch=None).because("the loss is no mean over examples")
        return plan

    def _read(self, loader: Iterable[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
        pairs = [(self.plan.prepare(x), y) for x, y in read_batches(loader, self.device)]
        # A batch of one class has other statistics than one of all classes.
        return shuffle(pairs) if self._network.mixes_examples else pairs

    def _group(self, pairs: list[tuple[Tensor, Tensor]]) -> list[Batch]:
        """Give batches of one pass each."""
        if self.plan.micro_batch is not None:
            pairs = regroup(pairs, self.plan.micro_batch)
        pairs = [as_leaves(pair) for pair in pairs]
        batches = [Batch(*pair, *self._loss.weigh(*pair)) for pair in pairs]
        check_labels(self._loss, batches, self._num_classes)
        return batches


def update_digest(digest: "hashlib._Hash", tensor: Tensor) -> None:
    """Feed the numbers of a tensor to ``digest``, however they lie in memory."""
    content = tensor.detach().cpu().contiguous()
    # One number can have any stride and still count as contiguous.
    flat = content.as_strided((content.numel(),), (1,))
    digest.update(flat.view(torch.uint8).numpy().data)
