"""Random small networks."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, spectral_norm, weight_norm

from foreign import parts
from foreign.parts import Call


@dataclass(frozen=True)
class Inputs:
    """What a network takes."""

    kind: str  # "vectors", "maps", "images", "series" or "tokens"
    shape: tuple[int, ...]  # of one example
    vocabulary: int = 7  # of tokens


@dataclass(frozen=True)
class Made:
    """A random network and what is unusual about it."""

    model: nn.Module
    traits: frozenset[str]


class Net(nn.Module):
    """Layers one after the other, and perhaps parameters that they do not use."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def random_inputs(r: random.Random) -> Inputs:
    kind = r.choice(["vectors", "maps", "series", "tokens", "vectors", *(3 * ["images"])])
    shape = {
        "vectors": (r.choice([3, 5]),),
        "maps": (r.choice([1, 2]), r.choice([4, 5])),
        "images": (r.choice([1, 2, 3]), 4, r.choice([4, 5])),
        "series": (r.choice([3, 4]), 4),
        "tokens": (r.choice([3, 5]),),
    }[kind]
    return Inputs(kind, shape)


def random_model(r: random.Random, inputs: Inputs, outputs: tuple[int, ...], link: str) -> Made:
    """Make a network that maps ``inputs`` to ``(N, *outputs)``, through a final function."""
    traits: set[str] = set()
    layers: list[nn.Module] = []
    if r.random() < 0.06 and inputs.kind != "tokens":
        layers.append(_in_place_on_inputs(r))
        traits.add("in place on inputs")
    width = {
        "vectors": _vectors,
        "maps": _maps,
        "images": _maps,
        "series": _series,
        "tokens": _tokens,
    }[inputs.kind](r, inputs, layers, traits)
    if _starts_in_place(layers):
        traits.add("in place on inputs")
    if r.random() < 0.08:
        layers.append(parts.Counter())
    if r.random() < 0.05:
        layers.append(parts.FunctionalDropout(always=True))
        traits.add("stochastic")
    numbers = 1
    for size in outputs:
        numbers *= size
    layers.append(nn.Linear(width, numbers))
    layers += _shape(r, outputs)
    if link:
        layers.append(_LINKS[link]())
    model = Net(layers)
    if r.random() < 0.15:
        model.unused = nn.Linear(2, 1)
    if r.random() < 0.2:
        model.temperature = nn.Parameter(torch.tensor(0.7))  # for the loss, if it wants it
    _transform(r, model, traits)
    return Made(model, frozenset(traits))


_LINKS: dict[str, Callable[[], nn.Module]] = {
    "log_softmax": lambda: nn.LogSoftmax(1),
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
}


def _starts_in_place(layers: list[nn.Module]) -> bool:
    """Whether the first layer that is no view works in place."""
    views = (nn.Flatten, parts.Counter)
    rest = [layer for layer in layers if not isinstance(layer, views)]
    return bool(rest) and getattr(rest[0], "inplace", False)


def _in_place_on_inputs(r: random.Random) -> nn.Module:
    return r.choice(
        [
            lambda: Call("x.mul_(1.5)", lambda x: x.mul_(1.5)),
            lambda: Call("x -= 0.3", lambda x: x.sub_(0.3)),
            lambda: Call("x[:, 0] = 0", _zero_first),
            lambda: nn.LeakyReLU(0.5, inplace=True),
        ]
    )()


def _zero_first(x: Tensor) -> Tensor:
    x[:, 0] = x[:, 0] * 0.5 + 1
    return x


def _vectors(r: random.Random, inputs: Inputs, layers: list[nn.Module], traits: set[str]) -> int:
    return _flat(r, inputs.shape[0], layers)


def _flat(r: random.Random, width: int, layers: list[nn.Module]) -> int:
    for _ in range(r.choice([0, 1, 2, 3])):
        out = r.choice([3, 4, 6])
        layer: Callable[[], nn.Module] = r.choice(
            [
                *(4 * [lambda width=width, out=out: nn.Linear(width, out, bias=r.random() < 0.7)]),
                lambda width=width: parts.norm(r, width, ()),
                lambda width=width: parts.norm(r, width, ()),
                lambda: parts.activation(r),
                lambda: parts.activation(r),
                lambda: parts.dropout(r, 0),
                lambda width=width: parts.Residual(_block(r, width)),
                lambda width=width: parts.InPlaceResidual(_block(r, width)),
                lambda width=width: parts.Twice(_block(r, width)),
                lambda width=width: parts.Branches(width),
                parts.Scale,
                lambda: Call("x.flip(1)", lambda x: x.flip(1)),
                lambda: Call("view", lambda x: x.view(len(x), 1, -1).squeeze(1)),
            ]
        )
        layers.append(layer())
        if isinstance(layers[-1], nn.Linear):
            width = out
    return width


def _block(r: random.Random, width: int) -> nn.Module:
    block = [nn.Linear(width, width), parts.activation(r)]
    if r.random() < 0.5:
        block.insert(1, parts.norm(r, width, ()))
    return nn.Sequential(*block)


def _maps(r: random.Random, inputs: Inputs, layers: list[nn.Module], traits: set[str]) -> int:
    channels, *size = inputs.shape
    if r.random() < 0.2:  # a multilayer perceptron on images
        layers.append(nn.Flatten())
        return _flat(r, torch.Size(inputs.shape).numel(), layers)
    spatial, dimensions = tuple(size), len(size)
    for _ in range(r.choice([1, 2, 3])):
        out = r.choice([2, 4])
        layers.append(parts.convolution(r, channels, out, dimensions))
        channels = out
        if r.random() < 0.65:
            layers.append(parts.norm(r, channels, spatial))
        if r.random() < 0.7:
            layers.append(parts.activation(r))
        if r.random() < 0.2:
            layers.append(parts.dropout(r, dimensions))
        if r.random() < 0.25:
            block = [
                parts.convolution(r, channels, channels, dimensions),
                parts.norm(r, channels, spatial),
                parts.activation(r),
            ]
            kind = r.choice([parts.Residual, parts.InPlaceResidual, parts.Twice])
            layers.append(kind(nn.Sequential(*block)))
    pool: Callable[[], nn.Module] = r.choice(
        [
            lambda: nn.Flatten(),
            lambda: Call("mean", lambda x: x.flatten(2).mean(2)),
            lambda: Call("amax", lambda x: x.flatten(2).amax(2)),
            lambda: Call("reshape", lambda x: x.transpose(1, -1).reshape(len(x), -1)),
            lambda: Call("view", lambda x: x.contiguous().view(x.size(0), -1)),
            lambda: nn.Sequential(
                {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d}[dimensions](1), nn.Flatten()
            ),
            lambda: nn.Sequential({1: nn.MaxPool1d, 2: nn.MaxPool2d}[dimensions](2), nn.Flatten(1)),
        ]
    )
    layers.append(pool())
    with torch.no_grad():
        trial = nn.Sequential(*layers[-1:]).eval()(torch.zeros(2, channels, *spatial))
    return trial.shape[1]


def _series(r: random.Random, inputs: Inputs, layers: list[nn.Module], traits: set[str]) -> int:
    length, width = inputs.shape
    layers += [parts.series_layer(r, length, width) for _ in range(r.choice([1, 2]))]
    layers.append(
        r.choice(
            [
                lambda: Call("last", lambda x: x[:, -1]),
                lambda: Call("mean", lambda x: x.mean(1)),
                lambda: Call("logsumexp", lambda x: torch.logsumexp(x, 1)),
            ]
        )()
    )
    return width


def _tokens(r: random.Random, inputs: Inputs, layers: list[nn.Module], traits: set[str]) -> int:
    vocabulary, length = inputs.vocabulary, inputs.shape[0]
    if r.random() < 0.25:
        layers.append(nn.EmbeddingBag(vocabulary, 4, mode=r.choice(["mean", "sum", "max"])))
        return _flat(r, 4, layers)
    embedding = nn.Embedding(
        vocabulary,
        4,
        padding_idx=r.choice([None, 0]),
        max_norm=1.0 if r.random() < 0.08 else None,
        sparse=r.random() < 0.1,
    )
    if embedding.max_norm is not None:
        traits.add("changes parameters")
    layers.append(embedding)
    return _series(r, Inputs("series", (length, 4)), layers, traits)


def _shape(r: random.Random, outputs: tuple[int, ...]) -> list[nn.Module]:
    """Bring ``(N, numbers)`` to ``(N, *outputs)``; for one axis sometimes by a detour."""
    if outputs == ():
        return [Call("squeeze", lambda x: x.squeeze(1))]
    if len(outputs) == 1:
        if r.random() < 0.1:
            return [Call("transposed memory", lambda x: x.t().contiguous().t())]
        return []
    first, *rest = outputs
    return [
        Call(
            "permuted outputs",
            lambda x: x.view(len(x), *rest, first).permute(0, -1, *range(1, len(rest) + 1)),
        )
    ]


def _transform(r: random.Random, model: nn.Module, traits: set[str]) -> None:
    """Tie, freeze, normalize or parametrize some of the parameters."""
    layers = [
        m
        for m in model.modules()
        if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d)
        and not isinstance(m, nn.modules.linear.NonDynamicallyQuantizableLinear)
    ]
    choice = r.random()
    layer = r.choice(layers)
    if choice < 0.06:
        weight_norm(layer, dim=r.choice([0, None]))
        traits.add("weight norm")
    elif choice < 0.12:
        parametrizations.weight_norm(layer)
        traits.add("weight norm")
    elif choice < 0.16:
        spectral_norm(layer)
    elif choice < 0.2:
        parametrizations.spectral_norm(layer)
    elif choice < 0.24:
        parametrize.register_parametrization(layer, "weight", parts.Positive())
    elif choice < 0.27:
        square = [m for m in layers if m.weight.dim() == 2 and len(set(m.weight.shape)) == 1]
        if square and r.random() < 0.5:
            parametrize.register_parametrization(r.choice(square), "weight", parts.Skewed())
        elif square:
            parametrizations.orthogonal(r.choice(square))
    elif choice < 0.4:
        pairs = [
            (a, b)
            for a in layers
            for b in layers
            if a is not b and a.weight.shape == b.weight.shape and type(a) is type(b)
        ]
        if pairs:
            one, other = r.choice(pairs)
            other.weight = one.weight
    if r.random() < 0.2:
        for parameter in list(model.parameters())[:-1]:
            if r.random() < 0.3:
                parameter.requires_grad_(False)
