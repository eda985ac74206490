"""Trace estimates against the trace of the dense matrix."""

import logging
import math
import sys

import pytest
import torch
from cases import landscape
from scipy.stats import norm, sem, skew
from scipy.stats import t as student
from torch import Tensor

from mining import InputError, MatrixOperator, make_dense, trace
from mining.curvature.trace import _skewness_factor
from mining.curvature.xtrace import exchangeable_estimates, jackknife_factor

METHODS = ["hutchinson", "hutch++", "xtrace"]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rotated(values: Tensor) -> Tensor:
    """A symmetric matrix with the given eigenvalues and random eigenvectors."""
    size = len(values)
    normal = torch.randn(size, size, generator=generator(), dtype=torch.float64)
    basis = torch.linalg.qr(normal).Q
    product = (basis * values) @ basis.T
    return (product + product.T) / 2


def outliers_and_bulk(size: int = 200) -> Tensor:
    """The spectrum of a trained network in small."""
    values = 0.1 * torch.randn(size, generator=generator(1), dtype=torch.float64)
    values[:8] = torch.tensor([60.0, 31.0, 30.0, 12.0, 7.0, -5.0, -4.0, -3.0])
    return rotated(values)


SPECTRA = {
    "outliers": outliers_and_bulk(),
    "slow decay": rotated(torch.arange(1, 201, dtype=torch.float64) ** -0.7),
    "fast decay": rotated(0.9 ** torch.arange(200, dtype=torch.float64)),
    "flat": rotated(torch.rand(200, generator=generator(2), dtype=torch.float64)),
}


@pytest.mark.parametrize("distribution", ["rademacher", "gaussian"])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("spectrum", SPECTRA)
def test_error_bar_is_honest(spectrum, method, distribution):
    dense = SPECTRA[spectrum]
    found = [
        trace(
            MatrixOperator(dense),
            method,
            distribution=distribution,
            num_products=48,
            generator=generator(seed),
        )
        for seed in range(150)
    ]
    deviations = torch.tensor([(f.mean - float(dense.trace())) / f.standard_error for f in found])
    # Student's t with 15 to 47 degrees of freedom: 95 % lie within 2.1 standard errors. Of 150
    # draws 88 % do unless something is wrong (four standard deviations of the count are 7 %).
    assert (deviations.abs() < 2.1).double().mean() > 0.88
    # Of 150 draws the mean of the deviations has a standard deviation of 0.08.
    assert abs(float(deviations.mean())) < 0.33
    # The jackknife of xtrace errs upwards.
    assert (0.3 if method == "xtrace" else 0.8) < float(deviations.std()) < 1.3


def centred(size: int = 60) -> Tensor:
    """Eigenvalues of both signs whose sum is a thousandth of their size."""
    values = torch.randn(size, generator=generator(3), dtype=torch.float64)
    return values - values.mean() + 0.001


#: Matrices whose trace is hard to estimate in one way or another.
KNOWN = {
    "decaying": rotated(torch.arange(1, 61, dtype=torch.float64) ** -1.0),
    "flat": rotated(1 + torch.rand(60, generator=generator(2), dtype=torch.float64)),
    "trace near zero": rotated(centred()),
    "outliers": outliers_and_bulk(60),
    "low rank": rotated(torch.tensor([3.0, 2.0, 1.0] + [0.0] * 57, dtype=torch.float64)),
    "diagonal": torch.diag(torch.arange(1.0, 61.0).double()),
    "small": rotated(torch.tensor([5, 2, 1, -0.5, 0.1, 3, 1, 1], dtype=torch.float64)),
}
DRAWS = 30


@pytest.mark.parametrize("relative_error", [None, 0.2])
@pytest.mark.parametrize("method", METHODS)
def test_confidence_by_simulation(method, relative_error):
    """Intervals of 95 % contain the trace: after a fixed number of products, and when stopped.

    Their number is binomial. If each contained it with a probability of 95 %, fewer than 21 of 30
    would once in 10⁵ times, and fewer than 91 % of all 420 once in 5,000 times. Skewed samples of
    a fixed number cost a little: in 4,000 draws each of six matrices, the intervals of 48 samples
    of Hutchinson's estimator contained the trace in 92.3 % to 95.8 % of them. At the other end,
    those of xtrace are too wide, and Rademacher vectors are exact for a diagonal matrix.
    """
    inside = {}
    for number, (name, dense) in enumerate(KNOWN.items()):
        exact, rounding = float(dense.trace()), 1e-9 * float(dense.abs().sum())
        for distribution in ("rademacher", "gaussian"):
            count = 0
            for draw in range(DRAWS):
                found = trace(
                    MatrixOperator(dense),
                    method,
                    generator(1000 * number + draw),
                    distribution=distribution,
                    num_products=48 if relative_error is None else 200,
                    relative_error=relative_error,
                )
                half = float(student.ppf(0.975, len(found.samples) - 1)) * found.standard_error
                if relative_error is not None and found.converged:
                    half = relative_error * abs(exact)
                count += abs(found.mean - exact) <= half + rounding
            inside[name, distribution] = count / DRAWS
    assert min(inside.values()) >= 21 / 30, inside
    mean = sum(inside.values()) / len(inside)
    assert mean >= 0.91, inside
    if method == "hutchinson" and relative_error is None:
        assert inside["diagonal", "rademacher"] == 1
        assert mean < 0.99, inside


def test_stopping_knows_that_samples_are_skewed():
    """A single eigenvalue: squares of normal numbers, of which most are small.

    Of 4,000 draws of sixteen, Student's t alone contains the trace in 89 % and the wider interval
    in 92 %, while samples without skew are left as they are.
    """
    samples = torch.randn(4000, 16, generator=generator(), dtype=torch.float64).square()
    errors = samples.std(1) / 4
    quantile = float(student.ppf(0.975, 15))
    wider = torch.tensor([_skewness_factor(row, 0.95) for row in samples])
    plain, mended = (
        float(((samples.mean(1) - 1).abs() <= factor * quantile * errors).double().mean())
        for factor in (torch.ones(4000), wider)
    )
    # Four standard deviations of a share of 4,000 are 2 %.
    assert plain < 0.91
    assert mended > plain + 0.015
    assert _skewness_factor(torch.tensor([1.0, 2.0, 3.0]), 0.95) == pytest.approx(1)
    assert _skewness_factor(torch.ones(5), 0.95) == 1


def test_interval_that_stops_has_the_width_of_the_formula():
    """Student's t with n - 1 degrees of freedom, times the Edgeworth term of the skewness."""
    dense = rotated(torch.linspace(1, 2, 50).double())

    def estimate(relative_error):
        options = {"num_products": 10, "distribution": "gaussian", "relative_error": relative_error}
        return trace(MatrixOperator(dense), generator=generator(), **options)

    samples = estimate(None).samples.numpy()
    z, wanted = norm.ppf(0.975), student.ppf(0.975, 9) * sem(samples) / samples.mean()
    wanted *= 1 + skew(samples) ** 2 * (z**4 + 2 * z**2 - 3) / (18 * 10)
    wanted /= 1 - wanted  # relative to the smallest trace in the interval
    assert not estimate(0.999 * wanted).converged
    assert estimate(1.001 * wanted).converged


@pytest.mark.parametrize(
    ("values", "relative_error"),
    [([1.0] * 5 + [-3.0], 0.5), ([1.0, -0.7, 0.5, -0.5], 0.5), ([3.0, 2.0, 1.0], 0.3)],
    ids=["negative skew", "trace near zero", "low rank"],
)
def test_what_has_stopped_is_right_as_often_as_it_says(values, relative_error):
    """Of 400 estimates at 95 % about 20 may be wrong: 38 are four standard deviations more.

    Looked at after every eight samples, and with the error relative to the estimate, 62, 54
    and 20 of them would be wrong.
    """
    operator = MatrixOperator(torch.diag(torch.tensor(values, dtype=torch.float64)))
    wrong = 0
    for seed in range(400):
        found = trace(
            operator,
            generator=generator(seed),
            distribution="gaussian",
            relative_error=relative_error,
            num_products=400,
        )
        outside = abs(found.mean - sum(values)) > relative_error * abs(sum(values))
        wrong += found.converged and outside
    assert wrong <= 38


def test_xtrace_and_its_error_are_those_of_their_definitions():
    """Each of seven vectors as the probe of dense projections, then the mean without each."""
    dense, num = rotated(0.7 ** torch.arange(30).double()), 7
    vectors = torch.randn(30, num, generator=generator(1), dtype=torch.float64)

    def estimates(vectors):
        found = []
        for i, probe in enumerate(vectors.T):
            others = torch.cat([vectors[:, :i], vectors[:, i + 1 :]], 1)
            basis = torch.linalg.qr(dense @ others).Q
            outside = probe - basis @ (basis.T @ probe)
            found.append((basis.T @ dense @ basis).trace() + outside @ dense @ outside)
        return torch.stack(found)

    sketch = dense @ vectors
    basis, triangle = torch.linalg.qr(sketch)
    factors = vectors, sketch, basis, triangle, dense @ basis
    blocks = exchangeable_estimates(lambda entries: entries.T.sum(1, keepdim=True), *factors)
    expected = estimates(vectors)
    torch.testing.assert_close(blocks[:, 0], expected, rtol=1e-8, atol=0)
    columns = [torch.cat([vectors[:, :i], vectors[:, i + 1 :]], 1) for i in range(num)]
    means = torch.stack([estimates(kept).mean() for kept in columns])
    jackknife = (num - 1) / num * (means - means.mean()).square().sum()
    factor = float((jackknife / (expected.var() / num)).sqrt())
    assert jackknife_factor(*factors) == pytest.approx(factor, rel=1e-6)


def test_xtrace_needs_the_fewest_products():
    operator = MatrixOperator(outliers_and_bulk())
    errors = [
        trace(operator, method, num_products=48, generator=generator()).standard_error
        for method in METHODS
    ]
    assert errors[2] < errors[1] < errors[0] / 10


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["batchnorm", "tied", "attention"])
def test_layers_come_from_the_same_products(method, name):
    of = landscape(name)
    operator = of.hessian()
    dense = make_dense(operator)
    found = trace(operator, method, num_products=240, generator=generator(1))
    exact = dict(zip(of.space.names, of.space.sums(dense.diagonal()).tolist(), strict=True))
    assert list(found.layers) == list(of.space.names)
    for layer, estimate in found.layers.items():
        # Some twenty layers, none further than four and a half standard errors.
        slack = 4.5 * estimate.standard_error + 1e-10
        assert estimate.mean == pytest.approx(exact[layer], abs=slack), layer
    assert sum(e.mean for e in found.layers.values()) == pytest.approx(found.mean, rel=1e-10)
    assert found.of(list(found.layers)) == pytest.approx((found.mean, found.standard_error))
    assert found.of(of.space.names[:1]) == pytest.approx(found.layers[of.space.names[0]])
    with pytest.raises(InputError, match="must be some of"):
        found.of(["nothing"])
    assert found.mean == pytest.approx(float(dense.trace()), abs=4.5 * found.standard_error + 1e-9)
    assert found.products <= 240


def test_rademacher_is_exact_for_a_diagonal_matrix():
    found = trace(MatrixOperator(torch.diag(torch.arange(9.0))), generator=generator())
    assert found.mean == 36
    assert found.standard_error == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("relative_error", [None, 1e-6])
@pytest.mark.parametrize("rank", [4, 11, 15, 25, 35])
@pytest.mark.parametrize("method", ["hutch++", "xtrace"])
def test_low_rank_is_exact(method, rank, relative_error, dtype):
    if method == "hutch++" and rank > 33:
        pytest.skip("beyond the sketch that a relative error asks for")
    values = torch.zeros(100, dtype=torch.float64)
    values[:rank] = torch.linspace(-1, 1.5, rank)
    dense = rotated(values).to(dtype)
    found = trace(
        MatrixOperator(dense),
        method,
        num_products=120,
        relative_error=relative_error,
        generator=generator(),
    )
    rounding = 1e3 * torch.finfo(dtype).eps
    assert found.mean == pytest.approx(float(dense.double().trace()), rel=0, abs=rounding)
    assert found.standard_error < rounding


def test_outlier_does_not_hide_a_bulk():
    """In fp32 a bulk of a hundred-thousandth of the outlier passes for rounding in a sketch."""
    values = torch.ones(1000, dtype=torch.float64)
    values[0] = 2e5
    dense = rotated(values).float()
    found = trace(MatrixOperator(dense), "xtrace", num_products=40, generator=generator())
    exact = float(dense.double().trace())
    assert abs(found.mean - exact) <= 4.5 * found.standard_error + 1e-6 * exact


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [1, 5])
def test_zero_operator_has_trace_zero(method, size):
    found = trace(MatrixOperator(torch.zeros(size, size)), method, generator=generator())
    assert (found.mean, found.standard_error) == (0, 0)


def test_small_operator_is_exact():
    dense = outliers_and_bulk(12)
    found = trace(MatrixOperator(dense), "xtrace", num_products=100, generator=generator())
    assert found.products == 24
    assert found.mean == pytest.approx(float(dense.trace()), rel=1e-10)
    few = trace(MatrixOperator(dense[:5, :5]), "xtrace", relative_error=0.1, generator=generator())
    assert few.converged


def test_error_that_was_not_reached_is_said(caplog):
    with caplog.at_level(logging.WARNING):
        found = trace(
            MatrixOperator(outliers_and_bulk()),
            relative_error=0.001,
            num_products=30,
            generator=generator(),
        )
    assert not found.converged
    assert found.products == 30
    assert "not reached" in caplog.text


def test_two_probes_never_pass_for_an_answer():
    """The samples of a matrix with one entry agree at once by chance; ten are still taken."""
    dense = torch.zeros(100, 100, dtype=torch.float64)
    dense[0, 0] = 1
    found = trace(MatrixOperator(dense), relative_error=0.5, generator=generator())
    assert len(found.samples) >= 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "hutch"}, "method must be one of"),
        ({"distribution": "uniform"}, "distribution must be one of"),
        ({"relative_error": 0.0}, "relative_error must be positive"),
        ({"confidence": 1.0}, "confidence must be between 0 and 1"),
        ({"num_products": 1}, "num_products must be at least 2 for hutchinson"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        trace(MatrixOperator(torch.eye(4)), **options, generator=generator())


@pytest.mark.parametrize("method", METHODS)
def test_product_that_is_not_finite_is_said(method):
    with pytest.raises(ArithmeticError, match="not finite"):
        trace(MatrixOperator(torch.full((20, 20), math.inf)), method, generator=generator())


def test_sketch_that_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr("mining.functional.memory.available_memory", lambda device: 1000)
    with pytest.raises(MemoryError, match="xtrace"):
        trace(MatrixOperator(torch.eye(50)), "xtrace", generator=generator())


@pytest.mark.parametrize("method", ["hutch++", "xtrace"])
def test_number_of_products_that_would_fit_does(monkeypatch, method):
    for name in (
        "mining.functional.memory",
        "mining.curvature.krylov",
        "mining.curvature.operators",
    ):
        module = sys.modules[name]
        monkeypatch.setattr(module, "available_memory", lambda device: 150 * 200 * 8)
    operator = MatrixOperator(outliers_and_bulk())
    with pytest.raises(MemoryError, match=r"num_products=\d+ would fit") as refusal:
        trace(operator, method, num_products=150, generator=generator())
    fitting = int(str(refusal.value).split("num_products=")[1].split()[0])
    trace(operator, method, num_products=fitting, generator=generator())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("method", METHODS)
def test_trace_on_a_gpu_is_that_on_the_cpu(method):
    dense = outliers_and_bulk()
    found, expected = (
        trace(MatrixOperator(m), method, relative_error=0.2, generator=generator())
        for m in (dense.cuda(), dense)
    )
    assert found.mean == pytest.approx(expected.mean, rel=1e-9)
