"""A penalty on the trace of the Hessian, for any training loop."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mining import InputError
from mining.curvature.convolution import FastSecondDerivatives
from mining.curvature.norm_layers import DifferentiableNorms
from mining.curvature.trace_penalty import (
    as_rows,
    hutchinson,
    per_class,
    sampled_labels,
    softmax_scales,
)
from mining.functional.derivatives import check_recording
from mining.functional.loss import Loss, LossFunction
from mining.functional.model_call import Objective, call_model
from mining.functional.parameters import ParameterSpace
from mining.functional.precision import products_in
from mining.functional.randomness import seeded
from mining.functional.right_gradients import RightGradients
from mining.functional.substitution import Substitution
from mining.training.derivative_check import check_derivatives

Method = Literal["hutchinson", "sampled_labels", "per_class"]
#: ``all``, ``middle``, names of layers, or a weight for each.
Layers = str | Sequence[str] | Mapping[str, float]


@dataclass(frozen=True)
class Estimate:
    """One estimate of the weighted trace, with what a check of its derivatives needs."""

    loss: Tensor  # () with its graph
    value: Tensor  # () with its graph


class HessianTrace:
    """The penalty γ Σ_l w_l tr(H_l) on the trace of the Hessian of a batch's loss, by layer.

    ``penalty = HessianTrace(model, loss_fn, gamma=1e-3, every=50)`` once, and in each step
    ``loss = loss + penalty(batch)``. The model is run once more on the batch, as it is: batch norm
    in training mode normalizes by the batch, through which the derivative goes, and dropout draws a
    mask of its own. Buffers (running statistics) and torch's global random numbers stay as the
    training has them. Sankar et al. (2021), Eq. 5.

    The methods, of which each is an unbiased estimate with an unbiased gradient of what it names:

    - ``hutchinson``: the trace of the Hessian of any loss, from vᵀHv.
    - ``sampled_labels``: the trace of the Gauss-Newton matrix G of cross-entropy, from one gradient
      with labels drawn from the model's own distribution. Against tr H its bias is -tr(H - G),
      which vanishes where the model fits its targets.
    - ``per_class``: the same trace from a gradient for each class; the sum over classes is exact.

    Args:
        model: The model that is trained. A compiled one is run without compilation here, because
            compiled code has no second derivative.
        loss_fn: Its loss, mapping outputs and targets to a mean or a sum, shape ``()``.
        objective: Instead of ``loss_fn``: maps model and batch to the loss.
        gamma: γ. With 0 the training is bit for bit the same as without.
        every: The penalty is computed at the first call and at each ``every``-th after it, and is
            zero at the others. It is not scaled up in return.
        layers: ``all``; ``middle``, the layers whose place (l - ½) / L is between ¼ and ¾; names or
            patterns as ``ParameterSpace.select`` takes them; or a mapping of such to weights w_l.
        method: One of the three.
        probes: Random vectors, or draws of labels or signs, that are averaged.
        seed: Of all random numbers; those of a call depend on the number of the call alone.
        check: Compare the derivatives of the first penalty with finite differences in float64, on
            up to eight examples. Functions whose second derivative is wrong are found so.

    Raises:
        InputError: If an option is out of its range, the model is wrapped for several processes, or
            (when called) there are no right derivatives.
    """

    def __init__(
        self,
        model: nn.Module,
        loss_fn: LossFunction | None = None,
        *,
        objective: Objective | None = None,
        gamma: float,
        every: int = 1,
        layers: Layers = "all",
        method: Method = "hutchinson",
        probes: int = 1,
        seed: int = 0,
        check: bool = True,
    ) -> None:
        if (loss_fn is None) == (objective is None):
            raise InputError("Give either loss_fn or objective.")
        if not 0 <= gamma < math.inf:
            raise InputError(f"gamma must be at least 0, got {gamma}.")
        for name, number in (("every", every), ("probes", probes)):
            if number < 1:
                raise InputError(f"{name} must be at least 1, got {number}.")
        if method not in get_args(Method):
            raise InputError(f"method must be one of {get_args(Method)}, got {method!r}.")
        if objective is not None and method != "hutchinson":
            raise InputError(
                f"method={method!r} needs outputs and targets, and a loss_fn of them. With "
                "objective take method='hutchinson'."
            )
        self.gamma, self.every, self.method, self.probes = gamma, every, method, probes
        self.model = _unwrapped(model)
        self._loss_fn = None if loss_fn is None else Loss(loss_fn)
        self._objective = objective
        space = ParameterSpace.of(self.model)
        if {torch.float16, torch.bfloat16} & set(space.dtypes):
            raise InputError(
                f"Second derivatives in {space.dtype} are noise: keep the parameters in float32, "
                "and let autocast lower the precision of the training."
            )
        self.weights = _weights(space, layers)  # by the name of each penalized parameter
        self._seed, self._unchecked = seed, check
        self._calls = 0

    def __repr__(self) -> str:
        """Describe the penalty in one line."""
        return (
            f"HessianTrace({type(self.model).__name__}, gamma={self.gamma}, every={self.every}, "
            f"{self.method}, {len(self.weights)} parameters)"
        )

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def __call__(self, batch: Any) -> Tensor:
        """Compute the penalty on a batch.

        Args:
            batch: ``(inputs, targets)``, on the device of the model; of an objective, anything.

        Returns:
            Shape ``()``, differentiable by all parameters of the model; zero between the calls at
            which it is computed. Not finite if the loss is not.

        Raises:
            InputError: If the loss has no second derivative, or a wrong one, or does not fit the
                method.
        """
        device = next(self.model.parameters()).device
        call, self._calls = self._calls, self._calls + 1
        if self.gamma == 0 or call % self.every:
            return torch.zeros((), device=device)
        check_recording()
        with torch.enable_grad():
            if self._unchecked:
                check_derivatives(self._estimate, self.model, self._loss_of_module, batch)
                self._unchecked = False
            tensors = {name: p for name, p in self.model.named_parameters() if name in self.weights}
            penalty = self.gamma * self._estimate(tensors, {}, batch, call).value
        return penalty if torch.is_grad_enabled() else penalty.detach()

    def state_dict(self) -> dict[str, int]:
        """Return what changes from call to call, for a training that is to go on later."""
        return {"calls": self._calls}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on after the calls that ``state_dict`` counted."""
        self._calls = state["calls"]

    @property
    def _loss_of_module(self) -> nn.Module | None:
        """The loss if it is a module, which may have tensors of its own."""
        found = None if self._loss_fn is None else self._loss_fn.function
        return found if isinstance(found, nn.Module) else None

    def _estimate(
        self,
        tensors: Mapping[str, Tensor],
        buffers: Mapping[str, Tensor],
        batch: Any,
        call: int,
        *,
        constant_labels: bool = False,
    ) -> Estimate:
        """Estimate the weighted trace.

        Args:
            tensors: The penalized parameters by name, as they are in the model now.
            buffers: Buffers by name that replace those of the model.
            batch: As given.
            call: Number of the call, which decides the random numbers.
            constant_labels: Whether sampled labels are taken as constant.
        """
        device = next(iter(tensors.values())).device
        numbers = np.random.SeedSequence((self._seed, call)).generate_state(2, np.uint64) >> 1
        generator = torch.Generator().manual_seed(int(numbers[0]))
        # A forward pass may write to buffers.
        copies = {
            name: buffers.get(name, buffer).clone() for name, buffer in self.model.named_buffers()
        }
        with (
            torch.compiler.set_stance("force_eager"),
            torch.autocast(device.type, enabled=False),
            seeded(int(numbers[1]), device),
            products_in(device),
            Substitution(self.model)(copies),
        ):
            with (
                sdpa_kernel(SDPBackend.MATH),
                RightGradients(),
                FastSecondDerivatives(),
                DifferentiableNorms(),
            ):
                outputs, loss = self._run(batch)
            _check_loss(loss)
            if not bool(loss.isfinite()):
                return Estimate(loss, loss * math.nan)
            names = [name for name in self.weights if name in tensors]
            chosen = [tensors[name] for name in names]
            weights = [self.weights[name] for name in names]
            try:
                value = self._trace(
                    outputs, loss, batch, chosen, weights, generator, constant_labels
                )
            except NotImplementedError as error:
                raise InputError(
                    f"torch has no second derivative of a function in the model or the loss "
                    f"({error}). Write it with other functions."
                ) from error
        return Estimate(loss, value)

    def _trace(
        self,
        outputs: Tensor | None,
        loss: Tensor,
        batch: Any,
        chosen: list[Tensor],
        weights: list[float],
        generator: torch.Generator,
        constant_labels: bool,
    ) -> Tensor:
        if self.method == "hutchinson":
            return hutchinson(loss, chosen, weights, generator, self.probes)
        if outputs is None or self._loss_fn is None:
            raise InputError(
                f"method={self.method!r} needs outputs and targets that are tensors. Take "
                "method='hutchinson'."
            )
        rows = as_rows(outputs)
        parameters = [p for p in self.model.parameters() if p.requires_grad]
        scales = softmax_scales(self._loss_fn, outputs.detach(), batch[1], parameters, generator)
        if self.method == "per_class":
            return per_class(rows, scales, chosen, weights, generator, self.probes)
        return sampled_labels(
            rows,
            scales,
            chosen,
            weights,
            generator,
            self.probes,
            corrected=not constant_labels,
        )

    def _run(self, batch: Any) -> tuple[Tensor | None, Tensor]:
        """Compute outputs, ``None`` unless they are a tensor, and the loss of a batch."""
        if self._loss_fn is None:
            assert self._objective is not None
            return None, self._objective(self.model, batch)
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise InputError(
                f"batch must be a pair (inputs, targets), got {type(batch).__name__}. Give "
                "objective=FUNCTION(model, batch) for other batches."
            )
        inputs, targets = batch
        outputs = call_model(self.model, inputs)
        if self._loss_fn.known and not isinstance(outputs, Tensor):
            outputs = getattr(outputs, "logits", outputs)
        if isinstance(outputs, Tensor) and isinstance(targets, Tensor):
            return outputs, self._loss_fn(outputs, targets)
        return None, self._loss_fn.function(outputs, targets)


def _unwrapped(model: nn.Module) -> nn.Module:
    """Give the module whose code runs eagerly.

    Raises:
        InputError: If it is wrapped for several processes.
    """
    kinds = {type(module).__name__ for module in model.modules()}
    for kind in ("DistributedDataParallel", "FullyShardedDataParallel"):
        if kind in kinds or any(name.startswith("FSDP") for name in kinds):
            raise InputError(
                f"model must not be wrapped by {kind}, which has no derivatives of gradients and "
                "would not average those of the penalty over the processes."
            )
    inner = getattr(model, "_orig_mod", model)  # of torch.compile
    assert isinstance(inner, nn.Module)
    return inner


def _check_loss(loss: object) -> None:
    if not isinstance(loss, Tensor) or loss.shape != ():
        shown = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
        raise InputError(f"The loss of a batch must be a tensor of shape (), got {shown}.")
    if not loss.requires_grad:
        raise InputError(
            "The loss does not depend on the parameters, or is detached from them, so that it has "
            "no derivative."
        )


def _weights(space: ParameterSpace, layers: Layers) -> dict[str, float]:
    """Give the weight of each penalized parameter."""
    if isinstance(layers, Mapping):
        found: dict[str, float] = {}
        for pattern, weight in layers.items():
            if not 0 <= weight < math.inf:
                raise InputError(f"layers must have weights of at least 0, got {dict(layers)}.")
            for name in space.select(pattern).names:
                if found.setdefault(name, weight) != weight:
                    raise InputError(f"layers gives {name} two weights: {dict(layers)}.")
        layers_given = [name for name, weight in found.items() if weight]
        if not layers_given:
            raise InputError("layers must give a positive weight to at least one layer, got none.")
        return {name: found[name] for name in space.names if found.get(name)}
    if layers == "all":
        return dict.fromkeys(space.names, 1.0)
    if layers == "middle":
        return dict.fromkeys(middle_of(space), 1.0)
    return dict.fromkeys(space.select(layers).names, 1.0)


def middle_of(space: ParameterSpace) -> list[str]:
    """Name the parameters of the middle half of the layers: ¼ ≤ (l - ½) / L ≤ ¾, l from 1."""
    groups = list(space.layers.values())
    middle = [
        group
        for number, group in enumerate(groups)
        if len(groups) <= 4 * number + 2 <= 3 * len(groups)
    ]
    return [name for group in middle for name in group]
