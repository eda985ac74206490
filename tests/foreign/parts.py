"""Pieces of networks as others write them: each module maps one layout to the same or another."""

import random
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d}
BATCH_NORMS = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d}
INSTANCE_NORMS = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d}


class Call(nn.Module):
    """A function without parameters, named in the printed model."""

    def __init__(self, name: str, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.name, self.function = name, function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)

    def extra_repr(self) -> str:
        return self.name


class Residual(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.5 * self.block(x.clone())  # the block may work in place


class InPlaceResidual(Residual):
    def forward(self, x: Tensor) -> Tensor:
        out = self.block(x.clone())
        out += x
        return out


class Twice(nn.Module):
    """One module run twice; the second time under another name."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block
        self.again = block

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.block(x))


class Branches(nn.Module):
    """Two branches, the second of which also uses the weight of the first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.linear(x)) + F.linear(x, self.linear.weight.T)


class FunctionalDropout(nn.Module):
    """Dropout as a function: ``always`` also in evaluation, a mistake that many make."""

    def __init__(self, *, always: bool) -> None:
        super().__init__()
        self.always = always

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.3, training=True if self.always else self.training)


class Counter(nn.Module):
    """Writes to a buffer and to a plain attribute in its forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0
        self.register_buffer("seen", torch.zeros(()))
        self.register_buffer("average", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen += len(x)
        self.average = 0.9 * self.average + 0.1 * x.detach().double().mean().to(self.average)
        return x


class Scale(nn.Module):
    """A parameter of no dimension, and another of which only a part is used."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.3))
        self.shifts = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shifts[1]


class Recurrent(nn.Module):
    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x)[0]


class Attention(nn.Module):
    def __init__(self, width: int, r: random.Random) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(
            width,
            r.choice([1, 2]),
            dropout=r.choice([0.0, 0.2]),
            bias=r.random() < 0.7,
            add_bias_kv=r.random() < 0.2,
            add_zero_attn=r.random() < 0.2,
            batch_first=True,
        )
        self.weights, self.masked = r.random() < 0.5, r.random() < 0.3

    def forward(self, x: Tensor) -> Tensor:
        mask = None
        if self.masked:
            mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        return x + self.attention(x, x, x, need_weights=self.weights, attn_mask=mask)[0]


class FunctionalAttention(nn.Module):
    def __init__(self, width: int, *, causal: bool) -> None:
        super().__init__()
        self.project, self.causal = nn.Linear(width, 3 * width), causal

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.project(x).unflatten(-1, (3, 1, -1)).permute(2, 0, 3, 1, 4)
        return x + F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)[:, 0]


class Positions(nn.Module):
    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.positions = nn.Parameter(0.3 * torch.randn(1, length, width))
        self.token = nn.Parameter(0.3 * torch.randn(width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.positions[:, : x.shape[1]]
        return torch.cat([self.token.expand(len(x), 1, -1), x], 1)[:, :-1]


class Skewed(nn.Module):
    """A parametrization: the antisymmetric part of a square matrix."""

    def forward(self, x: Tensor) -> Tensor:
        return x.triu(1) - x.triu(1).transpose(-1, -2)


class Positive(nn.Module):
    """A parametrization with a parameter of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return F.softplus(x * self.sharpness) - 0.6


def activation(r: random.Random) -> nn.Module:
    in_place = r.random() < 0.4
    return r.choice(
        [
            lambda: nn.ReLU(in_place),
            lambda: nn.LeakyReLU(0.1, in_place),
            lambda: nn.ELU(inplace=in_place),
            lambda: nn.SiLU(in_place),
            lambda: nn.RReLU(inplace=in_place),
            lambda: nn.Hardtanh(inplace=in_place),
            nn.GELU,
            nn.Tanh,
            nn.Softplus,
            nn.PReLU,
            nn.Softsign,
            lambda: Call("relu_", lambda x: torch.relu_(x.clone())),
            lambda: Call("x * sigmoid(x)", lambda x: x * torch.sigmoid(x)),
        ]
    )()


def dropout(r: random.Random, dimensions: int) -> nn.Module:
    kinds = [nn.Dropout, nn.AlphaDropout, nn.FeatureAlphaDropout]
    kinds += {0: [], 1: [nn.Dropout1d], 2: [nn.Dropout2d]}[dimensions]
    if r.random() < 0.3:
        return FunctionalDropout(always=False)
    return r.choice(kinds)(0.3)


def batch_norm(r: random.Random, channels: int, dimensions: int) -> nn.Module:
    return BATCH_NORMS[dimensions](
        channels,
        eps=r.choice([1e-5, 1e-3]),
        momentum=r.choice([0.1, 0.3, None]),
        affine=r.random() < 0.75,
        track_running_stats=r.random() < 0.85,
    )


def norm(r: random.Random, channels: int, spatial: tuple[int, ...]) -> nn.Module:
    """Some normalization of ``(N, channels, *spatial)``."""
    kinds: list[Callable[[], nn.Module]] = [
        lambda: nn.GroupNorm(r.choice([1, channels]), channels, affine=r.random() < 0.7),
        lambda: nn.LayerNorm([channels, *spatial], elementwise_affine=r.random() < 0.7),
        lambda: nn.LayerNorm([*spatial][-1:] or channels, bias=r.random() < 0.5),
        lambda: nn.RMSNorm([channels, *spatial], elementwise_affine=r.random() < 0.7),
    ]
    kinds += 3 * [lambda: batch_norm(r, channels, len(spatial))]
    if spatial:
        kinds.append(lambda: nn.LocalResponseNorm(2))
        kinds += 2 * [
            lambda: INSTANCE_NORMS[len(spatial)](
                channels, affine=r.random() < 0.6, track_running_stats=r.random() < 0.6
            )
        ]
    return r.choice(kinds)()


def convolution(r: random.Random, channels: int, out: int, dimensions: int) -> nn.Module:
    """A convolution that keeps the size of its maps."""
    if r.random() < 0.2:
        return TRANSPOSED[dimensions](channels, out, 3, padding=1, bias=r.random() < 0.8)
    groups = channels if out % channels == 0 and r.random() < 0.2 else 1
    if r.random() < 0.2:
        return CONVOLUTIONS[dimensions](channels, out, 1, bias=r.random() < 0.7)
    return CONVOLUTIONS[dimensions](
        channels,
        out,
        3,
        padding=r.choice([1, "same"]),
        groups=groups,
        bias=r.random() < 0.7,
        padding_mode=r.choice(["zeros", "zeros", "circular", "replicate"]),
    )


def series_layer(r: random.Random, length: int, width: int) -> nn.Module:
    """A layer that maps ``(N, length, width)`` to the same shape."""
    kinds: list[Callable[[], nn.Module]] = [
        lambda: nn.Linear(width, width),
        lambda: Attention(width, r),
        lambda: FunctionalAttention(width, causal=r.random() < 0.5),
        lambda: nn.TransformerEncoderLayer(
            width,
            2,
            dim_feedforward=5,
            dropout=0.1,
            activation=r.choice(["relu", "gelu"]),
            batch_first=True,
            norm_first=r.random() < 0.5,
        ),
        lambda: Recurrent(
            r.choice([nn.RNN, nn.GRU, nn.LSTM])(
                width, width, num_layers=r.choice([1, 2]), dropout=0.1, batch_first=True
            )
        ),
        lambda: Recurrent(nn.LSTM(width, width // 2, bidirectional=True, batch_first=True)),
        lambda: Recurrent(nn.LSTM(width, width, proj_size=width - 1, batch_first=True)),
        lambda: Positions(length, width),
        lambda: Branches(width),
        lambda: nn.Sequential(
            Call("transpose", lambda x: x.transpose(1, 2)),
            batch_norm(r, width, 1),
            Call("transpose", lambda x: x.transpose(1, 2)),
        ),
        lambda: nn.LayerNorm(width),
        lambda: activation(r),
        Scale,
    ]
    layer = r.choice(kinds)()
    if isinstance(layer, Recurrent) and getattr(layer.cell, "proj_size", 0):
        return nn.Sequential(layer, nn.Linear(width - 1, width))
    return layer
