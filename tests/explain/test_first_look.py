"""Curvature from growing samples, against that of all examples."""

import torch
from torch import nn

from mining import Landscape, sampled_curvature
from mining.curvature.dense import make_dense


def landscape(num: int, seed: int = 0) -> Landscape:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).double()
    inputs = torch.randn(num, 6, dtype=torch.float64) * torch.randn(num, 1).exp()
    targets = (inputs[:, 0] > 0).long() + (inputs[:, 1] > 1).long()
    sorted_by_class = targets.argsort()
    batches = list(
        zip(inputs[sorted_by_class].split(1500), targets[sorted_by_class].split(1500), strict=True)
    )
    return Landscape(model, nn.CrossEntropyLoss(), batches)


def test_errors_contain_the_curvature_of_all_examples():
    of = landscape(16384)
    values = torch.linalg.eigvalsh(make_dense(of.hessian()).double())
    truth = {
        "lambda_max": float(values[-1]),
        "lambda_min": float(values[0]),
        "trace": float(values.sum()),
    }
    inside = dict.fromkeys(truth, 0)
    errors = torch.zeros(2, dtype=torch.float64)
    for seed in range(20):
        looks = list(sampled_curvature(of, seed=seed))
        assert [look.num_examples for look in looks] == [256, 1024]
        for number, look in enumerate(looks):
            errors[number] += look.lambda_max.error
            for name, exact in truth.items():
                found = getattr(look, name)
                inside[name] += abs(found.value - exact) <= 2 * found.error
    assert errors[1] < 0.7 * errors[0]
    assert min(inside.values()) >= 35  # of 40; 38 if errors are normal


def test_few_examples_are_no_sample():
    assert list(sampled_curvature(landscape(4095))) == []


def test_a_look_is_repeatable_and_prints_its_numbers():
    of = landscape(4096)
    first, again = (str(next(sampled_curvature(of, seed=3))).split(" (")[0] for _ in range(2))
    assert first == again
    assert first.startswith("λ max ")
