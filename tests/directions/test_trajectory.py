"""Principal components of a path, against scikit-learn, and its projection."""

import pytest
import torch
from cases import build, landscape
from sklearn.decomposition import PCA

from mining import (
    Direction,
    Evaluator,
    Gaussian,
    InputError,
    Normalization,
    TrajectoryPCA,
    draw_surface,
    with_path,
)
from mining.directions.trajectory_pca import _components
from mining.evaluation.grid import Grid
from mining.evaluation.storage import load_surface, save_surface

GRID = Grid(num=3).alphas


def states(num=6, name="batchnorm", dtype=torch.float64):
    """Weights of independent networks, between which a path goes; the last is θ of the cases."""
    return [build(name, dtype, seed).state_dict() for seed in reversed(range(num))]


def components(of, source, num=2):
    return source.directions(of, num, generator=torch.Generator())


def matrix(of, given):
    return torch.stack([of.space.flatten({n: s[n] for n in of.space.names}) for s in given])


def test_components_are_those_of_scikit_learn():
    of, given = landscape("batchnorm"), states()
    found = components(of, TrajectoryPCA(given), 5)
    expected = PCA(5).fit(matrix(of, given).numpy())
    for number, direction in enumerate(found):
        unit = direction.vector / direction.vector.norm()
        overlap = float(unit @ torch.from_numpy(expected.components_[number]))
        assert abs(overlap) == pytest.approx(1, abs=1e-9)
        share = expected.explained_variance_ratio_[number]
        assert direction.metadata["explained_variance"] == pytest.approx(share, rel=1e-9)
        assert direction.source == f"PC{number + 1} ({share:.1%} of the variance)"
    assert sum(d.metadata["explained_variance"] for d in found) == pytest.approx(1, rel=1e-12)


def test_the_length_of_a_component_is_the_extent_of_the_path():
    of, given = landscape("batchnorm"), states()
    x, y = components(of, TrajectoryPCA(given))
    assert float(x.vector @ y.vector) == pytest.approx(0, abs=1e-9)
    for direction in (x, y):
        offsets = matrix(of, given) - of.theta
        along = offsets @ direction.vector / direction.vector.square().sum()
        assert float(along.abs().max()) == pytest.approx(1, rel=1e-12)
        assert float(along.max()) == pytest.approx(1, rel=1e-12)
        assert direction.metadata["extent"] == pytest.approx(float(direction.vector.norm()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("skew", [False, True])
def test_the_projection_of_a_path_in_the_plane_is_exact(dtype, skew):
    """Also for directions that are not orthogonal, or not of length one."""
    of = landscape("mlp")
    one, other = (
        Gaussian().directions(of, 1, generator=torch.Generator().manual_seed(n))[0].vector
        for n in (1, 2)
    )
    places = torch.tensor([[1.0, 0.2], [0.5, -0.7], [-0.3, 0.4], [0.0, 0.0]]).double()
    points = of.theta + places @ torch.stack([one, other])
    given = [of.space.unflatten(point.to(dtype)) for point in points]
    source = TrajectoryPCA(given, labels=["a", "b", "c", "d"])
    x, y = (
        components(of, source)
        if not skew
        else (Direction(one, "x"), Direction(5 * other + one, "y"))
    )
    plain = Evaluator(of, progress=False).surface(x, y, GRID, GRID)
    surface = with_path(plain, of.theta, x, y, source.waypoints(of))
    reached = of.theta + surface.path @ torch.stack([x.vector, y.vector])
    rounding = 1e-6 if dtype == torch.float32 else 1e-12
    torch.testing.assert_close(reached, points, rtol=0, atol=rounding * float(of.theta.norm()))
    assert float(surface.path_deviation.max()) < rounding
    assert surface.path_names == ("a", "b", "c", "d")
    if not skew:
        assert len(components(of, source)) == 2
        assert components(of, source)[1].metadata["explained_variance"] > 0.01


def test_points_off_the_plane_go_to_the_nearest_of_it():
    of, given = landscape("batchnorm"), states()
    source = TrajectoryPCA(given)
    x, y = components(of, source)
    plain = Evaluator(of, progress=False).surface(x, y, GRID, GRID)
    surface = with_path(plain, of.theta, x, y, source.waypoints(of))
    axes, offsets = torch.stack([x.vector, y.vector]).T, matrix(of, given) - of.theta
    best = torch.linalg.lstsq(axes, offsets.T).solution.T
    torch.testing.assert_close(surface.path, best, rtol=1e-9, atol=1e-12)
    rest = (offsets - surface.path @ axes.T).norm(dim=1)
    expected = rest / offsets.norm(dim=1).max()
    torch.testing.assert_close(surface.path_deviation, expected, rtol=1e-9, atol=1e-12)
    assert float(surface.path_deviation[-1]) == 0  # θ itself
    assert torch.equal(surface.loss, plain.loss)


def test_a_path_survives_the_disk_and_is_drawn_with_its_names(tmp_path):
    of, given = landscape("batchnorm"), states()
    source = TrajectoryPCA(given, [f"E={n}" for n in range(6)])
    x, y = components(of, source)
    surface = Evaluator(of, progress=False).surface(x, y, GRID, GRID)
    save_surface(tmp_path / "plain.npz", surface)
    assert load_surface(tmp_path / "plain.npz").path is None
    surface = with_path(surface, of.theta, x, y, source.waypoints(of))
    save_surface(tmp_path / "surface.npz", surface)
    again = load_surface(tmp_path / "surface.npz")
    assert again.path_names == surface.path_names
    assert torch.equal(again.path, surface.path)
    axes = draw_surface(again).axes[0]
    (line,) = [line for line in axes.get_lines() if line.get_label().startswith("path, ")]
    assert torch.equal(torch.from_numpy(line.get_xydata()), surface.path)
    assert {"E=0", "E=5"} <= {text.get_text() for text in axes.texts}
    assert "PC1 (" in axes.get_xlabel()
    assert "% of the variance)" in axes.get_ylabel()


def test_points_beyond_the_edge_are_counted():
    of, given = landscape("batchnorm"), states()
    source = TrajectoryPCA(given)
    x, y = components(of, source)
    near = Grid(low=-0.1, high=0.1, num=3).alphas
    surface = Evaluator(of, progress=False).surface(x, y, near, near)
    axes = draw_surface(with_path(surface, of.theta, x, y, source.waypoints(of))).axes[0]
    assert any("5 of 6 beyond the edge" in line.get_label() for line in axes.get_lines())
    assert axes.get_xlim() == (-0.1, 0.1)


def test_many_parameters_take_no_matrix_of_their_square():
    """Of 10⁶ parameters it would take 4 TB; the checkpoints take 48 MB."""
    points = torch.randn(12, 10**6, generator=torch.Generator().manual_seed(0))
    values, mixtures = _components(points)
    centred = points.double() - points.double().mean(0)
    squares = torch.linalg.svdvals(centred)[:11].square()
    torch.testing.assert_close(values, squares, rtol=1e-9, atol=0)
    vectors = mixtures.T @ centred
    identity = torch.eye(11, dtype=torch.float64)
    torch.testing.assert_close(vectors @ vectors.T, identity, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ["model", "layer", "filter", "weight"])
def test_components_are_normalized_as_other_directions_are(name):
    of, given = landscape("batchnorm"), states()
    plain, scaled = (components(of, TrajectoryPCA(given, normalization=n)) for n in ("none", name))
    for one, other in zip(scaled, plain, strict=True):
        expected = Normalization(name)(other.vector, of.theta, of.space)
        assert torch.equal(one.vector, expected)


@pytest.mark.parametrize("name", ["tied", "partly_used", "shared"])
def test_files_of_any_architecture_are_read(tmp_path, name):
    of, paths = landscape(name), []
    for number, state in enumerate(states(3, name)):
        paths.append(str(tmp_path / f"{number}.pt"))
        torch.save({"model": state}, paths[-1])
    found = components(of, TrajectoryPCA(paths))
    again = components(of, TrajectoryPCA([build(name, seed=seed) for seed in (2, 1, 0)]))
    for one, other in zip(found, again, strict=True):
        assert torch.equal(one.vector, other.vector)


def test_what_spans_no_plane_is_refused():
    of, given = landscape("batchnorm"), states()
    with pytest.raises(InputError, match="all the same point"):
        components(of, TrajectoryPCA([given[0]] * 3), 1)
    with pytest.raises(InputError, match="path of 2 checkpoints spans 1 dimensions"):
        components(of, TrajectoryPCA(given[:2]))
    with pytest.raises(InputError, match=r"direction.start must be at most 5"):
        components(of, TrajectoryPCA(given, start=6), 1)
    with pytest.raises(InputError, match="does not fit BatchNormNet"):
        components(of, TrajectoryPCA([build("mlp").state_dict()] * 2), 1)
    with pytest.raises(InputError, match="must be given"):
        components(of, TrajectoryPCA(), 1)
    for options, message in (
        ({"states": [given[0]]}, "at least two checkpoints"),
        ({"states": given[0]}, "at least two checkpoints"),
        ({"states": given, "labels": ["a"]}, "one for each of 6 states, got 1"),
        ({"start": 0}, "must be at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            TrajectoryPCA(**options)
    with pytest.raises(InputError, match="must differ from each other"):
        TrajectoryPCA(given[:2], ["a", "a"]).waypoints(of)
    x, y = components(of, TrajectoryPCA(given))
    surface = Evaluator(of, progress=False).surface(x, y, GRID, GRID)
    with pytest.raises(InputError, match="at least one point of a path"):
        with_path(surface, of.theta, x, y, {})
    with pytest.raises(InputError, match=r"E=1 must have shape"):
        with_path(surface, of.theta, x, y, {"E=1": torch.zeros(3)})
