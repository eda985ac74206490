"""Steps with a penalty on the trace of the Hessian beside steps without."""

from collections.abc import Callable
from typing import Any

import torch
from benchmarks.timing import alternate
from torch import nn
from torchvision.models import resnet18

from mining import HessianTrace
from mining.models import VGG, LeNet

#: Images of a step, and the frequencies of Sankar et al. (2021), Table 4.
_BATCH, _FREQUENCIES = 64, (25, 50, 100, 200)

#: The networks of that table and the shapes of their inputs. ResNet-18 has no pooling at its first
#: convolution of 3×3, as is usual for images of 32×32 pixels; the paper does not say.
_NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int, int]]] = {
    "LeNet": (lambda: LeNet((1, 28, 28), 10), (1, 28, 28)),
    "VGG-11": (lambda: VGG((3, 32, 32), 10, depth=11, batch_norm=False), (3, 32, 32)),
    "VGG-11-BN": (lambda: VGG((3, 32, 32), 10, depth=11), (3, 32, 32)),
    "ResNet-18": (lambda: _resnet18(), (3, 32, 32)),
}


def _resnet18() -> nn.Module:
    model = resnet18(num_classes=10)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    return model


def penalties(networks: list[str], repeats: int) -> list[dict[str, Any]]:
    """Seconds of a step, and of an epoch as a multiple of one without penalty.

    An epoch of N steps with a penalty in each f-th takes N s + N / f (p - s), where s and p are the
    times of a step without and with the penalty.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows = []
    for name in networks:
        build, shape = _NETWORKS[name]
        torch.manual_seed(0)
        model = build().to(device)
        pair = (
            torch.randn(_BATCH, *shape, device=device),
            torch.randint(10, (_BATCH,), device=device),
        )
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=1e-3)
        loss_fn = nn.CrossEntropyLoss()

        def step(
            penalty: HessianTrace | None,
            model: nn.Module = model,
            pair: tuple[torch.Tensor, torch.Tensor] = pair,
            optimizer: torch.optim.Optimizer = optimizer,
            loss_fn: nn.Module = loss_fn,
        ) -> None:
            for _ in range(3):
                loss = loss_fn(model(pair[0]), pair[1])
                loss = loss if penalty is None else loss + penalty(pair)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()

        kinds: dict[str, dict[str, Any]] = {
            "hutchinson": {},
            "hutchinson, middle layers": {"layers": "middle"},
            "sampled_labels": {"method": "sampled_labels"},
            "per_class": {"method": "per_class"},
        }
        workloads: dict[str, Callable[[], None]] = {"": lambda step=step: step(None)}
        for kind, options in kinds.items():
            penalty = HessianTrace(model, loss_fn, gamma=1e-6, **options)
            workloads[kind] = lambda step=step, penalty=penalty: step(penalty)
        seconds = alternate(workloads, repeats)
        plain = seconds.pop("")
        rows += [
            {
                "network": name,
                "penalty": kind,
                "step without, ms": 1e3 * plain / 3,
                "steps": value / plain,
                **{f"every {f}": 1 + (value / plain - 1) / f for f in _FREQUENCIES},
            }
            for kind, value in seconds.items()
        ]
    return rows
