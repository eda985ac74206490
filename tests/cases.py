"""Models, losses and landscapes that the tests share."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mining import Direction, Landscape


class Quadratic(nn.Module):
    """Outputs ½ θᵀAθ + bᵀθ for every example, so that the loss is a known quadratic of θ."""

    def __init__(self, matrix: Tensor, linear: Tensor, theta: Tensor) -> None:
        super().__init__()
        self.theta = nn.Parameter(theta.clone())
        self.register_buffer("matrix", matrix)
        self.register_buffer("linear", linear)

    def forward(self, inputs: Tensor) -> Tensor:
        value = 0.5 * self.theta @ self.matrix @ self.theta + self.linear @ self.theta
        return value.expand(len(inputs))


def mean_output(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.mean()


def quadratic_landscape(size: int = 5, seed: int = 0) -> Landscape:
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(size, size, generator=generator, dtype=torch.float64)
    linear = torch.randn(size, generator=generator, dtype=torch.float64)
    theta = torch.randn(size, generator=generator, dtype=torch.float64)
    loader = [(torch.zeros(2, 1), torch.zeros(2))]
    return Landscape(Quadratic(matrix + matrix.T, linear, theta), mean_output, loader)


class BatchNormNet(nn.Module):
    """Convolution, batch norm, dropout, linear: what goes wrong away from θ."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.bn = nn.BatchNorm2d(4, momentum=0.2)
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(4 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.dropout(torch.relu(self.bn(self.conv(x)))).flatten(1))


class TiedNet(nn.Module):
    """Two linear layers that share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.second(torch.tanh(self.first(x.flatten(1)[:, ::8])))))


class SharedNet(nn.Module):
    """One module under two names, and another several times in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(64, 8)
        layer = nn.Linear(8, 8)
        self.layers = nn.ModuleList([layer, layer, layer])
        self.norm = nn.BatchNorm1d(8, momentum=0.3)
        self.norm_again = self.norm
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x.flatten(1)))
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return self.head(self.norm_again(x))


class CountingNet(nn.Module):
    """Writes to a buffer whenever it runs, and takes the argument of batch norm by name."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 3)
        self.norm = nn.BatchNorm1d(3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.norm(input=self.linear(x.flatten(1))) * (1 + 0.01 * self.calls)


class RememberingNet(nn.Module):
    """Keeps what it computes: a normalized weight, an activation, a buffer that was none."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.utils.parametrizations.weight_norm(nn.Linear(64, 8))
        self.head = nn.utils.weight_norm(nn.Linear(8, 3))  # whose weight is an attribute
        self.last_features: Tensor | None = None
        self.register_buffer("centre", None)

    def forward(self, x: Tensor) -> Tensor:
        self.last_features = torch.tanh(self.first(x.flatten(1)))
        if self.centre is None:
            self.centre = self.last_features.mean()
        return self.head(self.last_features)


class PartlyUsedNet(nn.Module):
    """A frozen layer, and one that the output does not depend on."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Linear(64, 8).requires_grad_(False)
        self.used = nn.Linear(8, 3)
        self.unused = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(torch.tanh(self.frozen(x.flatten(1))))


class AttentionNet(nn.Module):
    """One block of attention over the rows of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        rows = x.flatten(0, 1)
        mixed, _ = self.attention(rows, rows, rows, need_weights=False)
        return self.head(self.norm(rows + mixed).mean(1))


def mlp() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3))


def mlp_in_place() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 8), nn.ReLU(inplace=True), nn.BatchNorm1d(8), nn.Linear(8, 3)
    )


MODELS: dict[str, Callable[[], nn.Module]] = {
    "mlp": mlp,
    "in_place": mlp_in_place,
    "batchnorm": BatchNormNet,
    "tied": TiedNet,
    "partly_used": PartlyUsedNet,
    "shared": SharedNet,
    "counting": CountingNet,
    "attention": AttentionNet,
    "remembering": RememberingNet,
}


def build(name: str, dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = MODELS[name]().to(dtype)
        for module in model.modules():  # statistics of no data at all would hide mistakes
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.running_mean.normal_()
                module.running_var.uniform_(0.5, 2)
    return model


def examples(num: int = 70, dtype: torch.dtype = torch.float64, seed: int = 1) -> tuple:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(num, 1, 8, 8, generator=generator, dtype=dtype)
    return inputs, torch.randint(3, (num,), generator=generator)


def loader(num: int = 70, batch_size: int = 32, dtype: torch.dtype = torch.float64) -> list:
    """Batches with a ragged last one: 32, 32 and 6 of 70."""
    inputs, targets = examples(num, dtype)
    return list(zip(inputs.split(batch_size), targets.split(batch_size), strict=True))


def landscape(
    name: str = "mlp", batchnorm: str = "recalibrate", num_examples: int = 70, **options: Any
) -> Landscape:
    batches = loader(num_examples)
    return Landscape(build(name), nn.CrossEntropyLoss(), batches, batchnorm=batchnorm, **options)


def direction(of: Landscape, seed: int = 0) -> Direction:
    generator = torch.Generator().manual_seed(seed)
    vector = torch.randn(of.space.size, generator=generator, dtype=torch.float64)
    return Direction(vector.to(of.theta), "test")


def vectors(size: int, num: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(size, num, generator=generator, dtype=torch.float64)


def snapshot(model: nn.Module) -> dict[str, Any]:
    """Everything about a model that must be as it was."""
    return {
        "state": {k: v.clone() for k, v in model.state_dict().items()},
        "modes": [m.training for m in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()],
        "gradients": [p.grad for p in model.parameters()],
        "momenta": [getattr(m, "momentum", None) for m in model.modules()],
        "identities": [id(p) for p in model.parameters()],
        "attributes": [[(k, id(v)) for k, v in vars(m).items()] for m in model.modules()],
        "hooks": [len(m._forward_pre_hooks) for m in model.modules()],
    }


def assert_unchanged(model: nn.Module, before: dict[str, Any]) -> None:
    after = snapshot(model)
    state, old = after.pop("state"), before.pop("state")
    assert state.keys() == old.keys()
    assert all(torch.equal(state[k], old[k]) for k in state)
    assert after == before
    before["state"] = old
