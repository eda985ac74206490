"""Second-order models against a quadratic loss, for which they are exact."""

import pytest
import torch
from cases import direction, landscape, quadratic_landscape

from mining import Direction, Evaluator, expand, perturb, stretch, with_scales
from mining.explain.second_order import Expansions, Perturbations
from mining.storage.records import load_record, save_record

ALPHAS = torch.linspace(-1, 0, 3)
OFFSETS = torch.linspace(-0.05, 0.05, 5)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_expansion_of_a_quadratic_loss_is_the_loss():
    of = quadratic_landscape()
    along = direction(of)
    found = expand(of, along, ALPHAS, OFFSETS, progress=False)
    curvature = along.vector @ of.model.matrix @ along.vector
    torch.testing.assert_close(found.curvature, curvature.expand(3), rtol=1e-10, atol=0)
    gradient = of.model.matrix @ (of.theta - along.vector) + of.model.linear
    assert float(found.slope[0]) == pytest.approx(float(along.vector @ gradient), rel=1e-10)
    assert float(found.error.max()) < 1e-12


def test_expansion_of_a_network_errs_by_the_third_order():
    of = landscape("tied")
    along = direction(of)
    coarse, fine = (
        expand(of, along, torch.tensor([-0.3, 0.0]), reach * OFFSETS, progress=False)
        for reach in (0.1, 0.05)
    )
    # Halving x divides a term of third order by eight.
    ratios = coarse.error / fine.error
    assert ((ratios > 6) & (ratios < 10)).all()
    assert (coarse.relative_error < 0.1).all()


def test_expansion_at_theta_is_the_curve():
    of = landscape("batchnorm", "frozen")
    along = direction(of)
    found = expand(of, along, torch.tensor([0.0]), OFFSETS, progress=False)
    curve = Evaluator(of, progress=False).curve(along, OFFSETS)
    torch.testing.assert_close(found.loss_near[0], curve.loss, rtol=1e-12, atol=0)


def test_perturbation_of_a_quadratic_loss_has_the_moments_that_follow_from_eq_1():
    of = quadratic_landscape(6)
    matrix, gradient = of.model.matrix, of.gradient()
    found = perturb(of, [0.1, 1.0, 3.0], 4000, 0.5, generator=generator(), progress=False)
    torch.testing.assert_close(found.changes, found.second_order, rtol=1e-9, atol=1e-9)
    for estimate, exact in (
        (found.trace, matrix.trace()),
        (found.trace_of_square, (matrix @ matrix).trace()),
    ):
        assert estimate.mean == pytest.approx(float(exact), abs=4.5 * estimate.standard_error)
    scales = found.scales
    mean = scales**2 * 0.25 * matrix.trace() / 2
    variance = scales**2 * 0.25 * (gradient @ gradient)
    variance += scales**4 * 0.0625 * (matrix @ matrix).trace() / 2
    # 4,000 samples: variances to 2 %, times four; means to a deviation over sqrt(4000), times four.
    torch.testing.assert_close(found.changes.var(0), variance, rtol=0.15, atol=0)
    torch.testing.assert_close(found.predicted_variance(), variance, rtol=0.1, atol=0)
    assert ((found.changes.mean(0) - mean).abs() < 4 * (variance / 4000).sqrt()).all()
    # The exponents that the paper prints miss it.
    assert abs(float(found.printed_variance()[0] / variance[0]) - 1) > 1


def test_kinks_of_relus_add_a_term_of_second_order_that_the_hessian_does_not_see():
    excess = {}
    for name in ("tied", "mlp"):  # tanh and ReLU
        of = landscape(name)
        found = perturb(of, [1e-3, -1e-3, 1e-2, -1e-2], 200, generator=generator(), progress=False)
        even = (found.changes[:, ::2] + found.changes[:, 1::2]) / 2  # without the first order
        modelled = found.scales[::2] ** 2 * found.curvatures[:, None] / 2
        excess[name] = even.mean(0) / modelled.mean(0) - 1
    assert excess["tied"].abs().max() < 0.01
    assert (excess["mlp"] > 0.1).all()


@pytest.mark.parametrize("scale", [0, -1.0, float("nan"), "curve"])
def test_scale_must_be_positive(scale):
    of = quadratic_landscape()
    with pytest.raises(ValueError, match="scale must be a positive number or 'curvature'"):
        with_scales(of, [direction(of)], scale)


@pytest.mark.parametrize(
    "options",
    [
        {"num_samples": 1},
        {"sigma": 0.0},
        {"scales": []},
        {"scales": [float("nan")]},
        {"scales": [0.0]},
    ],
)
def test_perturbation_refuses_bad_numbers(options):
    of = quadratic_landscape()
    with pytest.raises(ValueError, match="perturb needs"):
        perturb(of, **{"scales": [0.1], **options}, generator=generator(), progress=False)


def test_records_come_back(tmp_path):
    of = quadratic_landscape()
    expansions = expand(of, direction(of), ALPHAS, OFFSETS, progress=False)
    perturbations = perturb(of, [0.1], 3, generator=generator(), progress=False)
    for record in (expansions, perturbations):
        save_record(tmp_path / "x.npz", record, more=1)
        again = load_record(tmp_path / "x.npz", type(record))
        for name, value in vars(record).items():
            other = getattr(again, name)
            same = torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
            assert same, name
    assert isinstance(again, Perturbations)
    assert not isinstance(again, Expansions)


@pytest.mark.parametrize(("sign", "share"), [(1, 1.0), (-1, 0.2)])
def test_scale_from_the_curvature_is_where_the_change_is_that_share_of_the_loss(sign, share):
    of = quadratic_landscape()
    values, vectors = torch.linalg.eigh(of.model.matrix)
    column = -1 if sign > 0 else 0
    (scaled,) = with_scales(of, [Direction(3 * vectors[:, column], "test")], "curvature")
    change = 0.5 * scaled.scale**2 * 9 * abs(float(values[column]))
    assert change == pytest.approx(share * abs(float(of.loss(of.theta))))
    assert torch.equal(scaled.vector, 3 * vectors[:, column])
    torch.testing.assert_close(stretch(scaled).vector, scaled.scale * scaled.vector)


def test_scale_as_a_number_moves_the_other_checkpoint():
    of = quadratic_landscape()
    other = Direction(torch.ones(5, dtype=torch.float64), "test", other_alpha=1.0)
    assert with_scales(of, [other], 1.0) == [other]
    (scaled,) = with_scales(of, [other], 4.0)
    assert stretch(scaled).other_alpha == 0.25
    assert float(stretch(scaled).vector[0]) == 4
    assert float(stretch(stretch(scaled)).vector[0]) == 4
    assert stretch(other) is other


def test_scale_needs_curvature():
    of = quadratic_landscape()
    of.model.matrix.zero_()
    flat = type(of)(of.model, of.loss_fn, [(torch.zeros(2, 1), torch.zeros(2))])
    with pytest.raises(ValueError, match="curvature along test 1 is 0"):
        with_scales(flat, [direction(flat)], "curvature")
