"""A model as a function of its parameters, buffers and inputs."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from mining import InputError
from mining.functional.batchnorm import (
    BatchNormPolicy,
    mixes_examples,
    modes,
    names_of_statistics,
    norm_layers,
)
from mining.functional.compiled import CompiledForward, FreeForward
from mining.functional.derivatives import check_recording
from mining.functional.execution_plan import ExecutionPlan
from mining.functional.loss import Batch, Loss
from mining.functional.metrics import Metrics
from mining.functional.model_call import ModelCall
from mining.functional.parameters import ParameterSpace
from mining.functional.planning import find_plan
from mining.functional.precision import products_in
from mining.functional.pytrees import is_divisible
from mining.functional.randomness import seeded
from mining.functional.right_gradients import RightGradients
from mining.functional.substitution import Forward, Substitution
from mining.functional.trial import Trial
from mining.ranks import ONE, Ranks, current

#: Bytes of parameters of the points that share the products of a first layer.
_POINTS_MEMORY = 2**28


class Network:
    """Runs a model with other parameters and buffers, and leaves it as it was.

    Parameters and buffers are those that the model has now.

    Args:
        model: Any module that maps a batch of inputs to outputs. It stays on its device.
        loss_fn: The loss, which may read the model.
        policy: Which statistics batch norm normalizes by.
        autocast: A lower precision for the forward pass, or ``None``.
        tf32: Whether a GPU may round the factors of products to ten bits.
        compile: Whether passes that are not differentiated are compiled; those of points that
            share a first layer are not.

    Raises:
        InputError: If the model has no trainable parameters, or is on a CPU and ``tf32`` is set.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: Loss,
        policy: BatchNormPolicy,
        autocast: torch.dtype | None,
        *,
        tf32: bool,
        compile: bool,
    ) -> None:
        self.model, self.loss_fn, self.policy = model, loss_fn, policy
        self.call = ModelCall(model, loss_fn.objective)
        self.autocast, self.tf32 = autocast, tf32
        self.space = ParameterSpace.of(model)
        parameters = {name: p.detach() for name, p in model.named_parameters()}
        self.theta = self.space.flatten({name: parameters[name] for name in self.space.names})
        if self.theta.is_meta:
            raise InputError(
                "The model is on the meta device, where parameters have no values: load it onto a "
                "device first (model.to_empty, then load_state_dict)."
            )
        if tf32 and self.theta.device.type != "cuda":
            raise InputError("tf32 is a precision of GPUs: the model is on a CPU.")
        self.frozen = {n: p.clone() for n, p in parameters.items() if n not in self.space.names}
        self.buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
        self.substitution = Substitution(model)
        self.plan = ExecutionPlan()
        #: Whether model or loss differentiate by inputs, so that passes need graphs.
        self.needs_graph = False
        #: Whether a forward pass writes to parameters.
        self.changes_parameters = False
        #: Whether a forward pass writes to buffers that are no statistics, so that its result may
        #: depend on the batches before.
        self.changes_buffers = False
        #: Whether torch's gradient of a function in it is wrong, and replaced.
        self.corrects_gradients = False
        #: Whether fewer examples than those of a batch were refused, or there are no fewer.
        self.insists_on_batches = False
        #: Whether model or loss draw random numbers; each batch then has its own, the same ones
        #: at every point.
        self.stochastic = False
        self.compiled = CompiledForward(self.rounding) if compile else None

    def with_batch_statistics(self) -> "Network":
        """Give the same network with every batch normalized by its own statistics."""
        other = copy(self)
        other.policy = BatchNormPolicy("batch")
        other.plan = ExecutionPlan(channels_last=self.plan.channels_last)
        other.compiled = None
        return other

    def unfused(self) -> "Network":
        """Give the same network run module by module, as the model is written."""
        other = copy(self)
        other.plan = ExecutionPlan(channels_last=self.plan.channels_last)
        other.compiled = None
        return other

    def with_stored_statistics(self) -> "Network":
        """Give the same network with the running statistics stored in the model."""
        other = copy(self)
        other.policy = BatchNormPolicy("frozen")
        return other

    def with_recalibration(self) -> "Network":
        """Give the same network with statistics estimated anew at every point."""
        other = copy(self)
        other.policy = BatchNormPolicy("recalibrate")
        return other

    def with_loss(self, loss_fn: Loss) -> "Network":
        """Give the same network with another loss."""
        other = copy(self)
        other.loss_fn, other.call = loss_fn, ModelCall(self.model, loss_fn.objective)
        return other

    def in_precision(self, autocast: torch.dtype) -> "Network":
        """Give the same network with forward passes in a lower precision."""
        other = copy(self)
        other.autocast = autocast
        return other

    @property
    def mixes_examples(self) -> bool:
        """Whether the output for one example depends on the others of its batch."""
        return mixes_examples(self.model, self.policy)

    @property
    def recalibrates(self) -> bool:
        """Whether statistics are estimated anew at every point."""
        return self.policy.mode == "recalibrate" and bool(norm_layers(self.model))

    @property
    def rounding(self) -> float:
        """How far equal outputs may differ, relative to the largest of them."""
        return self._rounding if self.autocast is None and not self.tf32 else 0.05

    def rounding_of(self, loss: Tensor) -> float:
        """How far equal losses of an objective may differ, some of which compute in float32."""
        return max(self.rounding, min(32 * torch.finfo(loss.dtype).eps, 0.05))

    @property
    def _rounding(self) -> float:
        return min(1e3 * torch.finfo(self.space.dtype).eps, 0.05)

    def noise(self, seed: int) -> AbstractContextManager[None]:
        """Give the context in which a stochastic model and its loss see a batch."""
        return seeded(seed, self.theta.device) if self.stochastic else nullcontext()

    @property
    def statistics_are_fixed(self) -> bool:
        """Whether ``statistics`` gives the same at every point."""
        return self.policy.mode == "frozen" or not norm_layers(self.model)

    @torch.no_grad()
    def find_plan(self, batches: Sequence[Batch]) -> ExecutionPlan:
        """Find the fastest execution plan that reproduces the unmodified model to rounding.

        It is tried in full precision, in which what is not rounding shows, at θ and at a point
        near it.

        Args:
            batches: Examples, as a loader gave them.
        """
        if self.mixes_examples:
            return ExecutionPlan().because("examples share batch statistics")
        if self.stochastic:
            return ExecutionPlan().because("random numbers belong to batches as they are")
        if self.call.objective is not None:
            return ExecutionPlan().because(
                "the loss is computed from batches as they are, without outputs to compare"
            )
        if not all(is_divisible((batch.inputs, batch.targets)) for batch in batches):
            return ExecutionPlan().because("the examples of a batch cannot be told apart")
        noise = torch.randn(self.space.size, generator=torch.Generator().manual_seed(0))
        change = noise.to(self.theta) * (0.05 * self.theta.norm() / noise.norm().to(self.theta))
        trial = Trial(
            self.model,
            self.call,
            self.substitution,
            self.tensors(self.theta, self.copy_buffers()),
            self.space.unflatten(change),
            batches,
            self.loss_fn,
        )
        with self.modes(), products_in(self.theta.device):
            return find_plan(trial, self._rounding)

    def copy_buffers(self) -> dict[str, Tensor]:
        """Copy the buffers: a forward pass may write to them."""
        return {name: buffer.clone() for name, buffer in self.buffers.items()}

    def tensors(self, theta: Tensor, buffers: dict[str, Tensor]) -> dict[str, Tensor]:
        """Name all parameters, those of ``theta`` and the frozen ones, and the buffers."""
        return {**self.space.unflatten(theta), **self.frozen, **buffers}

    @contextmanager
    def running(self, tensors: Mapping[str, Tensor]) -> Iterator[Forward]:
        """Give the model as a function, with other tensors, by the execution plan."""
        with (
            self.modes(),
            self.substitution(tensors),
            products_in(self.theta.device, tf32=self.tf32),
            self.right_gradients(),
        ):
            plain = self.plan.folding.fold(self.forward, tensors)
            if self.compiled is None:
                yield plain
            else:
                yield self.compiled.bind(self._as_function(), plain, tensors)

    def right_gradients(self) -> AbstractContextManager[object]:
        """Give the context in which forward passes that are differentiated take place."""
        return (
            RightGradients()
            if self.corrects_gradients and torch.is_grad_enabled()
            else nullcontext()
        )

    def _as_function(self) -> FreeForward:
        def run(tensors: Mapping[str, Tensor], inputs: Any) -> Tensor:
            with self.substitution(tensors):
                return self.plan.folding.fold(self.forward, tensors)(inputs)

        return run

    def forward(self, inputs: Any) -> Tensor:
        """Run the model, or the objective, with what is in the model now.

        Raises:
            InputError: If the one returns anything but a tensor, or the other no number.
        """
        with self.autocasting():
            outputs = self.call(inputs)
        return outputs if self.autocast is None else outputs.to(self.space.dtype)

    @contextmanager
    def trying(self) -> Iterator[Forward]:
        """Give the model at θ as it stands, with copies of all, and note which it writes to."""
        self.call.changes_inputs = True
        before = self.tensors(self.theta, {})
        copies = {name: tensor.clone() for name, tensor in before.items()}
        buffers = self.copy_buffers()
        tensors = {**copies, **buffers}
        changed: list[bool] = []

        def run(inputs: Any) -> Tensor:
            with self.autocasting():
                outputs, inputs_changed = self.call.run_on_copy(inputs)
            changed.append(inputs_changed)
            return outputs if self.autocast is None else outputs.to(self.space.dtype)

        with (
            self.modes(),
            self.substitution(tensors),
            products_in(self.theta.device),
            RightGradients() as noticed,
        ):
            yield run
        self.corrects_gradients = noticed.replaced
        self.call.changes_inputs = any(changed)
        self.changes_parameters = any(
            not torch.equal(tensors[name], value) for name, value in before.items()
        )
        others = self.buffers.keys() - names_of_statistics(self.model)
        self.changes_buffers = any(
            not torch.equal(buffers[name], self.buffers[name]) for name in others
        )

    def sharing(self) -> Ranks:
        """Return the ranks among which batches can be shared.

        One if what is computed for a batch depends on its number, or on the batches before.
        """
        return ONE if self.stochastic or self.changes_buffers else current()

    @contextmanager
    def at_theta(self) -> Iterator[Forward]:
        """Give the model as it stands, at its own parameters."""
        tensors = self.tensors(self.theta, self.copy_buffers())
        with self.modes(), self.substitution(tensors), products_in(self.theta.device):
            yield self.forward

    def autocasting(self) -> AbstractContextManager[None]:
        """Give the context in which forward passes take place."""
        return torch.autocast(
            self.theta.device.type, dtype=self.autocast, enabled=self.autocast is not None
        )

    def modes(self) -> AbstractContextManager[None]:
        """Put the model in the modes of the policy; see ``mining.functional.batchnorm.modes``."""
        return modes(self.model, batch_statistics=self.policy.mode == "batch")

    def points_together(self) -> int:
        """How many points ``evaluate_points`` gains by, as far as memory allows."""
        if self.plan.first_layer is None or not self.statistics_are_fixed:
            return 1 if self.theta.device.type == "cpu" else 16  # a GPU need not wait for its host
        first = (self.plan.first_layer.weight, self.plan.first_layer.bias)
        held = self.tensors(self.theta, self.buffers)
        rest = sum(tensor.nbytes for name, tensor in held.items() if name not in first)
        return max(1, min(64, _POINTS_MEMORY // max(rest, 1)))

    def measure(
        self,
        metrics: Metrics,
        theta: Tensor,
        batches: Sequence[Batch],
        statistics: dict[str, Tensor],
    ) -> None:
        """Add the outputs at ``theta`` for each batch to ``metrics``."""
        # A forward pass may write to buffers: under ``batch`` it updates running statistics.
        buffers = {name: buffer.clone() for name, buffer in statistics.items()}
        tensors = self.tensors(theta, buffers)
        if self.needs_graph:
            check_recording()
        with torch.set_grad_enabled(self.needs_graph), self.running(tensors) as forward:
            for number, batch in enumerate(batches):
                if batch.weight > 0:
                    with self.noise(number):
                        outputs = forward(batch.inputs)
                        compiled = None if self.needs_graph else self.compiled
                        if compiled is not None and not compiled.checked:
                            plain = self.plan.folding.fold(self.forward, tensors)
                            compiled.check_loss(self.loss_fn, forward, plain, batch)
                        metrics.add(outputs, batch)
