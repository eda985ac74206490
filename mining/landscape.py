"""The loss of a model as a function of its flat parameter vector."""

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F  # noqa: N812  (the name under which everybody knows it)

from mining.batchnorm import BatchNormPolicy, Mode, modes, recalibrate
from mining.parameters import ParameterSpace

Batch = tuple[Tensor, Tensor]
LossFunction = Callable[[Tensor, Tensor], Tensor]


class Evaluation(NamedTuple):
    """Loss and accuracy over a set of examples."""

    loss: Tensor  # () float64, mean over examples
    accuracy: Tensor | None  # () float64 in [0, 1]; None where the targets are not class indices


class Landscape:
    """The map θ ↦ loss of a model over fixed examples.

    The model is never changed: every evaluation substitutes parameters and buffers for the time
    of one forward pass and restores modes, also after an exception or Ctrl-C. Parameters θ and
    buffers are those that the model had when the landscape was made. Every example weighs the
    same, also in a ragged last batch.

    Args:
        model: Any module that maps a batch of inputs to outputs. It stays on its device.
        loss_fn: Maps outputs and targets to the mean loss over the batch, shape ``()``.
        loader: Batches of inputs and targets, a ``DataLoader`` for instance. They are read once
            and kept on the model's device.
        batchnorm: A policy or its mode: ``recalibrate``, ``frozen`` or ``batch``.
        recalibration: Batches whose inputs re-estimate batch-norm statistics under
            ``recalibrate``; by default those of ``loader``. To evaluate on test examples, give
            the training examples here.
        autocast: A lower precision for the forward pass (``torch.bfloat16``), or ``None``.

    Raises:
        ValueError: If the model has no trainable parameters, the loader is empty or yields
            something else, or the outputs do not fit the loss.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction,
        loader: Iterable[Batch],
        *,
        batchnorm: BatchNormPolicy | Mode = "recalibrate",
        recalibration: Iterable[Batch] | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.model = model
        self.loss_fn = loss_fn
        self.batchnorm = (
            batchnorm if isinstance(batchnorm, BatchNormPolicy) else BatchNormPolicy(batchnorm)
        )
        self.space = ParameterSpace.of(model)
        parameters = dict(model.named_parameters())
        self.theta = self.space.flatten({n: parameters[n].detach() for n in self.space.names})
        self.device = self.theta.device
        self._buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        self._autocast = autocast
        self.batches = self.hold(loader)
        self.num_examples = sum(len(inputs) for inputs, _ in self.batches)
        self._recalibration = self._recalibration_inputs(recalibration)
        self._num_classes = self._check_outputs()

    def hold(self, loader: Iterable[Batch]) -> list[Batch]:
        """Read batches once and keep them on the model's device.

        Raises:
            ValueError: If there is none, or one is not a pair of tensors of equal length.
        """
        batches = []
        for batch in loader:
            if not (
                isinstance(batch, list | tuple)
                and len(batch) == 2
                and all(isinstance(item, Tensor) for item in batch)
                and len(batch[0]) == len(batch[1])
            ):
                raise ValueError(
                    "A batch must be a pair of tensors (inputs, targets) of equal length, "
                    f"got {type(batch).__name__}. Wrap the loader, or the model, to make it so."
                )
            batches.append((batch[0].to(self.device), batch[1].to(self.device)))
        if not batches:
            raise ValueError("The loader is empty: at least one batch is needed.")
        return batches

    @property
    def scores_classes(self) -> bool:
        """Whether outputs score classes and targets are their indices, so accuracy exists."""
        return self._num_classes is not None

    @property
    def chance_loss(self) -> float | None:
        """The cross-entropy log C of guessing among C classes; ``None`` for another loss."""
        cross_entropy = isinstance(self.loss_fn, nn.CrossEntropyLoss) or (
            self.loss_fn is F.cross_entropy
        )
        return math.log(self._num_classes) if cross_entropy and self._num_classes else None

    def statistics(self, theta: Tensor) -> dict[str, Tensor]:
        """Find the buffers with which to evaluate at ``theta``.

        Args:
            theta: Flat parameters, shape ``(D,)``.

        Returns:
            Buffers by name, under ``recalibrate`` with running statistics estimated at ``theta``.
        """
        if self.batchnorm.mode != "recalibrate":
            return self._buffers
        parameters = self.space.unflatten(theta)
        with torch.no_grad():
            return recalibrate(
                self.model,
                self._buffers,
                self._recalibration,
                lambda inputs, buffers: self._forward(parameters, buffers, inputs),
            )

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
        parameters = self.space.unflatten(theta)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        correct = torch.zeros((), dtype=torch.float64, device=self.device)
        with self._evaluation_modes():
            for inputs, targets in batches:
                outputs = self._forward(parameters, self._own(buffers), inputs)
                total += self.loss_fn(outputs, targets).double() * len(inputs)
                if self._num_classes:
                    correct += (outputs.argmax(1) == targets).sum()
        count = sum(len(inputs) for inputs, _ in batches)
        return Evaluation(total / count, correct / count if self._num_classes else None)

    def loss(self, theta: Tensor) -> Tensor:
        """Compute the mean loss over the examples at ``theta``, shape ``(D,)``.

        Returns:
            Shape ``()``, float64, without a graph; for derivatives there is ``gradient``.
        """
        return self.evaluate(theta).loss

    def gradient(
        self, theta: Tensor | None = None, batches: Sequence[Batch] | None = None
    ) -> Tensor:
        """Compute the gradient of the mean loss.

        Under ``recalibrate`` statistics are estimated at ``theta`` and held fixed; under
        ``batch`` the derivative goes through the statistics of each batch. Parameters that the
        loss does not use get zeros.

        Args:
            theta: Flat parameters, shape ``(D,)``; by default those of the model.
            batches: Other examples than those of the landscape, as ``hold`` returns them.

        Returns:
            Shape ``(D,)``.
        """
        theta = self.theta if theta is None else theta
        batches = self.batches if batches is None else batches
        buffers = self.statistics(theta)
        count = sum(len(inputs) for inputs, _ in batches)
        gradient = torch.zeros_like(theta)
        with torch.enable_grad(), self._evaluation_modes():
            for inputs, targets in batches:
                leaf = theta.detach().requires_grad_()
                outputs = self._forward(self.space.unflatten(leaf), self._own(buffers), inputs)
                loss = self.loss_fn(outputs, targets) * (len(inputs) / count)
                gradient += torch.autograd.grad(loss, leaf)[0]
        return gradient

    def sample(self, num_examples: int, generator: torch.Generator) -> list[Batch]:
        """Draw one batch of examples without replacement.

        Args:
            num_examples: Examples to draw, at most those of the landscape.
            generator: Source of randomness, on the CPU.

        Returns:
            A list of one batch.

        Raises:
            ValueError: If ``num_examples`` is not between 1 and the number of examples.
        """
        if not 1 <= num_examples <= self.num_examples:
            raise ValueError(
                f"num_examples must be between 1 and {self.num_examples}, got {num_examples}."
            )
        chosen = torch.randperm(self.num_examples, generator=generator)[:num_examples]
        chosen = chosen.sort().values.to(self.device)
        starts = torch.tensor([0] + [len(inputs) for inputs, _ in self.batches]).cumsum(0).tolist()
        picks = [
            (chosen[(chosen >= start) & (chosen < stop)] - start)
            for start, stop in pairwise(starts)
        ]
        pairs = [(x[i], y[i]) for (x, y), i in zip(self.batches, picks, strict=True) if len(i)]
        return [(torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs]))]

    def fingerprint(self) -> str:
        """Digest what decides the loss: θ, buffers, examples, policy, precision."""
        loss = self.loss_fn if isinstance(self.loss_fn, nn.Module) else type(self.loss_fn)
        digest = hashlib.sha256(repr((self.batchnorm, self._autocast, loss)).encode())
        for tensor in (self.theta, *self._buffers.values()):
            digest.update(
                tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
            )
        inputs_and_targets = [t for batch in self.batches for t in batch] + self._recalibration
        for tensor in inputs_and_targets:  # sums tell sets of examples apart at little cost
            digest.update(repr((tuple(tensor.shape), tensor.double().sum().item())).encode())
        return digest.hexdigest()

    def _forward(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], inputs: Tensor
    ) -> Tensor:
        if self._autocast is None:
            outputs = functional_call(self.model, (parameters, buffers), (inputs,))
        else:
            with torch.autocast(self.device.type, dtype=self._autocast):
                outputs = functional_call(self.model, (parameters, buffers), (inputs,))
            outputs = outputs.to(self.space.dtype)
        assert isinstance(outputs, Tensor)
        return outputs

    def _evaluation_modes(self) -> AbstractContextManager[None]:
        return modes(self.model, batch_statistics=self.batchnorm.mode == "batch")

    def _own(self, buffers: dict[str, Tensor]) -> dict[str, Tensor]:
        """Copy buffers that a forward pass under ``batch`` would update in place."""
        if self.batchnorm.mode != "batch":
            return buffers
        return {name: buffer.clone() for name, buffer in buffers.items()}

    def _recalibration_inputs(self, recalibration: Iterable[Batch] | None) -> list[Tensor]:
        if self.batchnorm.mode != "recalibrate":
            return []
        batches = self.batches if recalibration is None else self.hold(recalibration)
        inputs = [batch[0] for batch in batches]
        wanted, total = self.batchnorm.num_examples, sum(map(len, inputs))
        if wanted is None or wanted >= total:
            return inputs
        # A random subset, not the first: files are often sorted by class.
        generator = torch.Generator().manual_seed(0)
        chosen = torch.randperm(total, generator=generator)[:wanted].sort().values
        subset = torch.cat(inputs)[chosen.to(self.device)]
        return list(subset.tensor_split(math.ceil(wanted / len(inputs[0]))))

    @torch.no_grad()
    def _check_outputs(self) -> int | None:
        """Return the number of classes, ``None`` unless outputs are scores of classes."""
        inputs, targets = self.batches[0]
        parameters = self.space.unflatten(self.theta)
        with self._evaluation_modes():
            outputs = self._forward(parameters, self._own(self._buffers), inputs)
        shapes = f"outputs {tuple(outputs.shape)}, targets {tuple(targets.shape)} {targets.dtype}"
        classes = None
        if outputs.dim() == 2 and targets.dim() == 1 and not targets.is_floating_point():
            classes = outputs.shape[1]
            largest = max(int(labels.max()) for _, labels in self.batches)
            if largest >= classes:
                raise ValueError(
                    f"The model has {classes} outputs, but there are labels up to {largest}."
                )
        try:
            loss = self.loss_fn(outputs, targets)
        except (RuntimeError, ValueError, IndexError) as error:
            raise ValueError(f"The loss does not fit: {shapes}: {error}") from error
        if loss.shape != () or getattr(self.loss_fn, "reduction", "mean") != "mean":
            raise ValueError(
                "loss_fn must return the mean over the batch, shape (): "
                f"got shape {tuple(loss.shape)} for {shapes}. Use reduction='mean'."
            )
        return classes
