"""Results do not depend on the order in which a loader has its examples."""

import pytest
import torch
from cases import build, direction, loader
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.utils.data import DataLoader, TensorDataset

from mining import BatchNormPolicy, Evaluator, Landscape
from mining.functional.batches import Gathered, gather, lay_end_to_end, mixed

NUM = 600


def sorted_by_class():
    """Images of three classes one after the other, which differ in brightness."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(3).repeat_interleave(NUM // 3)
    noise = torch.randn(NUM, 1, 8, 8, generator=generator, dtype=torch.float64)
    return noise + 2.0 * targets.view(-1, 1, 1, 1), targets


def network():
    """Two norm layers, of which the second sees what the first has normalized."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4 * 36, 8),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Linear(8, 3),
        ).double()


def loaders():
    inputs, targets = sorted_by_class()
    other = torch.randperm(NUM, generator=torch.Generator().manual_seed(5))

    def cut(size, x=inputs, y=targets):
        return list(zip(x.split(size), y.split(size), strict=True))

    return {
        "sorted": cut(128),
        "shuffled": cut(128, inputs[other], targets[other]),
        "whole": cut(NUM),
        "small": cut(8),
        "ragged": cut(43),
        "DataLoader": DataLoader(TensorDataset(inputs, targets), batch_size=200),
    }


def updated(model, seed):
    """The statistics that torch's own function estimates on a shuffled loader."""
    inputs, targets = sorted_by_class()
    shuffled = DataLoader(
        TensorDataset(inputs, targets),
        120,
        shuffle=True,
        generator=torch.Generator().manual_seed(seed),
    )
    torch.optim.swa_utils.update_bn(shuffled, model)
    return model.eval()


@pytest.mark.parametrize("kind", loaders())
def test_recalibration_gives_what_update_bn_gives_on_a_shuffled_loader(kind):
    of = Landscape(network(), nn.CrossEntropyLoss(), loaders()[kind])
    found = of.statistics(of.theta)
    model = updated(network(), seed=1)
    for name, expected in model.named_buffers():
        if "running" in name:
            # Three draws of update_bn lie within 2 %; sorted batches lack four fifths of the
            # variance. A mean is compared in units of the deviation.
            scale = (
                1.0
                if "var" in name
                else dict(model.named_buffers())[name.replace("mean", "var")].sqrt()
                / expected.abs()
            )
            assert ((found[name] - expected).abs() / expected.abs() < 0.05 * scale).all()
    inputs, targets = sorted_by_class()
    with torch.no_grad():
        loss = F.cross_entropy(model(inputs), targets)
    assert float(of.loss(of.theta)) == pytest.approx(float(loss), rel=0.01)


def test_recalibration_is_the_same_for_every_large_batch_size():
    inputs, targets = sorted_by_class()
    found = []
    for size in (125, 200, NUM):
        batches = list(zip(inputs.split(size), targets.split(size), strict=True))
        of = Landscape(network(), nn.CrossEntropyLoss(), batches)
        found.append(of.statistics(of.theta))
        given = Landscape(network(), nn.CrossEntropyLoss(), loader(), recalibration=batches)
        found.append(given.statistics(given.theta))
    for other in found[1:]:
        assert all(torch.equal(other[name], found[0][name]) for name in found[0])


@pytest.mark.parametrize("kind", ["sorted", "ragged"])
def test_a_subset_recalibrates_as_well_as_all(kind):
    whole = Landscape(network(), nn.CrossEntropyLoss(), loaders()[kind])
    policy = BatchNormPolicy(num_examples=300)
    part = Landscape(network(), nn.CrossEntropyLoss(), loaders()[kind], batchnorm=policy)
    assert sum(map(len, part._prepared.statistics.inputs)) == 300
    # Brightness decides; its sampling error is 0.8 / sqrt(300) of its deviation.
    assert float(part.loss(part.theta)) == pytest.approx(float(whole.loss(whole.theta)), rel=0.05)


def test_batches_normalized_by_themselves_are_mixed():
    """Sorted batches of one class have no brightness left to tell it by."""
    losses = {}
    for kind, batches in loaders().items():
        of = Landscape(network(), nn.CrossEntropyLoss(), batches, batchnorm="batch")
        assert sorted(len(b.inputs) for b in of.batches) == sorted(len(x) for x, _ in batches)
        held = of.hold(batches)
        assert torch.equal(
            torch.cat([b.inputs for b in held]).sort(0).values, sorted_by_class()[0].sort(0).values
        )
        losses[kind] = float(of.loss(of.theta))
        assert float(of.evaluate(of.theta, held).loss) == losses[kind]
        inputs, targets = held[0][:2]
        # Examples keep their targets: the darkest are the first class.
        assert (inputs.mean((1, 2, 3)).round().clamp(0) / 2 - targets).abs().max() < 0.75
    small = losses.pop("small")  # a batch of 8 has another brightness than the next
    assert small == pytest.approx(losses["whole"], rel=0.15)
    assert list(losses.values()) == pytest.approx([losses["whole"]] * len(losses), rel=0.03)


def test_layers_without_running_statistics_get_mixed_batches():
    model = nn.Sequential(
        nn.Flatten(), nn.BatchNorm1d(64, track_running_stats=False), nn.Linear(64, 3)
    ).double()
    inputs, targets = sorted_by_class()
    of = Landscape(model, nn.CrossEntropyLoss(), loaders()["sorted"], batchnorm="frozen")
    with torch.no_grad():
        whole = float(F.cross_entropy(model(inputs), targets))
    assert float(of.loss(of.theta)) == pytest.approx(whole, rel=0.02)


def test_batches_of_unequal_images_recalibrate_as_they_are():
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.BatchNorm2d(4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    ).double()
    small, large = torch.randn(6, 1, 8, 8).double(), torch.randn(4, 1, 10, 10).double()
    batches = [(small, torch.zeros(6).long()), (large, torch.ones(4).long())]
    of = Landscape(model, nn.CrossEntropyLoss(), batches)
    assert [x.shape for x in of._prepared.statistics.inputs] == [small.shape, large.shape]
    some = Landscape(
        model, nn.CrossEntropyLoss(), batches, batchnorm=BatchNormPolicy(num_examples=7)
    )
    assert sum(map(len, some._prepared.statistics.inputs)) == 7
    batch = Landscape(model, nn.CrossEntropyLoss(), batches, batchnorm="batch")
    assert [b.inputs.shape for b in batch.batches] == [small.shape, large.shape]


def test_examples_in_the_order_of_the_loader_where_they_are_independent():
    of = Landscape(build("batchnorm"), nn.CrossEntropyLoss(), loader())
    inputs = torch.cat([x for x, _ in loader()])
    assert torch.equal(torch.cat([batch.inputs for batch in of.batches]), inputs)


def test_gathered_inputs_keep_their_layout_and_are_not_copied():
    whole = torch.randn(40, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    chosen = torch.tensor([3, 1, 30])
    assert torch.equal(gather(whole, chosen), whole[chosen])
    assert gather(whole, chosen).is_contiguous(memory_format=torch.channels_last)
    turned = torch.randn(40, 5, 6).transpose(1, 2)
    assert torch.equal(gather(turned, chosen), turned[chosen])
    batches = mixed(list(whole[4:].split(7)), 12)
    assert isinstance(batches, Gathered)
    assert batches.whole.data_ptr() == whole[4:].data_ptr()
    assert [len(batch) for batch in batches] == [12, 12, 12]
    found = torch.cat(list(batches)).flatten(1).sum(1).sort().values
    torch.testing.assert_close(found, whole[4:].flatten(1).sum(1).sort().values)
    assert torch.equal(batches[1:][0], batches[1])


def test_separate_tensors_are_laid_end_to_end_in_their_layout():
    parts = [torch.randn(n, 3, 4, 4).contiguous(memory_format=torch.channels_last) for n in (5, 2)]
    expected = torch.cat(parts)
    found = lay_end_to_end(parts)
    assert torch.equal(found, expected)
    assert found.stride() == expected.stride()
    assert not parts


def shifted():
    """A trained network, and images that are brighter than those it was trained on."""
    inputs, targets = sorted_by_class()
    model = updated(network(), seed=1)
    return model, list(zip((inputs + 1).split(128), targets.split(128), strict=True))


@pytest.mark.parametrize("policy", ["recalibrate", "batch"])
def test_a_loss_at_theta_that_is_not_that_of_the_model_is_said_once(policy, caplog):
    model, batches = shifted()
    of = Landscape(model, nn.CrossEntropyLoss(), batches, batchnorm=policy)
    with torch.no_grad():
        stored = torch.cat([F.cross_entropy(model(x), y, reduction="none") for x, y in batches])
    evaluator = Evaluator(of, progress=False)
    curve = evaluator.curve(direction(of), torch.tensor([0.0, 0.1]))
    evaluator.curve(direction(of), torch.tensor([0.0, 0.1]))
    (warning,) = [r.message for r in caplog.records if "stored in the model" in r.message]
    assert f"{float(curve.loss[0]):.4g} under batchnorm={policy}" in warning
    assert f"and {float(stored.mean()):.4g} with" in warning
    effect = of.warn_of_policy()
    assert effect.num_examples == NUM
    assert effect.standard_error < 0.2 * abs(effect.loss - effect.stored_loss)


@pytest.mark.parametrize("case", ["as trained", "frozen", "never trained", "no batch norm"])
def test_nothing_is_said_where_the_loss_is_that_of_the_model(case, caplog):
    inputs, targets = sorted_by_class()
    batches = list(zip(inputs.split(128), targets.split(128), strict=True))
    model = {"never trained": network, "no batch norm": lambda: build("mlp")}.get(
        case, lambda: updated(network(), seed=1)
    )()
    policy = "frozen" if case == "frozen" else "recalibrate"
    of = Landscape(model, nn.CrossEntropyLoss(), batches, batchnorm=policy)
    Evaluator(of, progress=False).curve(direction(of), torch.tensor([0.0, 0.1]))
    assert not [r for r in caplog.records if "stored in the model" in r.message]


def test_statistics_at_theta_are_estimated_once_and_anew_when_it_changes():
    of = Landscape(network(), nn.CrossEntropyLoss(), loaders()["sorted"])
    first = of.statistics(of.theta)
    first["1.running_mean"].zero_()
    again = of.statistics(of.theta)
    assert again["1.running_mean"].any()
    of.theta.mul_(2)
    moved = of.statistics(of.theta)
    assert not torch.equal(moved["1.running_mean"], again["1.running_mean"])
    expected = of.statistics(of.theta.clone())
    assert all(torch.equal(moved[name], expected[name]) for name in expected)


def test_inputs_that_are_their_own_targets_are_held_once():
    inputs, _ = sorted_by_class()
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 1, 3, padding=1)).double()
    batches = [(x.clone(),) * 2 for x in inputs.split(128)]
    for policy in ("recalibrate", "batch"):
        of = Landscape(model, nn.MSELoss(), batches, batchnorm=policy)
        assert all(b.inputs.data_ptr() == b.targets.data_ptr() for b in of.batches) or (
            policy == "batch"
        )
        assert all(torch.equal(b.inputs, b.targets) for b in of.batches)
