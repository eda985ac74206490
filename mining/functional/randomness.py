"""Random numbers that a model draws while it runs: the same at every point."""

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from mining import InputError


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Let torch's global generators start from ``seed``; their own states are back on leaving."""
    generators = _generators(device)
    states = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(seed)
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)


def draws_numbers(
    run: Callable[[], Sequence[Tensor]], device: torch.device, rounding: float
) -> bool:
    """Find out whether a computation draws random numbers from torch's global generators.

    Args:
        run: Gives tensors.
        device: Where it runs.
        rounding: How far two results may differ, relative to the largest number of a tensor.

    Raises:
        InputError: If it takes random numbers from elsewhere, so that they cannot be repeated.
    """
    others = _other_states()
    with seeded(0, device):
        before = [generator.get_state() for generator in _generators(device)]
        first = run()
        after = [generator.get_state() for generator in _generators(device)]
    with seeded(0, device):
        second = run()
    difference = max(_difference(a, b) for a, b in zip(first, second, strict=True))
    drawn = [name for name, state in _other_states().items() if state != others[name]]
    if difference > rounding or drawn:
        where = f" {' and '.join(drawn)} moved on." if drawn else ""
        raise InputError(
            "The model or the loss gives different results in every call, even with the same state "
            f"of torch's random generators: they differ by {difference:.2g} of their size.{where} "
            "Curves would show this noise. Turn it off, or draw from torch's global generators "
            "(torch.rand, for instance), whose numbers are the same at every point."
        )
    return any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


def _generators(device: torch.device) -> list[torch.Generator]:
    """List the global generators that a model on ``device`` may draw from."""
    generators = [torch.default_generator]
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generators.append(torch.cuda.default_generators[index])
    return generators


def _difference(found: Tensor, expected: Tensor) -> float:
    found, expected = (tensor.nan_to_num(0, 0, 0) for tensor in (found, expected))
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1e-30))


def _other_states() -> dict[str, str]:
    return {
        "Python's random": repr(random.getstate()),
        "NumPy's global generator": repr(np.random.get_state(legacy=False)),  # noqa: NPY002  (it is what models use)
    }
