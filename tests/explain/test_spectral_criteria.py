"""Criteria of spectra against the eigenvalues of dense matrices."""

import math
from dataclasses import replace

import pytest
import torch
from cases import landscape
from scipy.stats import t as student
from torch import Tensor

from mining import (
    InputError,
    Landscape,
    MatrixOperator,
    SpectralCriteria,
    SpectralDensity,
    SpectrumType,
    criteria_over_batches,
    eigenpairs,
    k_as_printed,
    k_hn,
    k_of_eigenvalues,
    make_dense,
    spectral_criteria,
    spectral_density,
)

SIZE = 200


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rotated(values: Tensor) -> Tensor:
    normal = torch.randn(len(values), len(values), generator=generator(), dtype=torch.float64)
    basis = torch.linalg.qr(normal).Q
    product = (basis * values.double()) @ basis.T
    return (product + product.T) / 2


def network_like(share: float = 0.3, size: int = SIZE) -> Tensor:
    """Ten large positive eigenvalues and a bulk near zero, a share of it negative."""
    normal = torch.randn(size - 10, generator=generator(1), dtype=torch.float64)
    negative = torch.rand(size - 10, generator=generator(2)) < share
    bulk = 0.05 * normal.abs() ** 3
    return torch.cat([torch.logspace(0, 2, 10).double(), torch.where(negative, -bulk, bulk)])


def criteria(values: Tensor) -> SpectralCriteria:
    return spectral_criteria(spectral_density(MatrixOperator(rotated(values)), 40, 8, generator()))


def test_a_symmetric_spectrum_has_ratios_of_one():
    half = torch.linspace(0.1, 3, 100).double()
    found = criteria(torch.cat([half, -half]))
    assert found.r_e.value == pytest.approx(1, abs=1e-3)
    assert found.c_t.value == pytest.approx(-1, abs=1e-3)
    for measured in (found.k_h05, found.k_h1):
        assert measured.value == pytest.approx(1, abs=3 * measured.error)
        assert measured.error < 0.15
    assert found.spectrum == SpectrumType.SYMMETRIC
    # Vectors that meet each pair ±λ alike: exactly 1.
    nodes = torch.tensor([[-2.0, -1.0, 1.0, 2.0]] * 2, dtype=torch.float64)
    weights = torch.full_like(nodes, 0.25)
    found = spectral_criteria(SpectralDensity(nodes, weights, 4, 8, exact=True))
    for measured in (found.r_e, found.k_h05, found.k_h1):
        assert (measured.value, measured.error) == (pytest.approx(1), pytest.approx(0))
    assert found.negative_share.value == pytest.approx(0.5)


def test_a_positive_spectrum_has_ratios_of_zero():
    found = criteria(torch.linspace(1, 3, 100).double())
    for measured in (found.r_e, found.k_h05, found.k_h1, found.negative_share):
        assert measured.value == 0
        assert measured.applies
    assert found.c_t.value == pytest.approx(1 / 3, abs=2 * found.c_t.error + 1e-9)
    assert found.spectrum == SpectrumType.MAINLY_POSITIVE


def test_without_positive_eigenvalues_there_are_no_ratios_and_it_is_said():
    found = criteria(-torch.linspace(1, 3, 100).double())
    assert found.spectrum == SpectrumType.MAINLY_NEGATIVE
    assert found.negative_share.value == 1
    for name in ("r_e", "k_h05", "k_h1", "c_t"):
        record = found.record()[name]
        assert record["value"] is None
        assert not record["applies"]
        assert "no eigenvalue is positive" in record["why"]


def test_a_zero_matrix_has_no_ratios():
    found = criteria(torch.zeros(20))
    assert found.spectrum == SpectrumType.QUASI_SINGULAR
    for measured in found.measurements().values():
        assert measured.value is None
        assert "zero up to rounding" in measured.why


def test_mainly_negative_spectra_keep_their_numbers_which_do_not_apply():
    values = network_like()
    found, mirrored = criteria(values), criteria(-values)
    assert found.spectrum == SpectrumType.MAINLY_POSITIVE
    assert found.k_h1.applies
    assert mirrored.spectrum == SpectrumType.MAINLY_NEGATIVE
    assert not mirrored.k_h1.applies
    assert "mainly negative" in mirrored.r_e.why
    assert mirrored.k_h1.value == pytest.approx(1 / found.k_h1.value)
    assert mirrored.r_e.value == pytest.approx(1 / found.r_e.value)


@pytest.mark.parametrize("n", [0.5, 1.0, 2.0])
def test_k_converges_to_its_exact_value(n):
    values = network_like(size=120)
    operator = MatrixOperator(rotated(values))
    exact = k_of_eigenvalues(values, n)
    errors = []
    for steps, probes in ((12, 8), (40, 16), (120, 32)):
        found = k_hn(spectral_density(operator, steps, probes, generator(4)), n)
        # A normal error exceeds three standard deviations in 0.3 % of all cases.
        assert found.value == pytest.approx(exact, abs=3 * found.error)
        errors.append(found.error)
    assert errors[2] < errors[1] < errors[0]
    assert errors[2] < 0.3 * exact


@pytest.mark.parametrize("steps", [5, 10, 20, 40])
def test_the_error_contains_that_of_few_steps(steps):
    values = network_like()
    exact = k_of_eigenvalues(values, 0.5)
    density = spectral_density(MatrixOperator(rotated(values)), steps, 32, generator(3))
    found = k_hn(density, 0.5)
    assert found.value == pytest.approx(exact, abs=2 * found.error)


@pytest.mark.parametrize("n", [0.5, 1.0])
def test_intervals_of_k_contain_its_exact_value_as_often_as_they_say(n):
    values = network_like(size=120)
    exact = k_of_eigenvalues(values, n)
    # All steps of Lanczos from a vector v give every eigenvalue, with weight (qᵀv)².
    basis = torch.linalg.qr(torch.randn(120, 120, generator=generator()).double()).Q
    repeats, probes, draws = 1000, 8, generator(9)
    bound = student.ppf(0.9, probes - 1)
    inside = 0
    for _ in range(repeats):
        vectors = torch.randint(2, (probes, 120), generator=draws).double() * 2 - 1
        weights = (vectors @ basis) ** 2 / 120
        density = SpectralDensity(values.expand(probes, -1), weights, 120, 960, exact=True)
        found = k_hn(density, n)
        inside += abs(found.value - exact) <= bound * found.error
    # Intervals of 80 %: 800 ± 13 of 1,000, and up to 4 % fewer as a ratio is skewed.
    assert 720 <= inside <= 840


def test_splitting_a_node_changes_nothing_but_the_printed_form():
    density = spectral_density(MatrixOperator(rotated(network_like())), 30, 8, generator())
    index = int(density.nodes[0].argmin())
    halves = density.weights.clone()
    halves[:, index] /= 2
    split = replace(
        density,
        nodes=torch.cat([density.nodes, density.nodes[:, index : index + 1]], 1),
        weights=torch.cat([halves, halves[:, index : index + 1]], 1),
    )
    for n in (0.5, 1.0):
        assert k_hn(split, n).value == pytest.approx(k_hn(density, n).value, rel=1e-12)
    assert spectral_criteria(split).r_e.value == spectral_criteria(density).r_e.value
    printed, printed_of_split = k_as_printed(density, 0.5), k_as_printed(split, 0.5)
    assert printed_of_split.value > 1.02 * printed.value
    assert not printed.applies
    # The printed form is linear as well for n = 1, except that it averages the ratios.
    assert k_as_printed(split, 1).value == pytest.approx(k_as_printed(density, 1).value)


def test_printed_form_of_nodes_by_hand():
    nodes = torch.tensor([[-4.0, 1.0, 9.0], [-1.0, 1.0, 4.0]]).double()
    weights = torch.tensor([[0.25, 0.5, 0.25], [0.25, 0.5, 0.25]]).double()
    density = SpectralDensity(nodes, weights, 3, 6)
    ratios = [1 / (math.sqrt(0.5) + 1.5), 0.5 / (math.sqrt(0.5) + 1)]
    found = k_as_printed(density, 0.5)
    assert found.value == pytest.approx(sum(ratios) / 2)
    assert found.error == pytest.approx(abs(ratios[0] - ratios[1]) / 2)


@pytest.mark.parametrize("steps", [2, 7, 20])
def test_a_coarser_density_is_that_of_fewer_steps(steps):
    operator = MatrixOperator(rotated(network_like()))
    whole = spectral_density(operator, 40, 3, generator(7))
    fewer = spectral_density(operator, steps, 3, generator(7))
    found = whole.coarser(steps)
    torch.testing.assert_close(found.nodes, fewer.nodes, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(found.weights, fewer.weights, rtol=1e-6, atol=1e-10)
    with pytest.raises(InputError, match="between 1 and 40"):
        whole.coarser(41)


def test_rounding_noise_does_not_count():
    """Of a matrix of rank 20 in single precision, zero eigenvalues come out as ±1e-6."""
    values = torch.cat([network_like(size=30)[:20], torch.zeros(180).double()])
    values[10:20] = -values[10:20].abs() - 0.2
    single = rotated(values).float()
    dense = torch.linalg.eigvalsh(single)
    assert 0 < float(dense.abs().sort().values[150]) < 1e-4
    density = spectral_density(MatrixOperator(single), 60, 32, generator())
    assert density.rounding > float(dense.abs().sort().values[150])
    for n in (0.5, 0.1):
        found = k_hn(density, n)
        exact = k_of_eigenvalues(values, n)
        assert found.value == pytest.approx(exact, abs=3 * found.error)
        assert found.error < 0.3 * exact
        assert k_of_eigenvalues(dense, n, density.rounding) == pytest.approx(exact, rel=1e-3)
    hidden = k_of_eigenvalues(dense, 0.1)
    assert abs(hidden - k_of_eigenvalues(values, 0.1)) > 0.1 * hidden


def test_what_rounding_could_hide_makes_a_spectrum_quasi_singular():
    diagonal = torch.cat([torch.tensor([1.0]), 1e-8 * torch.randn(1999, generator=generator())])
    found, in_double = (
        spectral_criteria(spectral_density(MatrixOperator(matrix), 20, 4, generator()))
        for matrix in (diagonal.diag(), diagonal.double().diag())
    )
    assert in_double.spectrum == SpectrumType.MAINLY_POSITIVE
    assert found.spectrum == SpectrumType.QUASI_SINGULAR
    assert not found.k_h05.applies
    assert "float64" in found.k_h05.why


def test_extremes_of_eigenpairs_replace_the_nodes_inside_of_them():
    bulk = torch.linspace(-0.5, 3, SIZE - 1, dtype=torch.float64)
    values = torch.cat([bulk, torch.tensor([-0.51], dtype=torch.float64)])
    operator = MatrixOperator(rotated(values))
    density = spectral_density(operator, 12, 4, generator())
    assert density.low > -0.505
    rough = spectral_criteria(density)
    assert rough.r_e.value == pytest.approx(0.51 / 3, abs=2 * rough.r_e.error)
    pairs = eigenpairs(operator, 1, "both", tol=1e-8, generator=generator())
    found = spectral_criteria(density, pairs.values, pairs.residuals)
    assert found.r_e.value == pytest.approx(0.51 / 3, abs=found.r_e.error)
    assert found.r_e.error < 1e-7
    # Pairs of one end leave the other end to the nodes.
    largest = eigenpairs(operator, 2, "largest", tol=1e-8, generator=generator())
    found = spectral_criteria(density, largest.values, largest.residuals)
    assert found.r_e.value == pytest.approx(-density.low / 3, rel=1e-7)
    with pytest.raises(InputError, match="both or neither"):
        spectral_criteria(density, pairs.values)


@pytest.mark.parametrize("name", ["batchnorm", "tied", "attention"])
def test_criteria_of_networks_agree_with_the_dense_matrix(name):
    of = landscape(name)
    dense = torch.linalg.eigvalsh(make_dense(of.hessian()))
    found = spectral_criteria(spectral_density(of.hessian(), 60, 16, generator()))
    zero = 1e-12 * float(dense.abs().max())
    for measured, n in ((found.k_h05, 0.5), (found.k_h1, 1.0)):
        exact = k_of_eigenvalues(dense, n, zero)
        assert measured.value == pytest.approx(exact, abs=3.5 * measured.error)
        assert measured.error < 0.5 * exact
    exact = float(-dense[0] / dense[-1])
    assert found.r_e.value == pytest.approx(exact, abs=2 * found.r_e.error + 1e-6 * exact)


def test_scaling_the_loss_changes_no_criterion():
    matrix = rotated(network_like())
    found, same = (
        spectral_criteria(spectral_density(MatrixOperator(m), 40, 8, generator())).record()
        for m in (matrix, 1e-9 * matrix)
    )
    for name in ("r_e", "k_h05", "k_h1", "c_t"):
        assert same[name]["value"] == pytest.approx(found[name]["value"], rel=1e-6)
        assert same[name]["error"] == pytest.approx(found[name]["error"], rel=1e-3)


def test_error_over_batches_is_their_spread():
    model = torch.nn.Linear(4, 3).double()
    inputs = torch.randn(5, 30, 4, generator=generator(), dtype=torch.float64)
    targets = torch.randint(3, (5, 30), generator=generator())
    landscapes = [
        Landscape(model, torch.nn.CrossEntropyLoss(), [batch])
        for batch in zip(inputs, targets, strict=True)
    ]
    found = criteria_over_batches(landscapes, 15, 4, generator(1))
    each = []
    for of in landscapes:
        values = torch.linalg.eigvalsh(make_dense(of.hessian()))
        each.append(float(values[0] / values[-1]))
    samples = torch.tensor(each, dtype=torch.float64)
    # The Hessian of a linear model has no negative eigenvalue; its three zero ones are rounding.
    assert found["k_h1"].value == 0
    assert found["r_e"].value == 0
    assert found["c_t"].value == pytest.approx(float(samples.mean()), abs=1e-9)
    with pytest.raises(InputError, match="at least 2"):
        criteria_over_batches(landscapes[:1])


def test_error_over_batches_of_a_network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
    batches = [
        (
            torch.randn(20, 4, generator=generator(i)).double(),
            torch.randint(2, (20,), generator=generator(i)),
        )
        for i in range(4)
    ]
    landscapes = [
        Landscape(model.double(), torch.nn.CrossEntropyLoss(), [batch]) for batch in batches
    ]
    found = criteria_over_batches(landscapes, 37, 32, generator(1))["k_h1"]
    each = [
        k_of_eigenvalues(torch.linalg.eigvalsh(make_dense(of.hessian())), 1, 1e-12)
        for of in landscapes
    ]
    samples = torch.tensor(each, dtype=torch.float64)
    assert found.value == pytest.approx(float(samples.mean()), abs=3 * found.error)
    # Most of the spread is of the batches: the vectors add what 32 of them leave.
    assert found.error == pytest.approx(float(samples.std()) / 2, rel=0.5)


def test_powers_must_be_positive():
    density = spectral_density(MatrixOperator(rotated(torch.ones(4))), 2, 2, generator())
    for compute in (k_hn, k_as_printed):
        with pytest.raises(InputError, match="n must be a positive number, got 0"):
            compute(density, 0)
