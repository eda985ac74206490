"""Up to which curvature the steps of an optimizer are stable, and along what it steps."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mining.functional.parameters import ParameterSpace


@dataclass(frozen=True, eq=False)
class Stability:
    """On a quadratic loss with Hessian H the steps diverge if λmax of S (H + W) exceeds 1.

    S and W are diagonal. For plain gradient descent S is η / 2 and W the weight decay, so the
    condition is λmax η > 2.
    """

    scales: Tensor  # (D,) the diagonal of S; 0 where the optimizer does not step
    shifts: Tensor | None  # (D,) the diagonal of W, None: zero
    lr: float | None  # the learning rate, None if parameter groups have several


@dataclass(frozen=True)
class _Rule:
    """How an optimizer steps in one parameter, by its options and its state."""

    group: Mapping[str, Any]
    state: Mapping[str, Any]

    @property
    def lr(self) -> float:
        return float(self.group["lr"])

    @property
    def momentum(self) -> float:
        """β of v ← βv + g."""
        if "betas" in self.group:
            return float(self.group["betas"][0])
        return float(self.group.get("momentum", 0.0))

    @property
    def steps(self) -> float:
        return float(self.state.get("step", 0))


def stability_of(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor], space: ParameterSpace
) -> Stability | str:
    """Say up to which curvature the steps of an optimizer are stable.

    With momentum β the limit of heavy-ball steps is λη(1 - dampening) < 2(1 + β), that of
    Nesterov's λη(1 + 2β) < 2(1 + β). Adam divides by P = √v̂ + ε and averages gradients with
    1 - β₁; the limit for the eigenvalues of P⁻¹H is 2(1 + β₁) / ((1 - β₁)η), up to the bias
    correction of the first moment: 38/η for β₁ = 0.9. Cohen et al. (2022), Adaptive Gradient
    Methods at the Edge of Stability. P is taken to be constant. Decoupled weight decay is left out.

    Args:
        optimizer: ``SGD``, ``Adam``, ``AdamW`` or ``RMSprop`` of torch.
        parameters: The parameters of the model by name.
        space: Those that count, in their order.

    Returns:
        The limit, or the reason why there is none.
    """
    kind = type(optimizer).__name__
    if kind not in ("SGD", "Adam", "AdamW", "RMSprop"):
        return f"no limit is known for {kind}, only for SGD, Adam, AdamW and RMSprop"
    rules = _rules(optimizer)
    scales, shifts, rates = [], [], set()
    momenta = {rule.momentum for rule in rules.values()}
    if len(momenta) > 1:
        return f"parameter groups have different momenta: {sorted(momenta)}"
    for name in space.names:
        parameter = parameters[name]
        rule = rules.get(id(parameter))
        if rule is None:
            scales.append(torch.zeros_like(parameter).flatten())
            shifts.append(torch.zeros_like(parameter).flatten())
            continue
        if rule.group.get("maximize"):
            return "the optimizer maximizes"
        scale = _scale(kind, rule, parameter)
        if isinstance(scale, str):
            return scale
        coupled = 0.0 if kind == "AdamW" or rule.group.get("decoupled_weight_decay") else 1.0
        decay = coupled * float(rule.group.get("weight_decay", 0.0))
        scales.append(scale.flatten())
        shifts.append(torch.full_like(parameter, decay).flatten())
        rates.add(rule.lr)
    shift = torch.cat(shifts)
    lr = rates.pop() if len(rates) == 1 else None
    return Stability(torch.cat(scales), shift if bool(shift.any()) else None, lr)


def update_of(
    optimizer: torch.optim.Optimizer, parameters: Mapping[str, Tensor], space: ParameterSpace
) -> Tensor | None:
    """Give what the last step subtracted from θ, without decoupled weight decay.

    Args:
        optimizer: As for ``stability_of``.
        parameters: The parameters of the model by name, with the gradients of the last step if
            these are still there.
        space: Those that count, in their order.

    Returns:
        Shape ``(D,)``; ``None`` before the first step, for another optimizer, or if plain SGD's
        gradients were deleted.
    """
    kind, rules = type(optimizer).__name__, _rules(optimizer)
    if kind not in ("SGD", "Adam", "AdamW"):
        return None
    parts = []
    for name in space.names:
        parameter = parameters[name]
        rule = rules.get(id(parameter))
        if rule is None or (kind != "SGD" and not rule.state):  # never moved
            parts.append(torch.zeros_like(parameter).flatten())
            continue
        step = _step(kind, rule, parameter)
        if step is None:
            return None
        parts.append((rule.lr * step).flatten())
    update = torch.cat(parts).detach()
    return update if bool(update.any()) else None


def _rules(optimizer: torch.optim.Optimizer) -> dict[int, _Rule]:
    return {
        id(parameter): _Rule(group, optimizer.state.get(parameter, {}))
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


def _scale(kind: str, rule: _Rule, parameter: Tensor) -> Tensor | str:
    """Give the diagonal of S for a parameter, or the reason why there is none."""
    beta = rule.momentum
    step = rule.lr / (2 * (1 + beta))
    if kind == "SGD":
        rest = 1 - float(rule.group.get("dampening", 0.0)) if beta else 1.0
        factor = (1 + 2 * beta) if rule.group.get("nesterov") else rest
        return torch.full_like(parameter, step * factor).detach()
    if not rule.state:
        return "the optimizer has not taken a step yet"
    if kind == "RMSprop":
        if rule.group.get("centered"):
            return "no limit is known for RMSprop with centered=True"
        divisor: Tensor = rule.state["square_avg"].sqrt() + rule.group["eps"]
        return divisor.reciprocal().mul(step)
    first = (1 - beta) / (1 - beta**rule.steps)
    return _adam_divisor(rule).reciprocal().mul(step * first)


def _adam_divisor(rule: _Rule) -> Tensor:
    """Compute √v̂ + ε, with the running maximum under AMSGrad."""
    second = rule.state["max_exp_avg_sq" if rule.group.get("amsgrad") else "exp_avg_sq"]
    correction = 1 - rule.group["betas"][1] ** rule.steps
    divisor: Tensor = (second / correction).sqrt() + rule.group["eps"]
    return divisor


def _step(kind: str, rule: _Rule, parameter: Tensor) -> Tensor | None:
    """Give what the last step subtracted from a parameter, over the learning rate."""
    if kind != "SGD":
        mean = rule.state["exp_avg"] / (1 - rule.momentum**rule.steps)
        step: Tensor = mean / _adam_divisor(rule)
        return step
    buffer: Tensor | None = rule.state.get("momentum_buffer")
    if buffer is not None and not rule.group.get("nesterov"):
        return buffer
    if parameter.grad is None:
        return None
    decay = float(rule.group.get("weight_decay", 0.0))
    step = parameter.grad + decay * parameter.detach()
    if buffer is not None:
        step = step + rule.momentum * buffer
    # The decay was taken before the step s, where θ was longer by η s: s = g + w (θ + η s) + ...
    return step / (1 - rule.lr * decay)
