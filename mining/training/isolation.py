"""Isolation of an optimization from code that only observes it."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


@contextmanager
def isolated(
    modules: Sequence[nn.Module],
    variables: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    generators: Sequence[torch.Generator],
) -> Iterator[Callable[[], None]]:
    """Undo what is done to models, variables, an optimizer and random numbers in the block.

    Restored are parameters, buffers, modes, gradients and ``requires_grad``, the state and the
    options of the optimizer, the given generators and the global ones of torch, NumPy and Python.

    Args:
        modules: The models.
        variables: The tensors that the optimizer changes.
        optimizer: The optimizer.
        generators: Generators of the optimization.

    Yields:
        A function that restores everything at once; leaving the block, also by an exception, does
        so too.
    """
    tensors = _Tensors(modules, variables)
    undo = [
        tensors.restore,
        *(_undo_module(module) for root in modules for module in root.modules()),
        _undo_optimizer(optimizer),
        *(_undo_generator(generator) for generator in generators),
        _undo_global_generators(),
    ]
    enabled = torch.is_grad_enabled()

    def restore() -> None:
        torch.set_grad_enabled(enabled)
        for function in reversed(undo):  # the tensors last, once modules hold their own again
            function()

    try:
        yield restore
    finally:
        restore()


class _Tensors:
    """Copies of the parameters and buffers of models, and of variables."""

    def __init__(self, modules: Sequence[nn.Module], variables: Sequence[Tensor]) -> None:
        found = [t for m in modules for t in (*m.parameters(), *m.buffers())] + list(variables)
        self._tensors = list({id(tensor): tensor for tensor in found}.values())
        self._values = [tensor.detach().clone() for tensor in self._tensors]
        self._required = [tensor.requires_grad for tensor in self._tensors]
        self._gradients = [tensor.grad for tensor in self._tensors]
        self._gradient_values = [None if g is None else g.clone() for g in self._gradients]

    @torch.no_grad()
    def restore(self) -> None:
        for tensor, value, required, gradient, slope in zip(
            self._tensors,
            self._values,
            self._required,
            self._gradients,
            self._gradient_values,
            strict=True,
        ):
            tensor.copy_(value)
            if tensor.requires_grad != required:
                tensor.requires_grad_(required)
            if tensor.is_leaf:
                tensor.grad = gradient
            if gradient is not None and slope is not None:
                gradient.copy_(slope)


def _undo_module(module: nn.Module) -> Callable[[], None]:
    parameters, buffers = dict(module._parameters), dict(module._buffers)
    training = module.training

    def undo() -> None:
        module._parameters.clear()  # in place: others may hold the dictionaries
        module._parameters.update(parameters)
        module._buffers.clear()
        module._buffers.update(buffers)
        module.training = training

    return undo


def _undo_optimizer(optimizer: torch.optim.Optimizer) -> Callable[[], None]:
    state = {
        variable: {name: (value, _copy(value)) for name, value in entries.items()}
        for variable, entries in optimizer.state.items()
    }
    groups = [{**group, "params": list(group["params"])} for group in optimizer.param_groups]

    @torch.no_grad()
    def undo() -> None:
        optimizer.param_groups[:] = [{**g, "params": list(g["params"])} for g in groups]
        optimizer.state.clear()
        for variable, entries in state.items():
            for value, copy in entries.values():
                if isinstance(value, Tensor):
                    value.copy_(copy)
            optimizer.state[variable] = {name: value for name, (value, _) in entries.items()}

    return undo


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else value


def _undo_generator(generator: torch.Generator) -> Callable[[], None]:
    state = generator.get_state()

    def undo() -> None:
        generator.set_state(state)

    return undo


def _undo_global_generators() -> Callable[[], None]:
    own, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002
    state = torch.get_rng_state()
    initialized = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    cuda = torch.cuda.get_rng_state_all() if initialized else []

    def undo() -> None:
        random.setstate(own)
        np.random.set_state(numpy_state)  # noqa: NPY002
        torch.set_rng_state(state)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)

    return undo
