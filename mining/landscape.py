"""The loss of a model as a function of its flat parameter vector."""

from collections.abc import Iterable, Sequence
from copy import copy
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from mining import InputError, functional
from mining.curvature import GaussNewtonOperator, HessianOperator, LossAt, ResidualOperator, loss_at
from mining.curvature.of_landscape import OperatorOptions, gauss_newton, hessian, residual
from mining.functional import (
    Activation,
    Batch,
    BatchNormPolicy,
    Buffers,
    CountFunction,
    Evaluation,
    ExecutionPlan,
    LossFunction,
    MiniBatches,
    Mode,
    Objective,
    PolicyEffect,
    WeightFunction,
)
from mining.storage.fingerprint import Fingerprint


class Landscape:
    """The loss of a model over fixed examples as a function of its parameters θ.

    The model is never changed: an evaluation substitutes parameters and buffers temporarily, and
    restores them and the training mode, also after an exception or Ctrl-C. θ and the buffers are
    those of the model when the landscape was created. Every example has the same weight, also in
    a smaller last batch; with class weights or ignored targets the loss equals that of all
    examples in one batch. A loss with ``reduction="sum"`` is summed over all examples.

    Args:
        model: Any module. It stays on its device. It is called with the inputs of a batch: a
            mapping is passed as keyword arguments if ``forward`` has a parameter for each key, a
            tuple as positional arguments if ``forward`` requires more than one, and anything else
            as a single argument.
        loss_fn: Maps outputs and targets to the loss of a batch, shape ``()``: a mean or, if it
            has ``reduction="sum"``, a sum. If the model returns an object instead of a tensor,
            losses of torch are given its ``logits``; other losses are given the object, or its
            ``logits`` if they do not accept the object.
        loader: Batches ``(inputs, targets)``, for instance a ``DataLoader``. Both are tensors or
            nested structures of tensors (tuples, mappings, data classes). They are read once and
            kept on the model's device.
        objective: Instead of ``loss_fn``: maps model and batch to the loss of the batch.
        batches: Instead of ``loader``: batches of any structure for ``objective``. There is then
            no accuracy, tolerance or Gauss-Newton matrix, and batches are evaluated as given.
        batchnorm: A policy or its mode: ``recalibrate``, ``frozen`` or ``batch``.
        recalibration: Batches on whose inputs the batch-norm statistics are estimated under
            ``recalibrate``; by default the examples of the landscape. To evaluate on test
            examples, give the training examples. They are shuffled and regrouped into batches of
            32 to 125.
        autocast: A lower precision for the forward pass (``torch.bfloat16``), or ``None``.
        tf32: Enable TF32 for matrix products and convolutions on a GPU (relative error 5e-4).
        plan: The execution plan. ``None`` chooses the fastest one that reproduces the unmodified
            model to rounding; ``ExecutionPlan()`` runs the unmodified model.
        weight: Maps a batch to the denominator of its mean loss, for means over something other
            than examples: ``lambda batch: (batch[1] != -100).sum()``. Losses of torch need none.
        count: Maps a batch to the number of its examples; by default the length of the first
            tensor that is not a scalar.
        compile: Whether evaluations compile the forward pass, which takes 10 to 60 s.

    Raises:
        InputError: If the model has no trainable parameters, the loader is empty or yields
            something other than such batches, or model, loss and examples do not fit together.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction | None = None,
        loader: Iterable[Any] | None = None,
        *,
        objective: Objective | None = None,
        batches: Iterable[Any] | None = None,
        batchnorm: BatchNormPolicy | Mode = "recalibrate",
        recalibration: Iterable[Any] | None = None,
        autocast: torch.dtype | None = None,
        tf32: bool = False,
        plan: ExecutionPlan | None = None,
        weight: WeightFunction | None = None,
        count: CountFunction | None = None,
        compile: bool = False,
    ) -> None:
        self._prepared = prepared = functional.prepare(
            model,
            loss_fn,
            loader,
            objective=objective,
            batches=batches,
            weight=weight,
            count=count,
            batchnorm=batchnorm,
            recalibration=recalibration,
            autocast=autocast,
            tf32=tf32,
            plan=plan,
            compile=compile,
        )
        self.model, self.loss_fn = model, prepared.loss.function
        self.batchnorm, self.averaging = prepared.network.policy, prepared.averaging
        self.space, self.theta = prepared.network.space, prepared.network.theta
        self.device = self.theta.device
        self.batches = prepared.batches
        self.num_examples = sum(batch.num_examples for batch in self.batches)

    def __repr__(self) -> str:
        """Describe the landscape in one line."""
        return (
            f"Landscape({type(self.model).__name__}, {self._prepared.loss.name}, "
            f"{self.space.size} parameters, {self.num_examples} examples, "
            f"batchnorm={self.batchnorm.mode}, {self.device})"
        )

    def __str__(self) -> str:
        """Describe the landscape in several lines; see ``describe``."""
        return f"{self!r}\n{functional.as_text(self.describe())}"

    def describe(self) -> dict[str, object]:
        """Return properties of model and loss, the plan and the cost of a point, as JSON values."""
        return functional.describe(self._prepared)

    @torch.inference_mode(False)
    def hold(self, loader: Iterable[Any]) -> list[Batch]:
        """Read batches once and keep them on the model's device, in the layout of ``plan``.

        If examples share batch statistics, they are regrouped into batches of the same sizes in a
        fixed random order. ``InputError`` if the batches differ in structure from those of the
        landscape, or a label exceeds the outputs of the model.
        """
        return self._prepared.hold(loader)

    @property
    def scores_classes(self) -> bool:
        """Whether outputs are class scores and targets class indices, so that accuracy exists."""
        return self._prepared.num_classes is not None

    @property
    def chance_loss(self) -> float | None:
        """The chance-level cross-entropy of C classes, log C; ``None`` for other losses."""
        return self._prepared.chance_loss

    @property
    def regroups(self) -> bool:
        """Whether the loss is a mean or a sum over examples, which may be regrouped."""
        return self._prepared.regroups

    @property
    def sums(self) -> bool:
        """Whether the loss is a sum over all examples instead of a mean."""
        return self._prepared.loss.sums

    def statistics(self, theta: Tensor) -> Buffers:
        """Return the buffers by name for an evaluation at ``theta``, shape ``(D,)``."""
        return self._prepared.statistics.at(theta)

    def warn_of_policy(self) -> PolicyEffect | None:
        """Compare the loss at θ under the policy with that of ``model.eval()``; may warn once.

        Returns ``None`` if they are equal by definition.
        """
        return self._prepared.statistics.compare()

    def statistics_mismatch(self) -> PolicyEffect | None:
        """Compare the loss at θ with recalibrated and with stored batch-norm statistics.

        ``None`` if no layer keeps any. Other policies than ``recalibrate`` use the examples.
        """
        return self._prepared.statistics.mismatch()

    @property
    def statistics_are_fixed(self) -> bool:
        """Whether ``statistics`` returns the same buffers at every point."""
        return self._prepared.network.statistics_are_fixed

    @property
    def plan(self) -> ExecutionPlan:
        """The execution plan."""
        return self._prepared.network.plan

    def points_together(self) -> int:
        """How many points ``evaluate_points`` should evaluate together, as memory permits."""
        return self._prepared.network.points_together()

    def at(self, directions: Sequence[Tensor], coefficients: Sequence[float]) -> Tensor:
        """Return the point θ + Σ c_k ε_k, shape ``(D,)``."""
        return functional.combine(self.theta, directions, coefficients)

    def evaluate(
        self,
        theta: Tensor,
        batches: Sequence[Batch] | None = None,
        statistics: Buffers | None = None,
    ) -> Evaluation:
        """Evaluate loss and accuracy over all examples at ``theta``, shape ``(D,)``.

        ``batches`` replaces the examples of the landscape by others, as ``hold`` returns them.
        ``statistics`` is the result of ``statistics(theta)``, if it is already known. A loss that
        overflows is returned as ``inf`` or ``nan``.
        """
        return functional.evaluate(self._prepared, theta, batches, statistics)

    def activations(self, theta: Tensor) -> dict[str, Activation]:
        """Measure the outputs of each module at ``theta``, shape ``(D,)``, in order of execution.

        ``rms`` is the root mean square over all examples, ``finite`` whether all entries are.
        """
        return functional.activations(self._prepared, theta)

    def loss(self, theta: Tensor | None = None) -> Tensor:
        """Compute the loss, by default at θ of the model: shape ``()``, float64, no graph."""
        return self.evaluate(self.theta if theta is None else theta).loss

    def evaluate_points(
        self,
        directions: Sequence[Tensor],
        coefficients: Sequence[Sequence[float]],
        batches: Sequence[Sequence[Batch]] | None = None,
    ) -> Tensor:
        """Evaluate S sets of examples at P points θ + Σ c_k ε_k, with a row of coefficients each.

        Returns loss and accuracy (``nan`` if there is none), shape ``(P, S, 2)``, float64.
        """
        sets = [self.batches] if batches is None else batches
        return functional.evaluate_points(self._prepared, directions, coefficients, sets)

    def losses_of_examples(
        self,
        directions: Sequence[Tensor],
        coefficients: Sequence[Sequence[float]],
        batches: Sequence[Batch],
        statistics: Sequence[Buffers] | None = None,
    ) -> Tensor:
        """Evaluate each of n examples at P points, with the buffers of each point if given.

        Returns the loss, and 1 if the example is classified correctly, shape ``(P, n, 2)``.
        ``InputError`` if examples share batch statistics, or the loss is not a plain mean.
        """
        return functional.losses_of_examples(
            self._prepared, directions, coefficients, batches, statistics
        )

    def confidences(
        self,
        theta: Tensor,
        batches: Sequence[Batch] | None = None,
        statistics: Buffers | None = None,
    ) -> Tensor:
        """Compute the softmax probability of each predicted class; arguments as for ``evaluate``.

        Returns it, and 1 if the prediction is right, shape ``(n, 2)``, without ignored examples.
        ``InputError`` if the outputs are not the class scores of a cross-entropy.
        """
        return functional.confidences(self._prepared, theta, batches, statistics)

    def gradient(
        self,
        theta: Tensor | None = None,
        batches: Sequence[Batch] | None = None,
        statistics: Buffers | None = None,
    ) -> Tensor:
        """Compute the gradient of the loss, shape ``(D,)``; arguments as for ``evaluate``.

        Under ``recalibrate`` statistics are estimated at ``theta``, by default that of the model,
        and held fixed; under ``batch`` the statistics of each batch are differentiated.
        ``InputError`` inside ``torch.inference_mode()``, or if the loss has no derivative.
        """
        return functional.gradient(self._prepared, theta, batches, statistics)

    def hessian(
        self, theta: Tensor | None = None, **options: Unpack[OperatorOptions]
    ) -> HessianOperator:
        """Return the Hessian of the loss at ``theta``, by default that of the model.

        Batch norm is treated as by ``gradient``. See ``OperatorOptions`` for ``parameters``,
        ``micro_batch`` and ``memory``. The operator has shape ``(d, d)`` over the d selected
        parameters, ``operator.space``; ``landscape.space.embed(v, operator.space)`` extends a
        vector with zeros to ``(D,)``. ``InputError`` if a name matches no parameter, or the loss
        is not finite, stochastic, in a low precision, or without derivatives.
        """
        return hessian(self._prepared, theta, **options)

    def gauss_newton(
        self, theta: Tensor | None = None, **options: Unpack[OperatorOptions]
    ) -> GaussNewtonOperator:
        """Return the Gauss-Newton matrix of the loss; arguments as for ``hessian``."""
        return gauss_newton(self._prepared, theta, **options)

    def residual(
        self, theta: Tensor | None = None, **options: Unpack[OperatorOptions]
    ) -> ResidualOperator:
        """Return the Hessian minus the Gauss-Newton matrix; arguments as for ``hessian``."""
        return residual(self._prepared, theta, **options)

    def loss_at(
        self,
        theta: Tensor | None = None,
        parameters: str | Sequence[str] | None = None,
        micro_batch: int | None = None,
    ) -> LossAt:
        """Return the loss as a differentiable function around ``theta``; see ``hessian``."""
        return loss_at(self._prepared, theta, parameters, micro_batch)

    def pick(
        self, batches: Sequence[Batch], chosen: Tensor, size: int | None = None
    ) -> list[Batch]:
        """Select examples of ``hold`` by ascending indices, in batches of ``size``."""
        return self._prepared.pick(batches, chosen, size)

    def restrict(self, batches: Sequence[Batch]) -> "Landscape":
        """Return the landscape of other examples of ``hold``, with the same statistics."""
        other = copy(self)
        other._prepared = self._prepared.restrict(batches)
        other.batches = other._prepared.batches
        other.num_examples = sum(batch.num_examples for batch in batches)
        return other

    def sample(self, num_examples: int, generator: torch.Generator) -> list[Batch]:
        """Draw examples without replacement, with a generator on the CPU; see ``hold``."""
        if not 1 <= num_examples <= self.num_examples:
            raise InputError(
                f"num_examples must be between 1 and {self.num_examples}, got {num_examples}."
            )
        chosen = torch.randperm(self.num_examples, generator=generator)[:num_examples]
        return self.pick(self.batches, chosen.sort().values)

    def mini_batches(self, batch_size: int, autocast: torch.dtype | None = None) -> MiniBatches:
        """Return the examples as mini-batches of at most ``batch_size``, for optimization.

        Batch norm under ``frozen`` keeps its statistics; otherwise each mini-batch is normalized
        by its own, which are differentiated, as in training. ``autocast`` is a lower
        precision for the forward pass. ``InputError`` if examples differ in shape.
        """
        return functional.mini_batches(self._prepared, batch_size, autocast)

    def fingerprint(self, also: Sequence[Batch] = ()) -> str:
        """Return a digest of all that determines the loss, with further examples; 64 hex digits."""
        return functional.fingerprint(self._prepared, also)

    def identify(self, digest: str) -> Fingerprint:
        """Combine a digest with the losses of a few examples, which identify the functions too."""
        return functional.identify(self._prepared, digest)
