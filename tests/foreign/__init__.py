"""Cases for which nobody wrote a test: random networks, losses and loaders from a seed."""

import random
from dataclasses import dataclass

import torch
from torch import nn

from foreign.loaders import MadeLoader, random_loader
from foreign.losses import TASKS, Loss, random_task
from foreign.models import random_inputs, random_model
from foreign.wrapping import random_loss

DTYPES = {"float64": torch.float64, "float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Case:
    """A landscape that somebody might ask for."""

    seed: int
    model: nn.Module
    loss_fn: Loss
    data: MadeLoader
    batchnorm: str
    dtype: torch.dtype
    traits: frozenset[str]
    text: str  # of loss, loader and policy

    def __str__(self) -> str:
        return f"seed {self.seed}: {self.text}\ntraits: {sorted(self.traits)}\n{self.model}"


def build(seed: int) -> Case:
    """Make the case of a seed; two calls give equal cases that share nothing."""
    r = random.Random(seed)
    generator = torch.Generator().manual_seed(seed)
    task = random_task(r)
    inputs = random_inputs(r)
    dtype = DTYPES[r.choices(list(DTYPES), [75, 22, 3])[0]]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = random_model(r, inputs, TASKS[task].outputs, TASKS[task].link)
        model = made.model.to(dtype)
        _unsettle(r, model)
    loss = random_loss(r, task, model)
    if isinstance(loss.loss_fn, nn.Module):
        loss.loss_fn.to(dtype)
    data = random_loader(r, generator, inputs, TASKS[task].targets, dtype)
    batchnorm = r.choice(["recalibrate", "recalibrate", "frozen", "batch"])
    traits = made.traits | loss.traits | data.traits
    if any(not y.is_floating_point() and (y == -100).any() for _, y in data.pairs):
        traits |= {"ignored targets"}
        # Of losses that are none of torch's nobody can know that targets are ignored.
        if not loss.torchs_own:
            traits |= {"no mean"}
    text = f"{task}: {loss.text}; {data.text}; {batchnorm}, {dtype}"
    return Case(seed, model, loss.loss_fn, data, batchnorm, dtype, traits, text)


def _unsettle(r: random.Random, model: nn.Module) -> None:
    """Give norm layers statistics and factors that show mistakes, and set modes at random."""
    for module in model.modules():
        if getattr(module, "running_mean", None) is not None:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
        if "Norm" in type(module).__name__:
            for parameter in module.parameters(recurse=False):
                parameter.data += 0.3 * torch.randn_like(parameter)
    model.train(r.random() < 0.5)
    for module in model.modules():
        if r.random() < 0.1:
            module.training = not module.training
    for parameter in model.parameters():
        if parameter.requires_grad and r.random() < 0.1:
            parameter.grad = torch.ones_like(parameter)
