"""Models and losses that draw random numbers: every point sees the same ones."""

import random

import numpy as np
import pytest
import torch
from cases import BatchNormNet, direction, loader
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from mining import Descent, Evaluator, Landscape, Xu2024WPeak, mine
from mining.functional.randomness import seeded


class Dropping(nn.Module):
    """Dropout that eval mode does not turn off."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.head = nn.Linear(64, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.dropout(torch.tanh(self.linear(x.flatten(1))), 0.5, training=True))


class Autoencoder(nn.Module):
    """A variational one: samples the code, and returns mean and log variance beside the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(64, 8), nn.Linear(4, 64)

    def forward(self, x: Tensor) -> Tensor:
        mean, log_variance = self.encoder(x.flatten(1)).chunk(2, 1)
        code = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        return torch.cat([self.decoder(code), mean, log_variance], 1)


def negative_elbo(outputs: Tensor, targets: Tensor) -> Tensor:
    decoded, mean, log_variance = outputs.split([64, 4, 4], 1)
    divergence = (mean.square() + log_variance.exp() - log_variance - 1).sum(1) / 2
    return ((decoded - targets.flatten(1)).square().sum(1) + divergence).mean()


class NoisyBatchNorm(BatchNormNet):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + 0.1 * torch.randn_like(x))


def noisy_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs + torch.randn_like(outputs), targets)


def linear() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))


def pairs() -> list:
    return [(x, x.clone()) for x, _ in loader()]


CASES = {
    "dropout": (Dropping, nn.CrossEntropyLoss(), loader),
    "vae": (Autoencoder, negative_elbo, pairs),
    "batch norm": (NoisyBatchNorm, nn.CrossEntropyLoss(), loader),
    "loss": (linear, noisy_cross_entropy, loader),
}


@pytest.fixture(params=CASES)
def case(request):
    model, loss, batches = CASES[request.param]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = model().double()
        network(batches()[0][0])  # statistics of some data
    return network, loss, batches()


@pytest.mark.parametrize("policy", ["recalibrate", "frozen", "batch"])
def test_losses_repeat_bit_for_bit_and_the_callers_numbers_stay(case, policy, caplog):
    model, loss, batches = case
    before = torch.get_rng_state()
    of = Landscape(model, loss, batches, batchnorm=policy)
    curve = Evaluator(of, progress=False).curve(direction(of), torch.linspace(-0.1, 0.1, 3))
    again = Evaluator(of, progress=False).curve(direction(of), torch.linspace(-0.1, 0.1, 3))
    gradient = of.gradient()
    with pytest.raises(ValueError, match="stochastic"):
        of.hessian()
    with pytest.raises(ValueError, match="draw random numbers"):
        Evaluator(of, tolerance=0.1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(7)
    assert torch.equal(curve.loss, again.loss)
    assert torch.equal(of.gradient(), gradient)
    other = Landscape(model, loss, batches, batchnorm=policy)
    assert torch.equal(other.loss(other.theta + 0.1), of.loss(of.theta + 0.1))
    warnings = [r for r in caplog.records if r.levelname == "WARNING" and "draws" in r.message]
    assert len(warnings) == 2  # one for each landscape


def test_the_noise_is_that_of_a_seed_for_each_batch():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Dropping().double()
    of = Landscape(model, nn.CrossEntropyLoss(), loader())
    losses, weights = [], []
    for number, (inputs, targets) in enumerate(loader()):
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(number)
            losses.append(float(F.cross_entropy(model(inputs), targets)))
            weights.append(len(inputs))
    assert float(of.loss(of.theta)) == pytest.approx(np.average(losses, weights=weights), rel=1e-12)


def test_the_gradient_is_that_of_the_loss_with_its_noise(case):
    model, loss, batches = case
    of = Landscape(model, loss, batches, batchnorm="frozen")
    vector, step = direction(of).vector, 1e-5
    up, down = of.loss(of.theta + step * vector), of.loss(of.theta - step * vector)
    slope = float(of.gradient() @ vector)
    assert slope == pytest.approx(float(up - down) / (2 * step), rel=1e-5)


def test_mining_is_reproducible_and_goes_on_where_it_was(tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Dropping().double()
    of = Landscape(model, nn.CrossEntropyLoss(), loader())

    def mined(epochs, **options):
        miner = Xu2024WPeak(Descent(epochs=epochs, lr=0.1, batch_size=32))
        generator = torch.Generator().manual_seed(3)
        return mine(miner, of, generator=generator, **options).direction.vector

    first = mined(4)
    torch.manual_seed(11)
    assert torch.equal(mined(4), first)

    calls = 0

    def stop(module, inputs):
        nonlocal calls
        calls += 1
        if calls == 8:
            raise KeyboardInterrupt

    handle = model.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        mined(4, checkpoint=tmp_path / "mine.pt")
    handle.remove()
    assert torch.equal(mined(4, checkpoint=tmp_path / "mine.pt"), first)
    batches = of.mini_batches(32)
    (loss, *_), (same, *_) = (
        list(batches.shuffled(torch.Generator().manual_seed(seed))) for seed in (0, 0)
    )
    assert torch.equal(loss(of.theta)[0], loss(of.theta)[0])
    assert torch.equal(loss(of.theta)[1], same(of.theta)[1])


class FromPython(Dropping):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if random.random() < 0.999 else 0 * super().forward(x)


class FromNumPy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1)) * np.random.rand()  # noqa: NPY002


class FromAGeneratorOfItsOwn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.generator = nn.Linear(64, 3), torch.Generator()

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1)) + torch.randn(3, generator=self.generator)


@pytest.mark.parametrize(
    ("model", "named"),
    [(FromPython, "Python's random"), (FromNumPy, "NumPy"), (FromAGeneratorOfItsOwn, "differ by")],
)
def test_random_numbers_from_elsewhere_are_refused(model, named):
    with pytest.raises(ValueError, match=f"different results in every call.*{named}"):
        Landscape(model().double(), nn.CrossEntropyLoss(), loader())


def test_deterministic_models_are_not_seeded(caplog):
    of = Landscape(linear().double(), nn.CrossEntropyLoss(), loader())
    of.loss(of.theta)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]


def test_the_state_comes_back_after_an_error():
    before = torch.get_rng_state()
    with pytest.raises(RuntimeError), seeded(3, torch.device("cpu")):
        torch.rand(5)
        raise RuntimeError
    assert torch.equal(torch.get_rng_state(), before)
