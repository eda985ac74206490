"""How time and memory grow with points, examples, parameters and vectors."""

import resource
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from benchmarks.timing import alternate
from matplotlib.figure import Figure
from published import images, resnet20
from torch import nn

from mining import Evaluator, Gaussian, Landscape
from mining.models import CifarResNet
from mining.plotting import save_figure

Row = dict[str, Any]


def growth(num_images: int, repeats: int, *, large: bool) -> list[Row]:
    """Seconds and peak memory of curves and products of ResNet-20, frozen batch norm."""
    few, many = (5, 11, 21, 41, 81) if large else (5, 11, 21), num_images
    fixed = _landscape(resnet20(), many)
    generator = torch.Generator().manual_seed(0)
    block = torch.randn(fixed.space.size, 16, generator=generator)
    operator = fixed.hessian()
    widths = (8, 16, 32, 64) if large else (8, 16, 32)
    networks = [
        _landscape(CifarResNet((3, 32, 32), 10, depth=20, width=width), many) for width in widths
    ]
    sizes = [many * 2**power for power in range(4 if large else 3)]
    sets = [_landscape(resnet20(), size) for size in sizes]
    return [
        *_measure("points", few, lambda n: _curve(fixed, n), repeats),
        *_measure("examples", sizes, lambda n: _curve(sets[sizes.index(n)], 5), repeats),
        *_measure(
            "parameters",
            [network.space.size for network in networks],
            lambda n: _curve(next(k for k in networks if k.space.size == n), 5),
            repeats,
        ),
        *_measure("vectors", (1, 2, 4, 8, 16), lambda n: operator @ block[:, :n], repeats),
    ]


def draw_growth(rows: Sequence[Row], path: Path) -> None:
    """Draw seconds over each quantity, with a straight line through the first and last point."""
    picture = Figure(figsize=(11, 3), layout="constrained")
    quantities = list(dict.fromkeys(row["grows with"] for row in rows))
    for position, quantity in enumerate(quantities):
        axes = picture.add_subplot(1, len(quantities), position + 1)
        chosen = [row for row in rows if row["grows with"] == quantity]
        unit = 1e6 if quantity == "parameters" else 1
        numbers, seconds = [r["number"] / unit for r in chosen], [r["seconds"] for r in chosen]
        axes.plot(numbers, seconds, "o-", label="seconds")
        axes.plot(
            [numbers[0], numbers[-1]], [seconds[0], seconds[-1]], ":", color="black", label="linear"
        )
        axes.set_xlabel(_LABELS[quantity], fontsize=8)
        axes.set_ylabel("seconds", fontsize=8)
        axes.set_ylim(0)
        axes.set_xlim(0)
        axes.tick_params(labelsize=7)
        memory = axes.twinx()
        memory.plot(numbers, [r["peak GiB"] for r in chosen], "s--", color="tab:red", markersize=3)
        memory.set_ylim(0, 1.6 * max(r["peak GiB"] for r in rows))
        memory.set_ylabel("peak memory so far (GiB, red)", fontsize=8, color="tab:red")
        memory.tick_params(labelsize=7)
        if position == 0:
            axes.legend(fontsize=7, loc="upper left")
    picture.suptitle("ResNet-20: time grows linearly, memory does not grow with points", fontsize=9)
    save_figure(picture, path)


_LABELS = {
    "points": "points of a curve",
    "examples": "examples (5-point curve)",
    "parameters": "million parameters (5-point curve)",
    "vectors": "vectors of a block of Hessian products",
}


def _measure(
    name: str, numbers: Iterable[int], workload: Callable[[int], Any], repeats: int
) -> list[Row]:
    rows = []
    for number in numbers:  # ascending: the peak is that of all before, too
        seconds = alternate({name: lambda number=number: workload(number)}, repeats)[name]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        rows.append({"grows with": name, "number": number, "seconds": seconds, "peak GiB": peak})
    return rows


def _curve(landscape: Landscape, num: int) -> None:
    generator = torch.Generator().manual_seed(0)
    (direction,) = Gaussian().directions(landscape, 1, generator=generator)
    Evaluator(landscape, progress=False).curve(direction, torch.linspace(-0.1, 0.1, num))


def _landscape(model: nn.Module, num: int) -> Landscape:
    inputs, targets = images(num)
    return Landscape(model, nn.CrossEntropyLoss(), [(inputs, targets)], batchnorm="frozen")
