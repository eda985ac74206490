"""Loops of kinds that people write are the same bit for bit with a monitor in them.

Each is written in plain PyTorch with one line for the monitor, which the comparison leaves out.
"""

import multiprocessing
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import count, islice
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader, IterableDataset, Sampler, TensorDataset

from mining import Monitor
from mining.monitoring.share import take_share

#: Called after a step or an epoch, with a name for the row and the optimizer.
Watch = Callable[[float, torch.optim.Optimizer], object]
#: Makes the watch of a training from model, loss and loader.
Watched = Callable[..., Watch]


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def examples(num=50, dtype=torch.float32):
    """Sorted by class, and of a number that leaves a ragged last batch."""
    inputs = torch.randn(num, 6, generator=generator(), dtype=dtype)
    return inputs, torch.arange(num) * 3 // num


def network(dtype=torch.float32, *extra):
    layers = [nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), *extra]
    return nn.Sequential(*layers, nn.Linear(8, 3)).to(dtype)


def train(model, batches, optimizer, watch, *, epochs=2, each_step=False):
    step = 0
    for epoch in range(epochs):
        for inputs, targets in batches:
            optimizer.zero_grad()
            F.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
            step += 1
            if each_step:
                watch(step, optimizer)
        if not each_step:
            watch(epoch + 1, optimizer)


def adam_with_workers(watched: Watched) -> list[Any]:
    model = network()
    data = TensorDataset(*examples())
    batches = DataLoader(data, 16, shuffle=True, num_workers=2, generator=generator(1))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    train(model, batches, optimizer, watched(model, F.cross_entropy, batches))
    return [model, optimizer, batches.generator]


def workers_that_stay(watched: Watched) -> list[Any]:
    """Measured after every step, while the workers are in the middle of an epoch."""
    model = network()
    batches = DataLoader(
        TensorDataset(*examples()), 16, shuffle=True, num_workers=1, persistent_workers=True
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    watch = watched(model, F.cross_entropy, batches)
    train(model, batches, optimizer, watch, each_step=True)
    return [model]


class Stream(IterableDataset[Any]):
    """Draws its examples from a generator of its own and counts them."""

    def __init__(self) -> None:
        self.rng, self.drawn = np.random.default_rng(0), 0

    def __iter__(self) -> Iterator[Any]:
        for _ in range(64):
            self.drawn += 1
            yield torch.tensor(self.rng.normal(size=6), dtype=torch.float32), self.drawn % 3


def a_stream(watched: Watched) -> list[Any]:
    model, stream = network(), Stream()
    batches = DataLoader(stream, 16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train(model, batches, optimizer, watched(model, F.cross_entropy, batches), each_step=True)
    return [model, stream.drawn, torch.tensor(stream.rng.normal())]


def a_stream_of_workers(watched: Watched) -> list[Any]:
    model = network()
    batches = DataLoader(Stream(), 16, num_workers=1, persistent_workers=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train(model, batches, optimizer, watched(model, F.cross_entropy, batches), each_step=True)
    return [model]


class EpochSampler(Sampler[int]):
    """Shuffles by a seed and the number of times it was gone through."""

    def __init__(self, num: int) -> None:
        self.num, self.epoch, self.rng = num, 0, random.Random(0)

    def __len__(self) -> int:
        return self.num

    def __iter__(self) -> Iterator[int]:
        order = torch.randperm(self.num, generator=generator(self.epoch)).tolist()
        self.epoch += 1
        self.rng.shuffle(order)
        return iter(order)


class Jittered(TensorDataset):
    """Adds noise from a generator of its own to what is read."""

    def __init__(self, *tensors: Tensor) -> None:
        super().__init__(*tensors)
        self.noise, self.read = generator(5), 0

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        self.read += 1
        inputs, target = super().__getitem__(index)
        return inputs + 0.1 * torch.randn(6, generator=self.noise) * self.read, target


def a_sampler_and_data_with_states(watched: Watched) -> list[Any]:
    model, data, sampler = network(), Jittered(*examples()), EpochSampler(50)
    batches = DataLoader(data, 16, sampler=sampler)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train(model, batches, optimizer, watched(model, F.cross_entropy, batches))
    return [model, data.noise, data.read, sampler.epoch, torch.tensor(sampler.rng.random())]


def accumulation_in_double_precision(watched: Watched) -> list[Any]:
    """Accumulated gradients, clipped; an average of weights; a rate for every step."""
    model = network(torch.float64)
    average = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
    batches = DataLoader(TensorDataset(*examples(dtype=torch.float64)), 8)  # sorted, ragged
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02, amsgrad=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=20)
    watch = watched(model, F.cross_entropy, batches)
    for epoch in range(3):
        for number, (inputs, targets) in enumerate(batches):
            (F.cross_entropy(model(inputs), targets) / 2).backward()
            watch(epoch + number / 10, optimizer)  # between two halves of a step
            if number % 2:
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                average.update_parameters(model)
                optimizer.zero_grad()
    return [model, average, optimizer, *schedule.get_last_lr()]


def lbfgs(watched: Watched) -> list[Any]:
    model = network()
    batches = [examples()]
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.2, max_iter=4, history_size=3)
    watch = watched(model, F.cross_entropy, batches)
    for epoch in range(4):

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = F.cross_entropy(model(batches[0][0]), batches[0][1])
            loss.backward()
            return loss

        optimizer.step(closure)
        watch(epoch, optimizer)
    return [model, optimizer]


class Tied(nn.Module):
    """Tied weights, a frozen layer, an unused one, and a temperature that falls with its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.decode = nn.Linear(6, 6), nn.Linear(6, 6)
        self.decode.weight = self.encode.weight
        self.frozen, self.unused, self.head = nn.Linear(6, 6), nn.Linear(2, 2), nn.Linear(6, 3)
        self.frozen.requires_grad_(False)
        self.steps, self.temperature = 0, 2.0

    def forward(self, inputs: Tensor) -> Tensor:
        if self.training:
            self.steps += 1
            self.temperature *= 0.9
        hidden = self.decode(torch.tanh(self.frozen(self.encode(inputs))))
        outputs: Tensor = self.head(F.dropout(hidden, 0.1, self.training))
        return outputs / (0.5 + self.temperature)


def groups_of_a_model_with_state(watched: Watched) -> list[Any]:
    model = Tied()
    batches = DataLoader(TensorDataset(*examples()), 16, shuffle=True)
    groups = [
        {"params": [model.encode.weight], "lr": 0.05, "weight_decay": 0.01},
        {"params": [*model.head.parameters()], "lr": 0.2, "nesterov": True},
        {"params": [model.encode.bias, model.decode.bias]},
    ]
    optimizer = torch.optim.SGD(groups, lr=0.1, momentum=0.9)
    train(model, batches, optimizer, watched(model, F.cross_entropy, batches), each_step=True)
    return [model, optimizer, model.steps, model.temperature]


LOOPS = [
    adam_with_workers,
    workers_that_stay,
    a_stream,
    a_stream_of_workers,
    a_sampler_and_data_with_states,
    accumulation_in_double_precision,
    lbfgs,
    groups_of_a_model_with_state,
]


def run(loop: Callable[[Watched], list[Any]], watched: Watched) -> list[Any]:
    """Train from fixed seeds; return all that is left as numbers and tensors."""
    random.seed(0), np.random.seed(0), torch.manual_seed(0)  # noqa: NPY002
    left = loop(watched)
    left += [random.random(), float(np.random.rand()), torch.rand(2)]  # noqa: NPY002
    return list(islice(flat(left), 10_000))


def flat(value: Any) -> Iterator[Any]:
    if isinstance(value, nn.Module):
        yield from flat(value.state_dict())
        for module in value.modules():
            yield module.training
        for parameter in value.parameters():
            yield parameter.requires_grad
            yield parameter.grad
    elif isinstance(value, torch.optim.Optimizer):
        yield from flat(value.state_dict())
    elif isinstance(value, torch.Generator):
        yield value.get_state()
    elif isinstance(value, dict):
        yield from flat(list(value.items()))
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from flat(entry)
    else:
        yield value


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    return bool(one == other)


@pytest.mark.parametrize("loop", LOOPS, ids=lambda loop: loop.__name__)
def test_a_loop_is_the_same_with_a_monitor_and_without(loop):
    monitors = []

    def monitored(*arguments: Any) -> Watch:
        monitors.append(Monitor(*arguments, every=1, num_examples=12, probes=2))
        return monitors[-1].step

    plain = run(loop, lambda *_: lambda *_: None)
    watched = run(loop, monitored)
    assert len(plain) == len(watched)
    assert all(same(a, b) for a, b in zip(plain, watched, strict=True))
    table = monitors[0].table
    assert len(table) > 1
    assert table[["lambda_max", "trace"]].notna().all(axis=None)
    # The share is one: what is measured at a point does not depend on when.
    assert table.num_examples.nunique() == 1


FLAGS = {
    "as they are": lambda: None,
    "benchmark": lambda: setattr(torch.backends.cudnn, "benchmark", True),
    "no tf32": lambda: setattr(torch.backends.cudnn, "allow_tf32", False),
    "precisions differ": lambda: setattr(torch.backends.cudnn.conv, "fp32_precision", "ieee"),
    "frozen": torch.backends.disable_global_flags,
}


def flags() -> list[Any]:
    cudnn = torch.backends.cudnn
    found = [cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.fp32_precision]
    return [*found, cudnn.conv.fp32_precision, cudnn.rnn.fp32_precision]


@pytest.mark.parametrize("kind", FLAGS)
def test_flags_of_cudnn_are_those_of_the_training(kind):
    """In a process of its own, since flags cannot be unfrozen."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        before, inside, after = pool.submit(_flags_around_a_measurement, kind).result()
    assert before == after
    assert inside == [before[0], False, True, *before[3:]]  # but for the choice of algorithms


def _flags_around_a_measurement(kind: str) -> tuple[list[Any], list[Any], list[Any]]:
    FLAGS[kind]()
    before, seen = flags(), []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        seen.append(flags())
        return F.cross_entropy(outputs, targets)

    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    Monitor(model, loss, [examples()], num_examples=12, probes=2).step(0, optimizer)
    return before, seen[0], flags()


def test_a_stream_that_does_not_end_is_read_from_its_beginning(caplog):
    def stream() -> Iterator[Any]:
        for number in count():
            yield torch.full((4, 6), float(number)), torch.zeros(4, dtype=torch.long)

    class Endless(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return stream()

    with caplog.at_level("INFO", logger="mining"):
        share = take_share(DataLoader(Endless(), batch_size=None), 40, generator())
    numbers = {int(batch[0][0, 0]) for batch in share}
    assert len(numbers) == len(share) == 10
    assert 9 < max(numbers) < 640  # not simply the first ones
    assert "drawn from the first 640 batches" in caplog.text
