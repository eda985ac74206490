"""Curves and surfaces beside loss-landscapes, update_bn and plain loops."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import loss_landscapes
import torch
from benchmarks.timing import alternate, timed
from loss_landscapes.metrics import Loss
from published import images, resnet20
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torch.utils.flop_counter import FlopCounterMode

from mining import Direction, Evaluator, ExecutionPlan, Gaussian, Landscape
from mining.models import MLP

Row = dict[str, Any]
Pairs = list[tuple[Tensor, Tensor]]
#: Examples of a batch of the peers, and of those over which batch norm takes statistics.
_PEER_BATCH, _BATCH = 1000, 128


@dataclass(frozen=True)
class Line:
    """A network, examples, and points on a line through its parameters."""

    name: str
    model: nn.Module
    inputs: Tensor
    targets: Tensor
    alphas: Tensor

    def batches(self, size: int) -> Pairs:
        return list(zip(self.inputs.split(size), self.targets.split(size), strict=True))

    def landscape(self, batchnorm: str = "frozen", **options: Any) -> Landscape:
        # The examples come in one batch, as they do to loss-landscapes.
        size = len(self.inputs) if batchnorm == "frozen" else _BATCH
        return Landscape(
            self.model, nn.CrossEntropyLoss(), self.batches(size), batchnorm=batchnorm, **options
        )

    def direction(self, number: int = 0, normalization: str = "filter") -> Direction:
        generator = torch.Generator().manual_seed(number)
        source = Gaussian(normalization=normalization)
        return source.directions(self.landscape(plan=ExecutionPlan()), 1, generator=generator)[0]

    def moved(self, direction: Direction, alpha: float) -> nn.Module:
        """The model at θ + αε."""
        model, landscape = copy.deepcopy(self.model), self.landscape(plan=ExecutionPlan())
        tensors = landscape.space.unflatten(landscape.theta + alpha * direction.vector)
        model.load_state_dict(tensors, strict=False)
        return model


def resnet(num_images: int, num_points: int, split: str = "test") -> Line:
    alphas = torch.linspace(-1, 1, num_points)
    return Line("ResNet-20", resnet20(), *images(num_images, split), alphas)


def mlp(num_images: int, num_points: int) -> Line:
    """On images that are repeated where there are too few."""
    torch.manual_seed(0)
    inputs, targets = images(min(num_images, 10_000))
    repeats = -(-num_images // len(inputs))
    inputs, targets = inputs.repeat(repeats, 1, 1, 1), targets.repeat(repeats)
    alphas = torch.linspace(-1, 1, num_points)
    model = MLP((3, 32, 32), 10)
    return Line("MLP", model, inputs[:num_images], targets[:num_images], alphas)


def curves(line: Line, repeats: int) -> list[Row]:
    """A curve in fp32 and bf16 beside loss-landscapes, which walks the same line.

    It stops one step before the end, so that its points are others and its error is no measure.
    """
    direction, seconds_of = line.direction(), {}
    low, high = (line.moved(direction, float(line.alphas[end])) for end in (0, -1))
    metric = Loss(nn.CrossEntropyLoss(), line.inputs, line.targets)
    found: dict[str, Tensor] = {}

    def ours(**options: Any) -> Callable[[], None]:
        def run() -> None:
            # Everything that a user waits for: the way to run the model is looked for as well.
            evaluator = Evaluator(line.landscape(**options), progress=False)
            found[str(options)] = evaluator.curve(direction, line.alphas).loss

        return run

    def peer() -> None:
        losses = loss_landscapes.linear_interpolation(low, high, metric, len(line.alphas))
        found["peer"] = torch.from_numpy(losses)

    fast: Mapping[str, Any] = {}
    half = {"autocast": torch.bfloat16}
    seconds_of = alternate(
        {
            "loss-landscapes": peer,
            "fp32": ours(**fast),
            "bf16": ours(**half),
            "product fp32": lambda: _product(torch.float32),
            "product bf16": lambda: _product(torch.bfloat16),
        },
        repeats,
        warm_up=False,
    )
    exact = Evaluator(line.landscape(plan=ExecutionPlan()), progress=False)
    truth = exact.curve(direction, line.alphas).loss
    flops = _flops(line) * len(line.inputs) * len(line.alphas)
    rows = []
    for name, key in (("loss-landscapes", "peer"), ("fp32", str(fast)), ("bf16", str(half))):
        losses = found[key]
        rate = flops / seconds_of[name]
        peak = 2 * 3072**3 / seconds_of[f"product {'bf16' if name == 'bf16' else 'fp32'}"]
        rows.append(
            {
                f"{len(line.alphas)}-point curve, {line.name}, {len(line.inputs)} images": name,
                "seconds": seconds_of[name],
                "times as fast": seconds_of["loss-landscapes"] / seconds_of[name],
                "largest error": None
                if key == "peer"
                else float(((losses - truth).abs() / truth).max()),
                "GFLOP/s": rate / 1e9,
                "of a product's rate": rate / peak,
            }
        )
    return rows


def surfaces(line: Line, repeats: int) -> list[Row]:
    """A surface beside loss-landscapes on a plane of its own, of as many points."""
    x, y = line.direction(0), line.direction(1)
    metric = Loss(nn.CrossEntropyLoss(), line.inputs, line.targets)
    num = len(line.alphas)

    def ours() -> None:
        Evaluator(line.landscape(), progress=False).surface(x, y, line.alphas, line.alphas)

    def peer() -> None:
        # A copy: it leaves the model without gradients.
        loss_landscapes.random_plane(copy.deepcopy(line.model), metric, 1, num, "filter")

    seconds = alternate({"loss-landscapes": peer, "mining": ours}, repeats, warm_up=False)
    return _compare(f"{num} × {num} surface, {line.name}, {len(line.inputs)} images", seconds)


def recalibrated(line: Line, repeats: int) -> list[Row]:
    """A curve with statistics taken anew at every point beside update_bn and a plain loop."""
    direction = line.direction()
    models = {float(alpha): line.moved(direction, float(alpha)) for alpha in line.alphas}
    found: dict[str, Tensor] = {}

    def ours() -> None:
        evaluator = Evaluator(line.landscape(batchnorm="recalibrate"), progress=False)
        found["mining"] = evaluator.curve(direction, line.alphas).loss

    def plain(size: int) -> Callable[[], None]:
        def run() -> None:
            losses = []
            for model in models.values():
                update_bn(line.batches(size), model)
                losses.append(_loop(model.eval(), line.batches(size)))
            found[f"{size}"] = torch.tensor(losses, dtype=torch.float64)

        return run

    names = {size: f"update_bn and a loop, batches of {size}" for size in (_PEER_BATCH, _BATCH)}
    workloads = {name: plain(size) for size, name in names.items()}
    seconds = alternate({**workloads, "mining": ours}, repeats, warm_up=False)
    title = f"{len(line.alphas)}-point curve with UpBN, {line.name}, {len(line.inputs)} images"
    rows = _compare(title, seconds)
    for row, key in zip(rows, (str(_PEER_BATCH), str(_BATCH), "mining"), strict=True):
        # Statistics depend on what is in a batch: those of batches of 128 are the reference.
        reference = found[str(_BATCH)]
        row["differs by"] = float(((found[key] - reference).abs() / reference).max())
    return rows


def to_a_tolerance(line: Line, tolerance: float, normalization: str) -> list[Row]:
    """A curve to a relative standard error beside the same on all examples."""
    landscape = line.landscape()
    direction = line.direction(normalization=normalization)
    exact, seconds = timed(
        lambda: Evaluator(landscape, progress=False).curve(direction, line.alphas)
    )
    sampled, fewer = timed(
        lambda: Evaluator(landscape, tolerance=tolerance, progress=False).curve(
            direction, line.alphas
        )
    )
    below = exact.loss < exact.chance_loss
    estimated = below & (sampled.loss_error > 0)
    deviations = (sampled.loss - exact.loss) / sampled.loss_error
    title = f"{len(line.alphas)}-point curve, {normalization}, {len(line.inputs)} images"
    return [
        {title: "all images", "seconds": seconds, "times as fast": 1.0},
        {
            title: f"to {tolerance:.0%}",
            "seconds": fewer,
            "times as fast": seconds / fewer,
            "points below log C": int(below.sum()),
            "largest standard error": sampled.relative_error,
            "largest error": float(((sampled.loss - exact.loss) / exact.loss)[below].abs().max()),
            "rms of errors / standard errors": float(deviations[estimated].square().mean().sqrt()),
        },
    ]


def _loop(model: nn.Module, batches: Sequence[tuple[Tensor, Tensor]]) -> float:
    total = 0.0
    with torch.no_grad():
        for inputs, targets in batches:
            total += nn.functional.cross_entropy(model(inputs), targets).item() * len(inputs)
    return total / sum(len(inputs) for inputs, _ in batches)


def _compare(title: str, seconds: Mapping[str, float]) -> list[Row]:
    first = next(iter(seconds.values()))
    return [
        {title: name, "seconds": value, "times as fast": first / value}
        for name, value in seconds.items()
    ]


def _product(dtype: torch.dtype) -> None:
    """One product of large matrices, the rate that the machine can reach."""
    torch.mm(*_MATRICES[dtype])


_MATRICES = {
    dtype: tuple(torch.ones(3072, 3072, dtype=dtype) for _ in range(2))
    for dtype in (torch.float32, torch.bfloat16)
}


def _flops(line: Line) -> float:
    """Floating-point operations of one image's forward pass."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        line.model.eval()(line.inputs[:8])
    return counter.get_total_flops() / 8
