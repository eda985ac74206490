"""Eigenpairs against those of a dense solver, float64 on the CPU."""

import logging

import pytest
import torch
from cases import landscape
from torch import Tensor

from mining import MatrixOperator, eigenpairs, make_dense
from mining.curvature.krylov import KrylovSpace, RitzPairs
from mining.curvature.ritz import wanted_indices
from mining.functional.random_vectors import standard_normal

ENDS = ["largest", "smallest", "both", "magnitude"]
#: An eigenvalue is off by the square of its vector's residual 1e-9: rounding is what remains.
EXACT = 1e-8
OUTLIERS = [60.0, 31.0, 30.0, 12.0, 7.0, -5.0, -4.0, -3.0]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def matrix(values: Tensor, seed: int = 0) -> Tensor:
    """A symmetric matrix with the given eigenvalues and random eigenvectors."""
    normal = torch.randn(len(values), len(values), generator=generator(seed), dtype=torch.float64)
    basis = torch.linalg.qr(normal).Q
    product = (basis * values) @ basis.T
    return (product + product.T) / 2


def spectrum_with_outliers(size: int = 200) -> Tensor:
    bulk = 0.1 * torch.randn(size - len(OUTLIERS), generator=generator(1), dtype=torch.float64)
    return torch.cat([torch.tensor(OUTLIERS, dtype=torch.float64), bulk])


def assert_true_pairs(found, dense: Tensor, k: int, which: str) -> None:
    """Compare with the dense solver, and measure residuals anew."""
    exact = torch.linalg.eigvalsh(dense)
    exact = exact[wanted_indices(exact, k, which)]
    torch.testing.assert_close(found.values, exact, rtol=EXACT, atol=EXACT)
    identity = torch.eye(len(exact), dtype=torch.float64)
    torch.testing.assert_close(found.vectors.T @ found.vectors, identity, rtol=0, atol=EXACT)
    residuals = (dense @ found.vectors - found.vectors * found.values).norm(dim=0)
    # Reported residuals are bounds, which rounding makes no smaller than the true ones.
    assert (found.residuals >= 0.99 * residuals - 1e-12).all()
    assert (found.residuals <= 1.01 * residuals + 1e-10).all()
    assert found.converged.all()


@pytest.mark.parametrize("which", ENDS)
@pytest.mark.parametrize("method", ["lanczos", "eigsh"])
@pytest.mark.parametrize("k", [1, 3])
def test_outliers_beside_a_bulk(which, method, k):
    dense = matrix(spectrum_with_outliers())
    found = eigenpairs(
        MatrixOperator(dense), k, which, method, 1e-9, generator=generator(), max_products=3000
    )
    assert_true_pairs(found, dense, k, which)


@pytest.mark.parametrize("method", ["lanczos", "power"])
def test_what_has_not_converged_is_not_the_gaussian_of_the_same_seed(method):
    bulk = torch.linspace(0, 1, 3000, dtype=torch.float64)
    found = eigenpairs(
        MatrixOperator(torch.diag(bulk)), 5, "largest", method, 1e-9, generator(), max_products=20
    )
    assert not found.converged.any()
    gaussian = standard_normal(3000, generator()).double()
    overlaps = found.vectors.T @ gaussian / gaussian.norm()
    assert overlaps.abs().max() < 4 / 3000**0.5


@pytest.mark.parametrize("which", ENDS)
def test_power_iteration_finds_them_less_exactly(which):
    dense = matrix(torch.tensor([9.0, 5.0, 2.0, 0.1, 0.0, -0.2, -3.0, -7.0], dtype=torch.float64))
    found = eigenpairs(
        MatrixOperator(dense), 2, which, "power", 1e-4, generator=generator(), max_products=5000
    )
    exact = torch.linalg.eigvalsh(dense)
    exact = exact[wanted_indices(exact, 2, which)]
    # The error of a value is the square of the residual 1e-4 |λ| over the gap.
    torch.testing.assert_close(found.values, exact, rtol=1e-6, atol=1e-6)
    residuals = (dense @ found.vectors - found.vectors * found.values).norm(dim=0)
    torch.testing.assert_close(found.residuals, residuals, rtol=1e-6, atol=1e-12)
    assert found.converged.all()


@pytest.mark.parametrize("which", ENDS)
def test_restarts_in_few_vectors_find_the_same(which):
    dense = matrix(spectrum_with_outliers())
    found = eigenpairs(
        MatrixOperator(dense),
        2,
        which,
        tol=1e-9,
        generator=generator(),
        max_vectors=9,
        max_products=3000,
    )
    assert_true_pairs(found, dense, 2, which)


SPECTRA = {
    "clustered": torch.cat(
        [1 - torch.tensor([0, 1e-6, 1e-9, 0, 0]), torch.linspace(-0.5, 0.9, 95)]
    ).double(),
    "rank five, one value": torch.tensor([10.0] * 5 + [0.0] * 95).double(),
    "rank five, five values": torch.tensor([10.0, 8, 4, -2, -6] + [0.0] * 95).double(),
    "zero": torch.zeros(40).double(),
    "identity": torch.ones(30).double(),
    "one entry": torch.tensor([-3.0]).double(),
    "all negative": -torch.linspace(1, 2, 50).double(),
}


@pytest.mark.parametrize("which", ENDS)
@pytest.mark.parametrize("name", SPECTRA)
@pytest.mark.parametrize("k", [1, 4, 7])
def test_no_ghosts_and_none_missing(name, which, k):
    dense = matrix(SPECTRA[name])
    if (2 * k if which == "both" else k) > len(dense):
        pytest.skip("more than there are")
    found = eigenpairs(
        MatrixOperator(dense), k, which, tol=1e-10, generator=generator(), max_products=3000
    )
    assert_true_pairs(found, dense, k, which)


@pytest.mark.parametrize(
    ("which", "wanted"),
    [
        ("largest", [10, 8, 8, 8]),
        ("smallest", [-6, -4, -4, -4]),
        ("both", [10, 8, 8, 8, -6, -4, -4, -4]),
        ("magnitude", [10, 8, 8, 8]),
    ],
)
def test_repeated_eigenvalues_behind_a_single_one_are_found(which, wanted):
    outliers = torch.tensor([10, 8, 8, 8, 6, 5, -2.5, -3, -4, -4, -4, -6]).double()
    dense = matrix(torch.cat([outliers, torch.linspace(-1, 1, 88).double()]))
    found = eigenpairs(MatrixOperator(dense), 4, which, tol=1e-9, generator=generator())
    # An eigenvalue is off by no more than the residual of its vector.
    torch.testing.assert_close(found.values, torch.tensor(wanted).double(), rtol=1e-8, atol=0)
    assert found.verified


@pytest.mark.parametrize("k", [17, 19, 20])
@pytest.mark.parametrize("which", ["largest", "smallest", "magnitude"])
def test_nearly_all_pairs(k, which):
    dense = matrix(torch.randn(20, generator=generator(2), dtype=torch.float64))
    found = eigenpairs(MatrixOperator(dense), k, which, tol=1e-9, generator=generator())
    assert_true_pairs(found, dense, k, which)


def test_all_pairs_from_both_ends():
    dense = matrix(torch.randn(20, generator=generator(2), dtype=torch.float64))
    found = eigenpairs(MatrixOperator(dense), 10, "both", tol=1e-9, generator=generator())
    assert_true_pairs(found, dense, 10, "both")


@pytest.mark.parametrize("method", ["lanczos", "eigsh", "power"])
@pytest.mark.parametrize("name", ["batchnorm", "attention", "tied"])
def test_pairs_of_a_network(name, method):
    operator = landscape(name).hessian()
    dense = make_dense(operator)
    tol = 1e-3 if method == "power" else 1e-9
    found = eigenpairs(operator, 3, "largest", method, tol, generator=generator())
    if method == "power":
        exact = torch.linalg.eigvalsh(dense).flip(0)[:3]
        torch.testing.assert_close(found.values, exact, rtol=1e-3, atol=0)
    else:
        assert_true_pairs(found, dense, 3, "largest")


def test_vectors_of_chosen_layers_have_their_length():
    of = landscape("batchnorm")
    operator = of.hessian(parameters="conv")
    found = eigenpairs(operator, 2, "both", tol=1e-9, generator=generator())
    assert found.vectors.shape == (40, 4)
    assert_true_pairs(found, make_dense(operator), 2, "both")


def test_residuals_beside_inexact_locked_vectors_are_the_true_ones():
    """What all products lose along one locked vector adds up, and not in squares."""
    dense = matrix(torch.linspace(-1, 3, 60).double())
    _, vectors = torch.linalg.eigh(dense)
    noise = 1e-3 * torch.randn(60, 2, generator=generator(), dtype=torch.float64)
    inexact, _ = torch.linalg.qr(vectors[:, -2:] + noise)
    locked = RitzPairs(torch.tensor([2.9, 3.0]).double(), inexact, torch.zeros(2).double(), 3.0)
    space = KrylovSpace(MatrixOperator(dense), 20, generator(), locked=locked)
    for _ in range(12):
        space.expand()
    _, ritz, _ = space.ritz_pairs()
    space.restart(ritz[:, -6:])  # what was lost before is not forgotten
    for _ in range(4):
        space.expand()
    values, ritz, residuals = space.ritz_pairs()
    lifted = space.lift(ritz)
    true = torch.linalg.vector_norm(dense @ lifted - lifted * values, dim=0)
    torch.testing.assert_close(residuals, true, rtol=1e-9, atol=1e-12)


def test_both_ends_come_out_of_one_space():
    operator = MatrixOperator(matrix(spectrum_with_outliers()))
    one = {
        which: eigenpairs(operator, 3, which, generator=generator(), verify=False).products
        for which in ("largest", "smallest", "both")
    }
    assert one["both"] <= max(one["largest"], one["smallest"]) + 2


def test_small_eigenvalues_are_as_exact_as_large_ones():
    values = torch.cat([torch.tensor([1e4, -1e-2]), 1e-4 * torch.rand(98, generator=generator())])
    dense = matrix(values.double())
    found = eigenpairs(MatrixOperator(dense), 1, "smallest", generator=generator())
    assert found.residuals[0] <= 1e-3 * 1e-2
    assert found.values[0] == pytest.approx(-1e-2, rel=1e-5)


def test_same_seed_gives_the_same_pairs():
    operator = MatrixOperator(matrix(spectrum_with_outliers()))
    first, again = (eigenpairs(operator, 3, generator=generator(7)) for _ in range(2))
    assert torch.equal(first.values, again.values)
    assert torch.equal(first.vectors, again.vectors)


@pytest.mark.parametrize("method", ["lanczos", "power"])
def test_what_did_not_converge_is_said_and_returned(method, caplog):
    operator = MatrixOperator(matrix(torch.linspace(0, 1, 300, dtype=torch.float64)))
    with caplog.at_level(logging.WARNING):
        found = eigenpairs(operator, 2, "largest", method, generator=generator(), max_products=8)
    assert len(found) == 2
    assert not found.converged.all()
    residuals = (operator @ found.vectors - found.vectors * found.values).norm(dim=0)
    torch.testing.assert_close(found.residuals, residuals, rtol=1e-6, atol=1e-12)
    assert "converged" in caplog.text


def test_what_eigsh_did_not_find_is_missing(caplog):
    operator = MatrixOperator(matrix(torch.linspace(0, 1, 300, dtype=torch.float64)))
    with caplog.at_level(logging.WARNING):
        found = eigenpairs(operator, 8, method="eigsh", generator=generator(), max_products=30)
    assert len(found) < 8
    assert "of 8 eigenpairs converged" in caplog.text


def test_without_a_generator_the_start_is_always_the_same():
    operator = MatrixOperator(matrix(spectrum_with_outliers()))
    first = eigenpairs(operator, 3, "largest", "lanczos", 1e-3)
    again = eigenpairs(operator, 3, "largest", "lanczos", 1e-3, generator(0))
    assert torch.equal(first.vectors, again.vectors)


def test_products_are_counted():
    operator = MatrixOperator(matrix(spectrum_with_outliers()))
    operator @ torch.zeros(200, dtype=torch.float64)
    found = eigenpairs(operator, generator=generator())
    assert found.products == operator.products - 1


@pytest.mark.parametrize("method", ["lanczos", "eigsh", "power"])
def test_operator_that_is_not_symmetric_is_refused(method):
    lopsided = torch.randn(30, 30, generator=generator(), dtype=torch.float64)
    with pytest.raises(ValueError, match="not symmetric"):
        eigenpairs(MatrixOperator(lopsided), 2, method=method, generator=generator())


def test_product_that_is_not_finite_is_said():
    broken = torch.full((5, 5), torch.inf, dtype=torch.float64)
    with pytest.raises(ArithmeticError, match="not finite"):
        eigenpairs(MatrixOperator(broken), generator=generator())


def test_zero_operator_is_beyond_arpack():
    with pytest.raises(ArithmeticError, match="method=lanczos"):
        eigenpairs(MatrixOperator(torch.zeros(30, 30)), method="eigsh", generator=generator())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be between 1 and 20"),
        ({"k": 21}, "k must be between 1 and 20"),
        ({"k": 11, "which": "both"}, "k must be between 1 and 10 for which=both"),
        ({"which": "top"}, "which must be one of"),
        ({"method": "qr"}, "method must be one of"),
        ({"tol": 0.0}, "tol must be between 0 and 1"),
        ({"max_products": 0}, "max_products must be at least 1"),
        ({"max_products": 4, "method": "power"}, "max_products must be at least 5 for power"),
        ({"k": 5, "max_vectors": 6}, "max_vectors must be at least 7"),
        ({"k": 20, "method": "eigsh"}, "fewer than all"),
    ],
)
def test_bad_options_are_refused(options, message):
    operator = MatrixOperator(matrix(torch.linspace(0, 1, 20, dtype=torch.float64)))
    with pytest.raises(ValueError, match=message):
        eigenpairs(operator, **{"k": 1, **options}, generator=generator())


def test_vectors_that_do_not_fit_are_refused_with_what_would(monkeypatch):
    operator = MatrixOperator(matrix(spectrum_with_outliers()))
    monkeypatch.setattr("mining.functional.memory.available_memory", lambda device: 20 * 200 * 8)
    monkeypatch.setattr("mining.curvature.krylov.available_memory", lambda device: 20 * 200 * 8)
    with pytest.raises(MemoryError, match="max_vectors=17 would fit"):
        eigenpairs(operator, 2, max_vectors=100, generator=generator())
    eigenpairs(operator, 2, max_vectors=17, generator=generator())


@pytest.mark.parametrize("highest", [3e2, 3e3, 1e4])
def test_fp32_says_no_more_than_it_knows(highest):
    """A large eigenvalue beside a small bulk, whose products are rounded to the large one."""
    bulk = torch.rand(399, generator=generator(), dtype=torch.float64) * 0.07 - 0.05
    dense = matrix(torch.cat([torch.tensor([highest]).double(), bulk])).float()
    found = eigenpairs(MatrixOperator(dense), 1, "smallest", generator=generator())
    wide = dense.double()
    vector = found.vectors[:, 0].double()
    residual = float((wide @ vector - found.values[0] * vector).norm())
    rounding = 30 * torch.finfo(torch.float32).eps * highest
    assert residual <= 2 * float(found.residuals[0]) + rounding
    if found.converged[0]:
        exact = float(torch.linalg.eigvalsh(wide)[0])
        assert float(found.values[0]) == pytest.approx(exact, abs=2 * rounding + 1e-5)


def test_search_for_repeated_eigenvalues_that_was_cut_short_is_said(caplog):
    values = torch.cat([torch.full((5,), 10.0), torch.linspace(1, 2, 95)]).double()
    operator = MatrixOperator(matrix(values))
    with caplog.at_level(logging.WARNING):
        found = eigenpairs(operator, 4, generator=generator(), max_products=20)
    assert not found.verified
    assert "some may be missing" in caplog.text
    whole = eigenpairs(operator, 4, tol=1e-9, generator=generator())
    assert whole.verified
    torch.testing.assert_close(whole.values, torch.full((4,), 10.0).double())


@pytest.mark.parametrize("method", ["lanczos", "eigsh", "power"])
@pytest.mark.parametrize("max_products", [15, 40])
def test_no_more_products_than_allowed(method, max_products):
    operator = MatrixOperator(matrix(spectrum_with_outliers()))
    found = eigenpairs(
        operator, 3, "largest", method, 1e-9, generator=generator(), max_products=max_products
    )
    # ARPACK finishes the restart that it has begun.
    assert found.products <= max_products + (25 if method == "eigsh" else 0)


@pytest.mark.parametrize("method", ["lanczos", "eigsh", "power"])
def test_largest_magnitude_is_that_of_the_operator(method):
    operator = MatrixOperator(matrix(spectrum_with_outliers()))
    found = eigenpairs(
        operator, 1, "smallest", method, 1e-2, generator=generator(), max_products=500
    )
    assert 20 < found.largest_magnitude <= 60.0001


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("method", ["lanczos", "eigsh", "power"])
def test_pairs_on_a_gpu_are_those_on_the_cpu(method):
    dense = matrix(spectrum_with_outliers())
    options = {"k": 2, "which": "both", "method": method, "tol": 1e-3, "max_products": 3000}
    expected = eigenpairs(MatrixOperator(dense), **options, generator=generator())
    found = eigenpairs(MatrixOperator(dense.cuda()), **options, generator=generator())
    assert found.vectors.is_cuda
    torch.testing.assert_close(found.values, expected.values, rtol=1e-5, atol=0)
