"""Reports that several tests look at, and how their content is read."""

import base64
import json
import re

import numpy as np
import torch
from torch import nn

from mining import Curve, Evaluator, Gaussian, Landscape, Surface


def content_of(path):
    """The data of a page."""
    text = path.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="content">(.*?)</script>', text, re.S)
    return json.loads(found[1])


def decoded(array):
    return np.frombuffer(base64.b64decode(array["f64"]), "<f8").reshape(array["shape"])


def bowl(num=11, *, error=False):
    """The surface (α - 0.25)² + 2 β² + 0.1 with an accuracy and a path."""
    alphas = (torch.arange(num, dtype=torch.float64) - num // 2) / (num // 2)
    betas = alphas / 2
    loss = (alphas[:, None] - 0.25) ** 2 + 2 * betas**2 + 0.1
    return Surface(
        alphas,
        betas,
        loss,
        accuracy=1 - loss / 4,
        names=("first", "second"),
        loss_error=0.01 * loss if error else None,
        path=torch.tensor([[1.0, 0.25], [0.5, -0.25], [0.0, 0.0]]),
        path_names=("E=0", "E=1", "E=2"),
        path_deviation=torch.tensor([0.1, 0.05, 0.0]),
    )


def wells():
    """A surface with minima at α = ±0.5, the one at 0.5 the deeper, and a saddle at θ."""
    alphas = torch.linspace(-1, 1, 17, dtype=torch.float64)
    betas = torch.linspace(-1, 1, 9, dtype=torch.float64)
    loss = (alphas[:, None] ** 2 - 0.25) ** 2 + 0.02 * (alphas[:, None] - 0.5) ** 2 + betas**2 / 4
    return Surface(alphas, betas, loss, names=("first", "second"))


def parabola(name="gaussian 1", shift=0.0):
    """The curve α² + 0.1 with errors."""
    alphas = torch.linspace(-1, 1, 21, dtype=torch.float64)
    loss = (alphas - shift) ** 2 + 0.1
    return Curve(alphas, loss, name=name, loss_covariance=torch.diag(1e-4 * loss**2))


def small_landscape(dtype=torch.float64):
    torch.manual_seed(0)
    inputs, targets = torch.randn(33, 4, dtype=dtype), torch.randint(3, (33,))
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)
    batches = [(inputs[:16], targets[:16]), (inputs[16:], targets[16:])]
    return Landscape(model, nn.CrossEntropyLoss(), batches)


def evaluated_surface(landscape, num=5):
    generator = torch.Generator().manual_seed(1)
    x, y = Gaussian(normalization="filter").directions(landscape, 2, generator=generator)
    points = torch.linspace(-1, 1, num, dtype=torch.float64)
    return Evaluator(landscape).surface(x, y, points, points), (x, y)
