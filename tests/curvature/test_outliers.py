"""Outliers of planted spectra, and distances between densities that are known."""

import math

import pytest
import torch

from mining import InputError, MatrixOperator, eigenpairs, spectral_density
from mining.curvature.density import SpectralDensity
from mining.curvature.distances import spectral_distances
from mining.curvature.outliers import count_outliers

DTYPE = torch.float64


def planted(spikes, size=200, seed=0):
    """A Wishart bulk with an edge near 2.1, and spikes orthogonal to nothing in particular."""
    generator = torch.Generator().manual_seed(seed)
    data = torch.randn(size, 1000, generator=generator, dtype=DTYPE)
    basis, _ = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=DTYPE))
    values = torch.zeros(size, dtype=DTYPE)
    values[: len(spikes)] = torch.tensor(spikes, dtype=DTYPE)
    return data @ data.T / 1000 + basis @ torch.diag(values) @ basis.T


@pytest.mark.parametrize("spikes", [[], [9.0], [9.0, 8.0, 12.0], list(range(8, 17))])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_planted_outliers_are_counted(spikes, seed):
    operator = MatrixOperator(planted(spikes, seed=seed))
    found = eigenpairs(operator, 20, tol=1e-3)
    outliers = count_outliers(found.values, found.residuals)
    assert outliers.count == len(spikes)
    edge = torch.linalg.eigvalsh(planted(spikes, seed=seed)).flip(0)[len(spikes)]
    assert outliers.edge == pytest.approx(float(edge), rel=1e-3)


def test_all_eigenvalues_of_a_matrix_of_low_rank_stand_apart():
    values = torch.tensor([5.0, 3.0, 1.0, 1e-9, 0.0], dtype=DTYPE)
    assert count_outliers(values, torch.zeros(5), zero=1e-8).count == 3


def test_errors_as_large_as_the_gap_leave_no_count():
    values = torch.tensor([5.0, 4.0, 1.0, 0.9], dtype=DTYPE)
    errors = torch.tensor([0.1, 2.0, 1.5, 0.1])
    assert count_outliers(values, errors).count is None
    with pytest.raises(InputError, match="descending"):
        count_outliers(values.flip(0), errors)


def of(values, weights=None, num_probes=2):
    """The density of a few eigenvalues, the same for every random vector."""
    nodes = torch.tensor(values, dtype=DTYPE).expand(num_probes, -1)
    shares = torch.ones_like(nodes) if weights is None else torch.tensor(weights, dtype=DTYPE)
    shares = (shares / shares.sum(-1, keepdim=True)).expand(num_probes, -1)
    return SpectralDensity(nodes, shares, 100, 0)


def test_a_shifted_spectrum_is_as_far_away_as_it_is_shifted():
    found = spectral_distances(of([1.0, 2.0, 4.0]), of([1.5, 2.5, 4.5]))
    assert found.wasserstein == pytest.approx(0.5)
    expected = abs(1 / 4 - 1.5 / 4.5) + abs(2 / 4 - 2.5 / 4.5)
    assert found.normalized_wasserstein == pytest.approx(expected / 3)


def test_distances_do_not_depend_on_the_scales_of_the_operators():
    first, second = of([-1.0, 0.0, 3.0]), of([0.0, 0.5, 2.0])
    scaled = spectral_distances(of([-7.0, 0.0, 21.0]), second)
    plain = spectral_distances(first, second)
    assert scaled.normalized_wasserstein == pytest.approx(plain.normalized_wasserstein)
    assert scaled.jensen_shannon == pytest.approx(plain.jensen_shannon)
    assert scaled.kullback_leibler == pytest.approx(plain.kullback_leibler)
    assert scaled.wasserstein > plain.wasserstein


def test_divergences_of_two_normal_densities_are_their_closed_forms():
    """Of N(m, s²) from N(n, s²): (m - n)² / 2s². The Wasserstein distance does not see s."""
    first, second = of([0.9, 1.0], [1.0, 0.0]), of([0.8, 1.0], [1.0, 0.0])
    found = spectral_distances(first, second, width=0.05)
    assert found.kullback_leibler == pytest.approx(0.1**2 / (2 * 0.05**2), rel=1e-6)
    assert found.wasserstein == pytest.approx(0.1)


def test_divergences_of_the_same_and_of_disjoint_densities():
    same = spectral_distances(of([1.0, 2.0]), of([1.0, 2.0]))
    assert same.jensen_shannon == pytest.approx(0, abs=1e-12)
    assert same.kullback_leibler == pytest.approx(0, abs=1e-12)
    assert same.wasserstein == 0
    apart = spectral_distances(of([1.0, 1.0]), of([-1.0, -1.0]), width=0.01)
    assert apart.jensen_shannon == pytest.approx(math.log(2))
    assert apart.normalized_wasserstein == pytest.approx(2)
    assert apart.kullback_leibler > 100


def test_distances_of_estimated_densities_are_near_those_of_the_eigenvalues():
    matrices = planted([9.0]), planted([5.0, 7.0], seed=3)
    exact = [of(torch.linalg.eigvalsh(matrix).tolist()) for matrix in matrices]
    estimated = [
        spectral_density(MatrixOperator(matrix), 60, 16, torch.Generator().manual_seed(4))
        for matrix in matrices
    ]
    found, expected = spectral_distances(*estimated), spectral_distances(*exact)
    assert found.wasserstein == pytest.approx(expected.wasserstein, abs=0.05)
    assert found.normalized_wasserstein == pytest.approx(expected.normalized_wasserstein, abs=0.01)
