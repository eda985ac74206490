"""Random losses: torch's own in all their settings, and what people write themselves."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

Loss = Callable[[Tensor, Tensor], Any]

CLASSES = 3


@dataclass(frozen=True)
class Task:
    """What a loss compares."""

    outputs: tuple[int, ...]  # of one example
    link: str  # the last function of the network
    targets: Callable[[random.Random, torch.Generator, int], Tensor]


@dataclass(frozen=True)
class MadeLoss:
    """A random loss and what is unusual about it."""

    text: str
    loss_fn: Loss
    traits: frozenset[str] = frozenset()

    @property
    def torchs_own(self) -> bool:
        """Whether it is a loss of torch, unchanged."""
        known = (F.cross_entropy, F.nll_loss)
        return self.loss_fn in known or type(self.loss_fn).__module__.startswith("torch.nn")


def _labels(*shape: int) -> Callable[[random.Random, torch.Generator, int], Tensor]:
    def draw(r: random.Random, g: torch.Generator, num: int) -> Tensor:
        labels = torch.randint(CLASSES, (num, *shape), generator=g)
        if r.random() < 0.15:
            labels[torch.rand(labels.shape, generator=g) < 0.3] = r.choice([-100, 2])
        return labels

    return draw


def _normal(*shape: int) -> Callable[[random.Random, torch.Generator, int], Tensor]:
    return lambda r, g, num: torch.randn(num, *shape, generator=g, dtype=torch.float64)


def _probabilities(r: random.Random, g: torch.Generator, num: int) -> Tensor:
    return torch.softmax(torch.randn(num, CLASSES, generator=g, dtype=torch.float64), 1)


def _coins(*shape: int) -> Callable[[random.Random, torch.Generator, int], Tensor]:
    return lambda r, g, num: torch.randint(2, (num, *shape), generator=g).double()


TASKS: dict[str, Task] = {
    "classes": Task((CLASSES,), "", _labels()),
    "dense classes": Task((CLASSES, 2), "", _labels(2)),
    "log-probabilities": Task((CLASSES,), "log_softmax", _labels()),
    "soft classes": Task((CLASSES,), "", _probabilities),
    "soft log-probabilities": Task((CLASSES,), "log_softmax", _probabilities),
    "coins": Task((2,), "", _coins(2)),
    "coin": Task((), "", _coins()),
    "probability": Task((2,), "sigmoid", _coins(2)),
    "numbers": Task((2,), "", _normal(2)),
    "number": Task((), "", _normal()),
    "one column": Task((1,), "", _normal(1)),
    "column against row": Task((1,), "", _normal()),  # broadcast to (N, N), a mistake
    "counts": Task((2,), "", lambda r, g, n: torch.randint(4, (n, 2), generator=g).double()),
    "signs": Task((2,), "", lambda r, g, n: 2 * _coins(2)(r, g, n) - 1),
}


def random_task(r: random.Random) -> str:
    return r.choice([*TASKS, "classes", "classes", "classes", "numbers"])


def plain_loss(r: random.Random, task: str) -> MadeLoss:
    """Draw a loss of outputs and targets alone."""
    return _own(r, task) if r.random() < 0.55 else _written(r, task)


def _made(text: str, loss_fn: Loss, *traits: str) -> MadeLoss:
    return MadeLoss(text, loss_fn, frozenset(traits))


def _own(r: random.Random, task: str) -> MadeLoss:
    """One of torch's modules or functions."""
    reduction = r.choice([*(8 * ["mean"]), "sum", "none"])
    odd: tuple[str, ...] = () if reduction == "mean" else ("reduction",)
    options: dict[str, Any] = {}
    if task in ("classes", "dense classes", "soft classes"):
        if r.random() < 0.3:
            options["weight"] = torch.tensor([0.5, 1.0, 2.5], dtype=torch.float64)
        if r.random() < 0.3:
            options["label_smoothing"] = 0.1
        if r.random() < 0.25 and task != "soft classes":
            options["ignore_index"] = 2
        form = r.choice(["module", "module", "function", "partial", "subclass"])
        if form == "function":
            return _made("F.cross_entropy", F.cross_entropy)
        if form == "partial":
            return _made(
                f"partial(F.cross_entropy, **{options})",
                partial(F.cross_entropy, **options),
                *_weighted(options, task),
            )
        if form == "subclass":
            return _made(f"Focal(**{options})", Focal(**options), *_weighted(options, task))
        loss_fn: nn.Module = nn.CrossEntropyLoss(**options, reduction=reduction)
        odd += ("class weights",) if "weight" in options else ()
        odd += ("ignored targets",) if "ignore_index" in options else ()
        return _made(f"{loss_fn} {options}", loss_fn, *odd)
    if task == "log-probabilities":
        if r.random() < 0.3:
            options["weight"] = torch.tensor([0.5, 1.0, 2.5], dtype=torch.float64)
        if r.random() < 0.3:
            options["ignore_index"] = 1
        if r.random() < 0.3:
            return _made(
                f"partial(F.nll_loss, **{options})",
                partial(F.nll_loss, **options),
                *_weighted(options, task),
            )
        odd += ("class weights",) if "weight" in options else ()
        odd += ("ignored targets",) if "ignore_index" in options else ()
        return _made(f"NLLLoss {options}", nn.NLLLoss(**options, reduction=reduction), *odd)
    kinds: dict[str, list[Callable[[], Loss]]] = {
        "soft log-probabilities": [
            lambda: nn.KLDivLoss(reduction=reduction),
            lambda: nn.KLDivLoss(reduction="batchmean"),
            lambda: F.kl_div,
            lambda: partial(F.kl_div, reduction="batchmean"),
        ],
        "coins": [
            lambda: nn.BCEWithLogitsLoss(
                pos_weight=torch.tensor([2.0, 0.5], dtype=torch.float64), reduction=reduction
            ),
            lambda: nn.BCEWithLogitsLoss(torch.tensor([2.0, 0.5], dtype=torch.float64)),
            lambda: nn.MultiLabelSoftMarginLoss(reduction=reduction),
            lambda: F.binary_cross_entropy_with_logits,
        ],
        "coin": [
            lambda: nn.BCEWithLogitsLoss(reduction=reduction),
            lambda: F.binary_cross_entropy_with_logits,
        ],
        "probability": [lambda: nn.BCELoss(reduction=reduction), lambda: F.binary_cross_entropy],
        "counts": [
            lambda: nn.PoissonNLLLoss(reduction=reduction, full=r.random() < 0.5),
            lambda: F.poisson_nll_loss,
        ],
        "signs": [
            lambda: nn.SoftMarginLoss(reduction=reduction),
            lambda: nn.HingeEmbeddingLoss(reduction=reduction),
        ],
    }
    numbers: list[Callable[[], Loss]] = [
        lambda: nn.MSELoss(reduction=reduction),
        lambda: nn.HuberLoss(reduction=reduction, delta=0.5),
        lambda: nn.SmoothL1Loss(reduction=reduction, beta=0.3),
        lambda: nn.L1Loss(reduction=reduction),
        lambda: F.mse_loss,
        lambda: F.smooth_l1_loss,
    ]
    made = r.choice(kinds.get(task, numbers))()
    traits = set()
    if getattr(made, "reduction", "mean") != "mean":
        traits.add("reduction")
    if task == "column against row":
        traits.add("no mean")
    return _made(f"{made}", made, *traits)


def _weighted(options: dict[str, Any], task: str) -> list[str]:
    """Whether the means over batches do not weigh as their examples do, which is not told."""
    return ["no mean"] if {"weight", "ignore_index"} & options.keys() else []


class Focal(nn.CrossEntropyLoss):
    """A subclass that computes something else than its parent."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return super().forward(1.5 * input, target) + 0.1 * input.square().mean()


class OwnLoss(nn.Module):
    """A loss with a buffer, a parameter of its own, and a count of its calls."""

    def __init__(self, inner: Loss) -> None:
        super().__init__()
        self.inner, self.calls = inner, 0
        self.register_buffer("factor", torch.tensor(1.7))
        self.weight = nn.Parameter(torch.tensor(0.5))

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.calls += 1
        return self.factor * self.inner(outputs, targets) + self.weight * outputs.square().mean()


def _plain(task: str) -> tuple[str, Loss]:
    """A mean over examples that everybody would write for the task."""
    known: dict[str, tuple[str, Loss]] = {
        "classes": ("F.cross_entropy", F.cross_entropy),
        "dense classes": ("F.cross_entropy", F.cross_entropy),
        "soft classes": ("F.cross_entropy", F.cross_entropy),
        "log-probabilities": ("F.nll_loss", F.nll_loss),
        "soft log-probabilities": ("F.kl_div", F.kl_div),
        "coins": ("F.binary_cross_entropy_with_logits", F.binary_cross_entropy_with_logits),
        "coin": ("F.binary_cross_entropy_with_logits", F.binary_cross_entropy_with_logits),
        "probability": ("F.binary_cross_entropy", F.binary_cross_entropy),
        "counts": ("F.poisson_nll_loss", F.poisson_nll_loss),
        "signs": ("F.soft_margin_loss", F.soft_margin_loss),
    }
    return known.get(task, ("F.mse_loss", F.mse_loss))


def _written(r: random.Random, task: str) -> MadeLoss:
    """What people write themselves around one of torch's functions."""
    name, plain = _plain(task)
    mixed = ["no mean"] if task == "column against row" else []
    kinds: list[Callable[[], MadeLoss]] = [
        lambda: _made(f"lambda o, t: {name}(o, t)", lambda o, t: plain(o, t), *mixed),
        lambda: _made(f"2 * {name} + 0.3", lambda o, t: 2 * plain(o, t) + 0.3, *mixed),
        lambda: _made(
            f"{name} + 0.1 * o.pow(2).mean()",
            lambda o, t: plain(o, t) + 0.1 * o.pow(2).mean(),
            *mixed,
        ),
        lambda: _made(f"OwnLoss({name})", OwnLoss(plain), *mixed),
        lambda: _made(f"(1e-3 + {name}).sqrt()", lambda o, t: _root(plain(o, t)), "no mean"),
        lambda: _made(f"{name} * len(o)", lambda o, t: plain(o, t) * len(o), "no mean"),
        lambda: _made(f"{name}, contrastive", lambda o, t: plain(o, t) + _contrast(o), "no mean"),
        lambda: _made("outputs standardized over the batch", _standardized(plain), "no mean"),
        lambda: _made(f"{name}(o.double(), t)", lambda o, t: plain(o.double(), t), *mixed),
    ]
    if task in ("classes", "dense classes"):
        weight = torch.tensor([0.5, 1.0, 2.5], dtype=torch.float64)
        kinds += [
            lambda: _made(
                "lambda: F.cross_entropy(weight)",
                lambda o, t: F.cross_entropy(o, t, weight=weight.to(o)),
                "no mean",
            ),
            lambda: _made(
                "lambda: F.cross_entropy(ignore_index=2)",
                lambda o, t: F.cross_entropy(o, t, ignore_index=2),
                "no mean",
            ),
            lambda: _made(
                "log_softmax().gather()",
                lambda o, t: -o.log_softmax(1).gather(1, t.clamp(min=0).unsqueeze(1)).mean(),
            ),
            lambda: _made(
                "mean over labels above 0",
                lambda o, t: (
                    (F.cross_entropy(o, t, reduction="none") * (t > 0)).sum()
                    / (t > 0).sum().clamp(min=1)
                ),
                "no mean",
            ),
            lambda: _made("float(…)", lambda o, t: float(F.cross_entropy(o, t)), "shape"),
        ]
    if task in ("numbers", "number", "one column"):
        kinds += [
            lambda: _made("RMSE", lambda o, t: F.mse_loss(o, t).sqrt(), "no mean"),
            lambda: _made("R²", _unexplained, "no mean"),
            lambda: _made("max", lambda o, t: (o - t).abs().max(), "no mean"),
            lambda: _made("sum", lambda o, t: (o - t).square().sum(), "no mean"),
            lambda: _made("per example", lambda o, t: (o - t).square(), "shape"),
            lambda: _made("shape (1,)", lambda o, t: (o - t).square().mean()[None], "shape"),
            lambda: _made("a pair", lambda o, t: (F.mse_loss(o, t), 1), "shape"),
            lambda: _made("None", lambda o, t: None, "shape"),
            lambda: _made("log cosh", lambda o, t: torch.log(torch.cosh(o - t)).mean()),
        ]
    return r.choice(kinds)()


def _unexplained(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().sum() / (targets.square().sum() + 1)


def _root(value: Tensor) -> Tensor:
    return (1e-3 + value.square()).sqrt()


def _contrast(outputs: Tensor) -> Tensor:
    rows = F.normalize(outputs.flatten(1) if outputs.dim() > 1 else outputs[:, None], dim=1)
    return torch.logsumexp(rows @ rows.T, 1).mean()


def _standardized(plain: Loss) -> Loss:
    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        spread = outputs.std(0, unbiased=False, keepdim=True) + 0.1
        return plain(outputs, targets) + ((outputs - outputs.mean(0)) / spread).pow(4).mean()

    return loss_fn
