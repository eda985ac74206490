"""The loss of a model as a function of its flat parameter vector."""

from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor, nn

from mining import InputError, functional
from mining.curvature import GaussNewtonOperator, HessianOperator, LossAt, ResidualOperator, loss_at
from mining.curvature.of_landscape import OperatorOptions, gauss_newton, hessian, residual
from mining.functional import (
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
    """The map θ ↦ loss of a model over fixed examples.

    The model is never changed: an evaluation substitutes parameters and buffers temporarily, and
    restores them and the modes, also after an exception or Ctrl-C. Parameters and buffers are
    those of the model when the landscape was created. Every example has the same weight, also in
    a smaller last batch; with class weights or ignored targets the mean equals that of the loss
    over all examples at once. A loss with ``reduction="sum"`` is summed over all examples.

    Args:
        model: Any module. It stays on its device. It is called with the inputs of a batch: a
            mapping is passed by names if ``forward`` has them all, a tuple as several arguments if
            it requires more than one, and anything else as one argument.
        loss_fn: Maps outputs and targets to the loss of a batch, shape ``()``: a mean or, if its
            ``reduction`` says so, a sum. Outputs that are no tensor go to it as they are if it
            takes them; torch's own losses, and those that do not, get their ``logits``.
        loader: Batches ``(inputs, targets)``, a ``DataLoader`` for instance. Both are tensors or
            structures of tensors (tuples, mappings, data classes). They are read once and kept on
            the model's device.
        objective: Instead of ``loss_fn``: maps model and batch to the loss of the batch.
        batches: Instead of ``loader``: batches of any structure for ``objective``. There is no
            accuracy, tolerance or Gauss-Newton matrix then, and batches are run as they are.
        batchnorm: A policy or its mode: ``recalibrate``, ``frozen`` or ``batch``.
        recalibration: Batches whose inputs re-estimate batch-norm statistics under
            ``recalibrate``; by default the examples. To evaluate on test examples, give the
            training examples. They are dealt out anew at random to batches of 32 to 125.
        autocast: A lower precision for the forward pass (``torch.bfloat16``), or ``None``.
        tf32: Enable TF32 for matrix products and convolutions on a GPU (relative error 5e-4).
        plan: The execution plan. ``None`` chooses the fastest one that reproduces the unmodified
            model to rounding; ``ExecutionPlan()`` runs the unmodified model.
        weight: Maps a batch to what its mean loss is divided by, for means over something else
            than examples: ``lambda batch: (batch[1] != -100).sum()``. torch's own need none.
        count: Maps a batch to the number of its examples; by default the length of its first
            tensor that has an axis.
        compile: Whether evaluations compile the forward pass, which takes 10 to 60 s.

    Raises:
        InputError: If the model has no trainable parameters, the loader is empty or yields
            something else, or the outputs do not fit the loss.
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
        """Say what it is, in one line."""
        return (
            f"Landscape({type(self.model).__name__}, {self._prepared.loss.name}, "
            f"{self.space.size} parameters, {self.num_examples} examples, "
            f"batchnorm={self.batchnorm.mode}, {self.device})"
        )

    def __str__(self) -> str:
        """Say what was found out, in some lines; see ``describe``."""
        return f"{self!r}\n{functional.as_text(self.describe())}"

    def describe(self) -> dict[str, object]:
        """Say what was found out, the plan and the cost of a point, in values that JSON takes."""
        return functional.describe(self._prepared)

    @torch.inference_mode(False)
    def hold(self, loader: Iterable[Any]) -> list[Batch]:
        """Read batches once and keep them on the model's device, as ``plan`` takes them.

        Where examples share batch statistics they are dealt out anew to batches of these sizes, in
        a random order that is always the same. Batches unlike those of the landscape, and labels
        beyond the outputs of the model, raise ``InputError``.
        """
        return self._prepared.hold(loader)

    @property
    def scores_classes(self) -> bool:
        """Whether outputs score classes and targets are their indices, so accuracy exists."""
        return self._prepared.num_classes is not None

    @property
    def chance_loss(self) -> float | None:
        """The chance-level cross-entropy of C classes, log C; ``None`` for another loss."""
        return self._prepared.chance_loss

    def statistics(self, theta: Tensor) -> Buffers:
        """Give the buffers by name with which to evaluate at ``theta``, shape ``(D,)``."""
        return self._prepared.statistics.at(theta)

    def warn_of_policy(self) -> PolicyEffect | None:
        """Compare the loss at θ under the batch-norm policy with that of ``model.eval()``.

        The first call may log a warning. ``None`` where they are the same by definition.
        """
        return self._prepared.statistics.compare()

    @property
    def statistics_are_fixed(self) -> bool:
        """Whether ``statistics`` gives the same at every point."""
        return self._prepared.network.statistics_are_fixed

    @property
    def plan(self) -> ExecutionPlan:
        """The execution plan."""
        return self._prepared.network.plan

    def points_together(self) -> int:
        """How many points ``evaluate_points`` gains by, as far as memory allows."""
        return self._prepared.network.points_together()

    def at(self, directions: Sequence[Tensor], coefficients: Sequence[float]) -> Tensor:
        """Give the point θ + Σ c_k ε_k, shape ``(D,)``."""
        return functional.combine(self.theta, directions, coefficients)

    def evaluate(
        self,
        theta: Tensor,
        batches: Sequence[Batch] | None = None,
        statistics: Buffers | None = None,
    ) -> Evaluation:
        """Evaluate loss and accuracy over all examples at ``theta``, shape ``(D,)``.

        ``batches`` are other examples than those of the landscape, as ``hold`` returns them, and
        ``statistics`` what ``statistics(theta)`` returned, to share it. A loss that overflows stays
        ``inf`` or ``nan``.
        """
        return functional.evaluate(self._prepared, theta, batches, statistics)

    def loss(self, theta: Tensor) -> Tensor:
        """Compute the loss at ``theta``, shape ``()``, float64, without a graph."""
        return self.evaluate(theta).loss

    def evaluate_points(
        self,
        directions: Sequence[Tensor],
        coefficients: Sequence[Sequence[float]],
        batches: Sequence[Sequence[Batch]] | None = None,
    ) -> Tensor:
        """Evaluate S sets of examples at P points θ + Σ c_k ε_k, with a row c for each.

        Loss and accuracy, ``nan`` where there is none, shape ``(P, S, 2)``, float64.
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

        Loss and 1 where it is classified correctly, shape ``(P, n, 2)``. ``InputError`` if
        examples share batch statistics, or the loss is no plain mean.
        """
        return functional.losses_of_examples(
            self._prepared, directions, coefficients, batches, statistics
        )

    def gradient(
        self,
        theta: Tensor | None = None,
        batches: Sequence[Batch] | None = None,
        statistics: Buffers | None = None,
    ) -> Tensor:
        """Compute the gradient of the loss, shape ``(D,)``; arguments as for ``evaluate``.

        Under ``recalibrate`` statistics are estimated at ``theta``, by default that of the model,
        and held fixed; under ``batch`` the derivative goes through the statistics of each batch.
        ``InputError`` inside ``torch.inference_mode()``, or if the loss has no derivative.
        """
        return functional.gradient(self._prepared, theta, batches, statistics)

    def hessian(
        self, theta: Tensor | None = None, **options: Unpack[OperatorOptions]
    ) -> HessianOperator:
        """Give the Hessian of the loss at ``theta``, by default that of the model.

        Batch norm as for ``gradient``. ``parameters``, ``micro_batch`` and ``memory`` are
        explained at ``OperatorOptions``. The operator has shape ``(d, d)`` over the d chosen
        parameters, which ``operator.space`` names; ``landscape.space.embed(v, operator.space)``
        fills a vector up to ``(D,)``. ``InputError`` if a name fits no parameter, or the loss
        is not finite, stochastic, in a low precision, or without derivatives.
        """
        return hessian(self._prepared, theta, **options)

    def gauss_newton(
        self, theta: Tensor | None = None, **options: Unpack[OperatorOptions]
    ) -> GaussNewtonOperator:
        """Give the Gauss-Newton matrix of the loss; arguments as for ``hessian``."""
        return gauss_newton(self._prepared, theta, **options)

    def residual(
        self, theta: Tensor | None = None, **options: Unpack[OperatorOptions]
    ) -> ResidualOperator:
        """Give Hessian minus Gauss-Newton matrix; arguments as for ``hessian``."""
        return residual(self._prepared, theta, **options)

    def loss_at(
        self,
        theta: Tensor | None = None,
        parameters: str | Sequence[str] | None = None,
        micro_batch: int | None = None,
    ) -> LossAt:
        """Give the loss as a differentiable function around ``theta``; see ``hessian``."""
        return loss_at(self._prepared, theta, parameters, micro_batch)

    def pick(
        self, batches: Sequence[Batch], chosen: Tensor, size: int | None = None
    ) -> list[Batch]:
        """Pick examples by ascending indices out of what ``hold`` returned, ``size`` a batch."""
        return self._prepared.pick(batches, chosen, size)

    def sample(self, num_examples: int, generator: torch.Generator) -> list[Batch]:
        """Draw examples without replacement, by a generator on the CPU; see ``hold``."""
        if not 1 <= num_examples <= self.num_examples:
            raise InputError(
                f"num_examples must be between 1 and {self.num_examples}, got {num_examples}."
            )
        chosen = torch.randperm(self.num_examples, generator=generator)[:num_examples]
        return self.pick(self.batches, chosen.sort().values)

    def mini_batches(self, batch_size: int, autocast: torch.dtype | None = None) -> MiniBatches:
        """Give the examples as stochastic optimization takes them, ``batch_size`` at most.

        Batch norm under ``frozen`` keeps its statistics; otherwise each mini-batch is normalized
        by its own, as in training, and the derivative goes through them. ``autocast`` is a lower
        precision for the forward pass. ``InputError`` if examples differ in shape.
        """
        return functional.mini_batches(self._prepared, batch_size, autocast)

    def fingerprint(self, also: Sequence[Batch] = ()) -> str:
        """Digest what decides a loss, of these and further examples; 64 hexadecimal digits."""
        return functional.fingerprint(self._prepared, also)

    def identify(self, digest: str) -> Fingerprint:
        """Join a digest of the work with the losses of a few examples, which no digest sees."""
        return functional.identify(self._prepared, digest)
