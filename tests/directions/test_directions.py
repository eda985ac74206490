import math

import numpy as np
import pytest
import torch
from cases import assert_unchanged, build, examples, landscape, quadratic_landscape, snapshot
from torch import nn

from mining import (
    AdamMoments,
    BestOfNGaussians,
    CheckpointDelta,
    Direction,
    Eigenvectors,
    FromFile,
    Gaussian,
    Gradient,
    Landscape,
    Normalization,
    TrajectoryPCA,
    Uniform,
)
from mining.curvature import make_dense
from mining.directions import cosine
from mining.directions.base import Convergence
from mining.directions.storage import load_directions, save_directions
from mining.functional.random_vectors import standard_normal


def other_weights():
    return dict(build("batchnorm", seed=9).state_dict())


def adam_state():
    model = build("batchnorm")
    optimizer = torch.optim.Adam(model.parameters())
    inputs, targets = examples()
    nn.functional.cross_entropy(model(inputs), targets).backward()
    optimizer.step()
    return optimizer.state_dict()


@pytest.fixture
def stored(tmp_path):
    of = landscape("batchnorm")
    path = tmp_path / "mine.npz"
    vector = torch.randn(of.space.size, dtype=torch.float64)
    np.savez(path, **{n: t.numpy() for n, t in of.space.unflatten(vector).items()})
    return path, vector


SOURCES = [
    Gaussian(),
    Gaussian("filter"),
    Gradient(),
    Gradient(batch_size=8, normalization="layer"),
    CheckpointDelta(other_weights()),
    CheckpointDelta(other_weights(), normalization="model"),
    BestOfNGaussians(num_samples=5),
    CheckpointDelta(other_weights(), away=True),
    Uniform(),
    Uniform(0, 1, "filter"),
    AdamMoments(adam_state()),
    AdamMoments(adam_state(), normalization="layer"),
    TrajectoryPCA([other_weights(), build("batchnorm", seed=8), build("batchnorm")]),
]


@pytest.mark.parametrize("source", SOURCES, ids=lambda s: f"{type(s).__name__}")
def test_source_keeps_the_contract(source):
    of = landscape("batchnorm")
    of.model.train()
    before = snapshot(of.model)
    found, again, different = (
        source.directions(of, 1, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    )
    assert_unchanged(of.model, before)
    assert len(found) == 1
    vector = found[0].vector
    assert vector.shape == (of.space.size,)
    assert vector.dtype == of.theta.dtype
    assert torch.isfinite(vector).all()
    assert torch.equal(vector, again[0].vector)
    random = not (
        isinstance(source, CheckpointDelta | AdamMoments | TrajectoryPCA) or source == Gradient()
    )
    assert torch.equal(vector, different[0].vector) != random
    with pytest.raises(ValueError, match=r"num_directions must be .* got 0"):
        source.directions(of, 0, generator=torch.Generator())


def test_gaussian_has_zero_mean_and_the_norm_of_theta():
    """A uniform direction on [0, 1] would have mean 1/2, and two of them cosine 0.75."""
    of = landscape("batchnorm")
    first, second = (
        d.vector for d in Gaussian().directions(of, 2, generator=torch.Generator().manual_seed(0))
    )
    assert float(first.norm()) == pytest.approx(float(of.theta.norm()), rel=1e-12)
    raw = Gaussian("none").directions(of, 1, generator=torch.Generator().manual_seed(0))[0].vector
    size = of.space.size  # means and cosines of D normals deviate by about 1/sqrt(D)
    assert abs(raw.mean()) < 4 / math.sqrt(size)
    assert float(raw.var()) == pytest.approx(1, abs=4 * math.sqrt(2 / size))
    assert abs(cosine(first, second)) < 4 / math.sqrt(size)


def test_uniform_entries_have_the_mean_and_variance_of_their_interval():
    of = landscape("batchnorm")
    size = of.space.size
    for low, high, overlap in ((-1.0, 1.0, 0.0), (0.0, 1.0, 0.75)):
        first, second = (
            d.vector
            for d in Uniform(low, high, "none").directions(
                of, 2, generator=torch.Generator().manual_seed(0)
            )
        )
        assert low <= float(first.min())
        assert float(first.max()) < high
        deviation = (high - low) / math.sqrt(12)
        assert float(first.mean()) == pytest.approx(
            (low + high) / 2, abs=4 * deviation / math.sqrt(size)
        )
        # The kurtosis of a uniform variable, 1.8, gives the variance of its sample variance.
        error = 4 * deviation**2 * math.sqrt(0.8 / size)
        assert float(first.var()) == pytest.approx(deviation**2, abs=error)
        assert cosine(first, second) == pytest.approx(overlap, abs=4 / math.sqrt(size))
    (found,) = Uniform().directions(of, 1, generator=torch.Generator().manual_seed(0))
    assert float(found.vector.norm()) == pytest.approx(float(of.theta.norm()), rel=1e-12)
    for low, high in ((1, 1), (0, math.inf)):
        with pytest.raises(ValueError, match=r"direction\.low must lie below direction\.high"):
            Uniform(low, high)


def test_gaussian_does_not_repeat_an_initialization_from_the_same_seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Linear(500, 200)
    inputs = torch.zeros(2, 500)
    of = Landscape(model, nn.CrossEntropyLoss(), [(inputs, torch.zeros(2, dtype=torch.long))])
    (found,) = Gaussian().directions(of, 1, generator=torch.Generator().manual_seed(0))
    assert abs(cosine(found.vector, of.theta)) < 4 / math.sqrt(of.space.size)
    naive = torch.randn(of.space.size, generator=torch.Generator().manual_seed(0))
    assert abs(cosine(naive, of.theta)) > 10 / math.sqrt(of.space.size)


def test_gradient_is_the_negative_gradient():
    of = quadratic_landscape()
    (found,) = Gradient().directions(of, 1, generator=torch.Generator())
    expected = -(of.model.matrix @ of.theta + of.model.linear)
    assert torch.allclose(found.vector, expected, rtol=1e-12)
    assert found.metadata["gradient_norm"] == pytest.approx(float(expected.norm()))


# The start vector is random and what it leads to is not: the contract's "another seed, another
# direction" does not hold for eigenvectors, so they have tests of their own.


def eigenvectors(of, num, seed=0, **options):
    source = Eigenvectors(**{"tol": 1e-9, **options})
    return source.directions(of, num, generator=torch.Generator().manual_seed(seed))


def test_eigenvectors_are_those_of_the_dense_hessian():
    of = landscape("batchnorm")
    before = snapshot(of.model)
    found = eigenvectors(of, 5)
    assert_unchanged(of.model, before)
    assert [d.source for d in found] == ["P.E.1", "P.E.2", "P.E.3", "N.E.1", "N.E.2"]
    values, vectors = torch.linalg.eigh(make_dense(of.hessian()))
    for direction, column in zip(found, [-1, -2, -3, 0, 1], strict=True):
        assert direction.metadata["eigenvalue"] == pytest.approx(float(values[column]), abs=1e-9)
        assert abs(cosine(direction.vector, vectors[:, column])) == pytest.approx(1, abs=1e-9)
        assert float(direction.vector.norm()) == pytest.approx(1, abs=1e-9)
        slope = float(direction.vector @ of.gradient())
        assert slope <= 1e-9
        assert direction.metadata["slope"] == pytest.approx(slope, abs=1e-9)
        assert direction.convergence.converged


def test_eigenvectors_do_not_depend_on_the_seed():
    of = landscape("mlp")
    for one, other in zip(eigenvectors(of, 4), eigenvectors(of, 4, seed=1), strict=True):
        torch.testing.assert_close(one.vector, other.vector, rtol=0, atol=1e-7)
    again = eigenvectors(of, 4)
    assert all(
        torch.equal(a.vector, b.vector) for a, b in zip(again, eigenvectors(of, 4), strict=True)
    )


def test_eigenvectors_of_one_end_from_the_second_on():
    of = landscape("batchnorm")
    both = {d.source: d.vector for d in eigenvectors(of, 6)}
    up = eigenvectors(of, 2, which="largest", start=2)
    down = eigenvectors(of, 1, which="smallest", start=3)
    assert [d.source for d in up + down] == ["P.E.2", "P.E.3", "N.E.3"]
    for direction in up + down:
        torch.testing.assert_close(direction.vector, both[direction.source], rtol=0, atol=1e-7)


def test_eigenvectors_of_a_layer_are_zero_elsewhere():
    of = landscape("batchnorm")
    (found,) = eigenvectors(of, 1, parameters="conv")
    pieces = of.space.unflatten(found.vector)
    assert not pieces["linear.weight"].any()
    assert float(pieces["conv.weight"].norm()) > 0.5


@pytest.mark.parametrize("name", ["model", "layer", "filter", "weight"])
def test_eigenvectors_are_normalized_as_other_directions_are(name):
    of = landscape("batchnorm")
    plain = eigenvectors(of, 2)
    for one, unit in zip(eigenvectors(of, 2, normalization=name), plain, strict=True):
        torch.testing.assert_close(
            one.vector, Normalization(name)(unit.vector, of.theta, of.space), rtol=1e-6, atol=1e-9
        )
        assert one.metadata["eigenvalue"] == pytest.approx(unit.metadata["eigenvalue"])


@pytest.mark.parametrize("method", ["lanczos", "eigsh", "power"])
def test_negative_eigenvectors_where_there_are_none(method):
    inputs = torch.randn(20, 4, dtype=torch.float64)
    convex = Landscape(
        nn.Linear(4, 3).double(), nn.CrossEntropyLoss(), [(inputs, torch.arange(20) % 3)]
    )
    with pytest.raises(ValueError, match=r"There is no N\.E\.1: of the 1 eigenvalues computed"):
        eigenvectors(convex, 1, which="smallest", tol=1e-3, method=method)


def test_eigenvectors_refuse_bad_options():
    with pytest.raises(ValueError, match=r"direction\.which must be one of"):
        Eigenvectors(which="top")
    with pytest.raises(ValueError, match=r"direction\.start must be at least 1"):
        Eigenvectors(start=0)
    with pytest.raises(ValueError, match="num_directions must be at least 1"):
        eigenvectors(landscape("mlp"), 0)


def test_checkpoint_delta_away_mirrors_the_curve():
    of, generator = landscape("batchnorm"), torch.Generator()
    (to,) = CheckpointDelta(other_weights(), "E=9").directions(of, 1, generator=generator)
    (away,) = CheckpointDelta(other_weights(), "E=9", away=True).directions(
        of, 1, generator=generator
    )
    assert torch.equal(away.vector, -to.vector)
    assert (to.other_alpha, away.other_alpha) == (1, -1)
    assert away.source == "from E=9"


def test_batch_gradients_average_to_the_full_one():
    of = landscape("mlp")
    whole = Gradient(batch_size=of.num_examples).directions(
        of, 1, generator=torch.Generator().manual_seed(0)
    )
    assert torch.allclose(whole[0].vector, -of.gradient(), rtol=1e-10, atol=1e-14)
    several = Gradient(batch_size=4).directions(of, 3, generator=torch.Generator().manual_seed(0))
    assert len({float(d.vector[0]) for d in several}) == 3


def test_checkpoint_delta_leads_to_the_other_checkpoint():
    of = landscape("batchnorm")
    other = other_weights()
    (found,) = CheckpointDelta(other, label="E=200").directions(of, 1, generator=torch.Generator())
    reached = of.space.unflatten(of.theta + found.other_alpha * found.vector)
    assert all(torch.allclose(reached[n], other[n], rtol=1e-12) for n in of.space.names)
    assert found.other_alpha == 1
    assert found.name == "to E=200 1"
    (scaled,) = CheckpointDelta(other, normalization="model").directions(
        of, 1, generator=torch.Generator()
    )
    assert float(scaled.vector.norm()) == pytest.approx(float(of.theta.norm()), rel=1e-12)
    reached = of.space.unflatten(of.theta + scaled.other_alpha * scaled.vector)
    assert all(torch.allclose(reached[n], other[n], rtol=1e-10) for n in of.space.names)


def test_checkpoint_delta_refuses_theta_itself_and_other_architectures():
    of = landscape("batchnorm")
    with pytest.raises(ValueError, match="is θ itself"):
        CheckpointDelta(of.model.state_dict()).directions(of, 1, generator=torch.Generator())
    with pytest.raises(ValueError, match=r"does not fit BatchNormNet; missing: conv\.weight"):
        CheckpointDelta(build("mlp").state_dict()).directions(of, 1, generator=torch.Generator())
    with pytest.raises(ValueError, match=r"unexpected: extra\.weight"):
        CheckpointDelta({**other_weights(), "extra.weight": torch.zeros(1)}).directions(
            of, 1, generator=torch.Generator()
        )
    with pytest.raises(ValueError, match="must be 1 for the difference of two checkpoints, got 2"):
        CheckpointDelta(other_weights()).directions(of, 2, generator=torch.Generator())


def test_best_of_n_gaussians_is_the_best_of_its_samples():
    of = landscape("mlp")
    chosen = BestOfNGaussians(num_samples=20).directions(
        of, 3, generator=torch.Generator().manual_seed(0)
    )
    gradient = of.gradient()
    generator = torch.Generator().manual_seed(0)
    samples = [standard_normal(of.space.size, generator) for _ in range(20)]
    best = max(samples, key=lambda sample: cosine(sample, -gradient))
    assert cosine(chosen[0].vector, best) == pytest.approx(1, abs=1e-12)
    angles = [d.metadata["angle"] for d in chosen]
    assert angles == sorted(angles)
    assert angles[0] < 90
    for direction in chosen:
        assert cosine(direction.vector, -gradient) == pytest.approx(
            math.cos(math.radians(direction.metadata["angle"])), rel=1e-9
        )
        assert float(direction.vector.norm()) == pytest.approx(float(gradient.norm()), rel=1e-6)


def test_from_file_reads_named_arrays(stored):
    path, vector = stored
    of = landscape("batchnorm")
    (found,) = FromFile(path).directions(of, 1, generator=torch.Generator())
    assert torch.equal(found.vector, vector)
    assert found.source == "mine"


@pytest.mark.parametrize("suffix", ["npz", "pt"])
@pytest.mark.parametrize("rows", [None, 2])
def test_from_file_reads_flat_arrays(tmp_path, suffix, rows):
    of = landscape("mlp")
    flat = torch.randn(*([rows] if rows else []), of.space.size, dtype=torch.float64)
    path = tmp_path / f"flat.{suffix}"
    if suffix == "npz":
        np.savez(path, flat.numpy())
    else:
        torch.save(flat, path)
    found = FromFile(path).directions(of, rows or 1, generator=torch.Generator())
    assert torch.equal(torch.stack([d.vector for d in found]), flat.view(-1, of.space.size))


def test_from_file_reads_a_single_named_parameter(tmp_path):
    of = quadratic_landscape()
    path = tmp_path / "one.pt"
    torch.save({"theta": torch.ones(5, dtype=torch.float64)}, path)
    (found,) = FromFile(path).directions(of, 1, generator=torch.Generator())
    assert torch.equal(found.vector, torch.ones(5, dtype=torch.float64))


def test_from_file_reads_what_a_run_leaves(tmp_path):
    of = landscape("mlp")
    path = tmp_path / "directions.pt"
    directions = Gaussian().directions(of, 3, generator=torch.Generator().manual_seed(0))
    save_directions(path, directions, of)
    content = torch.load(path, weights_only=True)
    assert content["vectors"].shape == (3, of.space.size)
    assert tuple(content["names"]) == of.space.names
    for found in (
        FromFile(path).directions(of, 3, generator=torch.Generator()),
        load_directions(path, of),
    ):
        assert all(torch.equal(a.vector, b.vector) for a, b in zip(found, directions, strict=True))
    assert [d.name for d in load_directions(path, of)] == [d.name for d in directions]


def test_from_file_names_what_is_wrong(tmp_path, stored):
    of = landscape("mlp")

    def read(path, num=1):
        return FromFile(path).directions(of, num, generator=torch.Generator())

    with pytest.raises(FileNotFoundError, match=r"no file .*absent.npz"):
        read(tmp_path / "absent.npz")
    with pytest.raises(ValueError, match="missing"):
        read(stored[0])
    for suffix in ("npz", "pt"):
        broken = tmp_path / f"broken.{suffix}"
        broken.write_bytes(b"PK\x03\x04 not an archive")
        with pytest.raises(ValueError, match="cannot read"):
            read(broken)
    short = tmp_path / "short.npz"
    np.savez(short, np.zeros(3))
    with pytest.raises(ValueError, match=f"{of.space.size} entries, got shape"):
        read(short)
    flat = tmp_path / "flat.npz"
    np.savez(flat, np.ones(of.space.size))
    with pytest.raises(ValueError, match="as many as"):
        read(flat, num=2)
    np.savez(flat, np.full(of.space.size, np.nan))
    with pytest.raises(ValueError, match="not finite"):
        read(flat)
    np.savez(flat, np.zeros(of.space.size))
    with pytest.raises(ValueError, match="norm zero"):
        read(flat)
    for content in ("text", {"a": "b"}, {"vectors": None}, {"names": 5}):
        torch.save(content, tmp_path / "odd.pt")
        with pytest.raises(ValueError, match="must hold one array per parameter name"):
            read(tmp_path / "odd.pt")
    torch.save({"model": {}, "optimizer": {}}, tmp_path / "training.pt")
    with pytest.raises(ValueError, match="is a checkpoint, not a direction"):
        read(tmp_path / "training.pt")
    foreign = tmp_path / "foreign.pt"
    torch.save({"vectors": torch.ones(1, of.space.size), "names": ["a", "b"]}, foreign)
    with pytest.raises(ValueError, match=r"a, b …; the model has 1\.weight"):
        read(foreign)


def test_orthogonal_directions_keep_their_norm_and_remember_the_angle():
    x = Direction(torch.tensor([1.0, 0.0]), "x")
    y = Direction(torch.tensor([3.0, 4.0]), "y", 2, {"known": 1.0})
    found = y.orthogonal_to(x)
    assert torch.allclose(found.vector, torch.tensor([0.0, 5.0]))
    assert (found.source, found.index, found.metadata["known"]) == ("y", 2, 1.0)
    assert found.metadata["angle_before"] == pytest.approx(math.degrees(math.atan2(4, 3)))
    with pytest.raises(ValueError, match="parallel"):
        x.orthogonal_to(x)


def test_frozen_parameters_do_not_move_and_others_move_as_before():
    of = landscape("batchnorm")
    (delta,) = CheckpointDelta(other_weights()).directions(of, 1, generator=torch.Generator())
    given = delta.vector.clone()
    found = delta.frozen(of.space, ["bn", "*.bias"])
    assert torch.equal(delta.vector, given)
    before, after = (of.space.unflatten(d.vector) for d in (delta, found))
    for name in of.space.names:
        still = name in ("conv.bias", "bn.weight", "bn.bias", "linear.bias")
        expected = torch.zeros_like(before[name]) if still else before[name]
        assert torch.equal(after[name], expected)
    assert (delta.other_alpha, found.other_alpha) == (1, None)  # the checkpoint is not there
    with pytest.raises(ValueError, match="No parameter matches 'layer9'"):
        delta.frozen(of.space, "layer9")
    with pytest.raises(ValueError, match="norm zero"):
        delta.frozen(of.space, "*")


def test_direction_refuses_what_is_none():
    with pytest.raises(ValueError, match="norm zero"):
        Direction(torch.zeros(3), "test")
    with pytest.raises(ValueError, match="not finite"):
        Direction(torch.tensor([1.0, math.inf]), "test")
    with pytest.raises(ValueError, match=r"shape \(D,\), got \(2, 2\)"):
        Direction(torch.ones(2, 2), "test")
    for source in (Gradient, BestOfNGaussians):
        with pytest.raises(ValueError, match="must be positive"):
            source(0)


@pytest.mark.parametrize(
    ("fields", "record"),
    [
        ({}, {}),
        (
            {"scale": 0.5, "stretched": True, "other_alpha": -2.0, "metadata": {"curvature": 3.0}},
            {"scale": 0.5, "stretched": 1.0, "other_alpha": -2.0, "curvature": 3.0},
        ),
        ({"convergence": Convergence(True, 1e-6)}, {"converged": 1.0, "residual": 1e-6}),
        (
            {"convergence": Convergence(False, diverged_epoch=3), "loss_at_theta": 0.25},
            {"diverged_epoch": 3, "loss_at_theta": 0.25},
        ),
    ],
)
def test_what_is_known_of_a_direction_survives_the_disk(tmp_path, fields, record):
    of = landscape()
    direction = Direction(of.theta, "test", 2, **fields)
    assert direction.record() == record
    save_directions(tmp_path / "directions.pt", [direction], of)
    (found,) = load_directions(tmp_path / "directions.pt", of)
    assert torch.equal(found.vector, direction.vector)
    expected = dict(vars(direction)) | {"vector": None}
    assert vars(found) | {"vector": None} == expected
