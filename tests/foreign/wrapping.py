"""Losses around others: that read the model, draw numbers, work in place, have no derivative."""

import random
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from foreign.losses import MadeLoss, plain_loss


def random_loss(r: random.Random, task: str, model: nn.Module) -> MadeLoss:
    """Draw a loss for a task; it may read ``model``."""
    base = plain_loss(r, task)
    choice = r.random()
    if "shape" in base.traits or choice > 0.17:
        return base
    made = _reading(r, base, model) if choice < 0.12 else _odd(r, base)
    # Wrapped, class weights, ignored targets and sums are not seen.
    hidden = {"class weights", "ignored targets", "reduction"} & base.traits
    return replace(made, traits=made.traits | {"no mean"}) if hidden else made


def _reading(r: random.Random, base: MadeLoss, model: nn.Module) -> MadeLoss:
    """A loss that reads the model."""
    inner = base.loss_fn

    def decay(outputs: Tensor, targets: Tensor) -> Tensor:
        return inner(outputs, targets) + 0.05 * sum(p.pow(2).sum() for p in model.parameters())

    def first_weight(outputs: Tensor, targets: Tensor) -> Tensor:
        return inner(outputs, targets) + 0.1 * next(model.parameters()).abs().sum()

    def temperature(outputs: Tensor, targets: Tensor) -> Tensor:
        scale = getattr(model, "temperature", None)
        return inner(outputs, targets) * (1.0 if scale is None else 1 + scale**2)

    parameters = list(model.parameters())

    def kept(outputs: Tensor, targets: Tensor) -> Tensor:
        return inner(outputs, targets) + 0.05 * sum(p.pow(2).sum() for p in parameters)

    class Regularized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
            penalty = sum(p.pow(2).sum() for p in self.model.parameters())
            return inner(outputs, targets) + 0.05 * penalty

    name, loss_fn = r.choice(
        [
            ("weight decay", decay),
            ("L1 of the first parameter", first_weight),
            ("a temperature of the model", temperature),
            ("partial(weight decay)", partial(decay)),
            ("weight decay of a module", Regularized()),
            ("weight decay over parameters listed beforehand", kept),
        ]
    )
    traits = base.traits | {"reads the model"}
    if loss_fn is kept:
        traits |= {"keeps parameters"}
    if "reduction" in base.traits:
        traits |= {"shape" if "none" in base.text else "no mean"}
    return MadeLoss(f"{base.text} + {name}", loss_fn, traits)


def _odd(r: random.Random, base: MadeLoss) -> MadeLoss:
    """A loss that draws numbers, works in place or has no derivative."""
    inner = base.loss_fn

    def noisy(outputs: Tensor, targets: Tensor) -> Tensor:
        return inner(outputs + 0.1 * torch.randn_like(outputs), targets)

    def in_place(outputs: Tensor, targets: Tensor) -> Tensor:
        return inner(outputs.mul_(0.5), targets)

    def on_targets(outputs: Tensor, targets: Tensor) -> Tensor:
        targets.mul_(1)
        if targets.is_floating_point():
            targets.mul_(0.9)
        return inner(outputs, targets)

    def detached(outputs: Tensor, targets: Tensor) -> Tensor:
        return inner(outputs.detach(), targets)

    name, loss_fn, trait = r.choice(
        [
            ("of noisy outputs", noisy, "stochastic"),
            ("works in place on the outputs", in_place, "in place on outputs"),
            ("works in place on the targets", on_targets, "in place on targets"),
            ("of detached outputs", detached, "no derivative"),
        ]
    )
    return MadeLoss(f"{base.text}, {name}", loss_fn, base.traits | {trait})
