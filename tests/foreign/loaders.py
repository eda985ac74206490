"""Random loaders: ragged, sorted, in odd layouts and types."""

import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from foreign.models import Inputs

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class MadeLoader:
    """Random examples, in the batches in which they come."""

    text: str
    loader: Iterable[Pair]
    pairs: list[Pair]  # what the loader yields
    traits: frozenset[str]


class OnlyOnce:
    """Yields its batches once, as a generator does."""

    def __init__(self, pairs: list[Pair]) -> None:
        self._left = iter(pairs)

    def __iter__(self) -> Iterator[Pair]:
        return self._left


def random_loader(
    r: random.Random,
    generator: torch.Generator,
    inputs: Inputs,
    targets: Callable[[random.Random, torch.Generator, int], Tensor],
    dtype: torch.dtype,
) -> MadeLoader:
    num = r.choice([1, 2, 3, 7, 12, 16, 17, 23, 30])
    if r.random() < 0.03:
        num = 700  # more than a tolerance looks at
    x = _draw(generator, inputs, num).to(dtype if inputs.kind != "tokens" else torch.long)
    y = targets(r, generator, num)
    if y.is_floating_point():
        y = y.to(dtype)
    traits: set[str] = set()
    text = [f"{num} examples"]
    if r.random() < 0.2:
        order = y.reshape(num, -1).double().sum(1).argsort()
        x, y = x[order], y[order]
        text.append("sorted by target")
    x, layout = _lay_out(r, x)
    text.append(layout)
    size = r.choice([1, 2, 3, 4, 5, 8, num, num])
    if num == 700:
        size = 256
    if r.random() < 0.15:
        pairs = [(x[i], y[i]) for i in _uneven(r, num)]
        text.append(f"batches of {[len(pair[0]) for pair in pairs]}")
    else:
        pairs = list(zip(x.split(size), y.split(size), strict=True))
        text.append(f"batches of {size}")
    if r.random() < 0.08:
        pairs, odd = _other_types(r, pairs)
        text.append(odd)
        traits.add("types")
    form = r.choice(["list", "list", "DataLoader", "generator", "lists"])
    loader: Iterable[Pair] = pairs
    if form == "DataLoader" and len({len(pair[0]) for pair in pairs[:-1]} | {size}) == 1:
        whole = [torch.cat(parts) for parts in zip(*pairs, strict=True)]
        # With a generator of its own: else every pass draws from the global one.
        own = torch.Generator().manual_seed(0)
        loader = DataLoader(TensorDataset(*whole), batch_size=size, generator=own)
        text.append("DataLoader")
    elif form == "generator":
        loader = OnlyOnce(pairs)
        text.append("read once")
    elif form == "lists":
        loader = [list(pair) for pair in pairs]
    return MadeLoader(", ".join(text), loader, pairs, frozenset(traits))


def _draw(generator: torch.Generator, inputs: Inputs, num: int) -> Tensor:
    shape = (num, *inputs.shape)
    if inputs.kind == "tokens":
        return torch.randint(inputs.vocabulary, shape, generator=generator)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _lay_out(r: random.Random, x: Tensor) -> tuple[Tensor, str]:
    """The same numbers, otherwise in memory."""
    choice = r.random()
    if choice < 0.12 and x.dim() > 2:
        return x.movedim(1, -1).contiguous().movedim(-1, 1), "channels last in memory"
    if choice < 0.2:
        return x.transpose(0, 1).contiguous().transpose(0, 1), "examples last in memory"
    if choice < 0.26:
        return torch.stack([x, x + 1], 1)[:, 0], "every second row of a larger tensor"
    if choice < 0.3:
        return x[:1].expand_as(x), "one example expanded"
    if choice < 0.33:
        return x.flip(0), "flipped"
    if choice < 0.37 and x.is_floating_point():
        return x.clone().requires_grad_(), "inputs that require gradients"
    return x, "contiguous"


def _uneven(r: random.Random, num: int) -> list[slice]:
    cuts = sorted({0, num, *(r.randrange(num + 1) for _ in range(3))})
    return [slice(a, b) for a, b in pairwise(cuts)]


def _other_types(r: random.Random, pairs: list[Pair]) -> tuple[list[Pair], str]:
    kind = r.choice(["double", "float", "bfloat16", "int", "targets int32", "targets uint8"])
    if kind.startswith("targets"):
        dtype = torch.int32 if kind.endswith("32") else torch.uint8
        return [(x, y.to(dtype)) for x, y in pairs], kind
    dtype = {
        "double": torch.float64,
        "float": torch.float32,
        "bfloat16": torch.bfloat16,
        "int": torch.int64,
    }[kind]
    return [(x.to(dtype), y) for x, y in pairs], f"inputs {kind}"
