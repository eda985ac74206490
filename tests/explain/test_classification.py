"""Labels of curves whose shape is known, and what must not change them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mining import Curve, CurveClassifier, Surface, classify, classify_critical_point
from mining.explain.curve_shape import count_stationary_points
from mining.explain.labels import Shape

#: Curves on [-1, 1] by shape. Depths differ, so that no symmetry helps.
TEMPLATES = {
    "v-basin": [lambda a: a**2, lambda a: abs(a), lambda a: a**2 * (1.5 + a), lambda a: a**4],
    "v-side": [
        lambda a: (a - 0.6) ** 2,  # the bottom in the window
        lambda a: (a - 1.0) ** 2,  # at its edge
        lambda a: torch.exp(-2 * a),  # beyond it
        lambda a: -torch.tanh(2 * a),
    ],
    "w-basin": [
        lambda a: torch.log1p(200 * (a * (a - 0.8)) ** 2),
        lambda a: -torch.exp(-(a**2) / 0.02) - 0.6 * torch.exp(-((a - 0.6) ** 2) / 0.02),
    ],
    "w-peak": [
        lambda a: (a**2 - 0.4) ** 2 * 4,
        lambda a: (a**2 - 0.3) ** 2 + 0.05 * a,
        lambda a: -(a**2),  # both bottoms beyond the window
    ],
    "vvv-basin": [
        lambda a: 1 - torch.cos(3 * math.pi * a) + 0.2 * a**2,
        lambda a: 1 - torch.cos(2 * math.pi * (a + 0.05)) + 0.1 * a,
    ],
    "5-basin": [lambda a: 1 - torch.cos(5 * math.pi * a) + 0.1 * a],
    "10-basin": [lambda a: torch.sin(30 * a) + 0.3 * torch.sin(47 * a)],
    # Seven ripples on the sides of a valley, none as deep as half of it.
    "chaotic": [
        lambda a: 3 * abs(a) + 0.8 * torch.sin(22 * a + 0.4) * (1 + 0.3 * torch.sin(5 * a))
    ],
}
CASES = [(label, shape) for label, shapes in TEMPLATES.items() for shape in shapes]


def curve_of(shape, num=41, chance_loss=None):
    alphas = torch.linspace(-1, 1, num, dtype=torch.float64)
    alphas[num // 2] = 0.0
    return Curve(alphas, shape(alphas).double(), chance_loss=chance_loss)


def with_loss(curve, loss, chance_loss=None):
    return Curve(curve.alphas, loss, chance_loss=chance_loss)


cases = pytest.mark.parametrize(("label", "shape"), CASES)


@cases
def test_label_of_a_known_shape(label, shape):
    assert classify(curve_of(shape)).label == label
    assert str(classify(curve_of(shape))) == label


@cases
@given(
    scale=st.floats(1e-6, 1e6),
    # A shift by more than this many ranges leaves nothing of the curve in single precision.
    shift=st.floats(-1e3, 1e3),
    mirrored=st.booleans(),
)
def test_label_survives_reflection_scaling_and_shifting(label, shape, scale, shift, mirrored):
    curve = curve_of(shape)
    loss = scale * (curve.loss + shift)
    if mirrored:
        curve, loss = Curve(-curve.alphas.flip(0), curve.loss), loss.flip(0)
    assert classify(with_loss(curve, loss)).label == label


@cases
@given(num=st.integers(20, 300).map(lambda n: 2 * n + 1))
def test_label_survives_a_finer_grid(label, shape, num):
    assert classify(curve_of(shape, num)).label == label


@cases
@given(
    seed=st.integers(0, 2**32 - 1),
    num=st.sampled_from([41, 81, 161]),
    gaussian=st.booleans(),
)
def test_label_survives_noise_of_one_percent_of_the_range(label, shape, seed, num, gaussian):
    curve = curve_of(shape, num)
    generator = torch.Generator().manual_seed(seed)
    noise = (
        torch.randn(num, generator=generator)
        if gaussian
        else 2 * torch.rand(num, generator=generator) - 1
    )
    span = curve.loss.max() - curve.loss.min()
    assert classify(with_loss(curve, curve.loss + 0.01 * span * noise)).label == label


@given(
    scale=st.floats(0.1, 10), shift=st.floats(0, 3), mirrored=st.booleans(), peak=st.floats(3, 90)
)
def test_walls_above_the_chance_level_do_not_matter(scale, shift, mirrored, peak):
    """Scaled and shifted together with log C, a curve keeps its label."""
    curve = curve_of(lambda a: a**2 + peak * torch.sin(40 * a) ** 2 * (abs(a) > 0.7), 81)
    chance = scale * (0.45 + shift)
    loss = scale * (curve.loss + shift)
    loss = loss.flip(0) if mirrored else loss
    assert classify(with_loss(curve, loss, chance)).label == "v-basin"


def test_theta_above_the_chance_level_on_the_way_down_is_on_a_side():
    """An initialization guesses a little worse than log C; the far side explodes."""
    curve = curve_of(lambda a: 2.4 - 0.8 * a + 500 * (a < -0.5))
    assert classify(with_loss(curve, curve.loss, math.log(10))).label == "v-side"
    above = curve_of(lambda a: 2.4 + a**2 * 50)
    assert classify(with_loss(above, above.loss, math.log(10))).label == "v-basin"


def test_flat_is_less_than_rounding():
    flat = curve_of(lambda a: torch.full_like(a, 2.3))
    assert classify(flat).label == "flat"
    rounded = curve_of(lambda a: 2.3 + 1e-7 * torch.sin(50 * a))
    assert classify(rounded).label == "flat"
    assert count_stationary_points(rounded.loss) > 10
    assert classify(rounded).stationary_points == 0  # those are of the rounding
    assert classify(curve_of(lambda a: 2.3 + 1e-4 * a**2)).label == "v-basin"


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("where", [0, 7, 20, slice(None)])
def test_non_finite_losses_are_an_explosion(value, where):
    curve = curve_of(lambda a: a**2)
    loss = curve.loss.clone()
    loss[where] = value
    shape = classify(with_loss(curve, loss))
    assert shape.label == "exploded"
    assert shape.nonfinite == (41 if where == slice(None) else 1)


def test_losses_far_above_the_chance_level_are_an_explosion():
    curve = curve_of(lambda a: 0.4 + 3e11 * a**2)  # a published network with stale batch norm
    assert classify(with_loss(curve, curve.loss, math.log(10))).label == "exploded"
    assert classify(curve).label == "v-basin"


def test_two_valleys_with_theta_in_neither_are_other():
    curve = curve_of(lambda a: torch.log1p(200 * ((a - 0.25) * (a - 0.85)) ** 2))
    assert classify(curve).label == "other"
    # Two fifths of the way from the bottom to the peak is neither at the one nor on the other.
    alphas = torch.tensor([-1, -0.5, 0, 0.3, 0.7, 1]).double()
    slope = Curve(alphas, torch.tensor([1, 0, 0.33, 0.8, 0, 1]).double())
    assert len(classify(slope).valleys) == 2
    assert classify(slope).label == "other"


def test_equally_low_neighbours_are_one_valley():
    loss = torch.tensor([1.0, 0.5, 0.0, 0.01, 0.0, 0.5, 1.0]).double()
    curve = Curve(torch.arange(-3.0, 4.0).double(), loss)
    assert classify(curve).label == "v-basin"
    assert len(classify(curve).valleys) == 1


@given(st.lists(st.floats(-10, 10), min_size=3, max_size=30))
def test_stationary_points_are_counted_as_the_paper_says(values):
    y = values
    expected = sum((y[t] - y[t + 1]) * (y[t] - y[t - 1]) > 0 for t in range(1, len(y) - 1))
    assert count_stationary_points(torch.tensor(y, dtype=torch.float64)) == expected


@pytest.mark.parametrize(
    ("label", "num"), [("v-basin", 1), ("w-basin", 3), ("w-peak", 3), ("vvv-basin", 5)]
)
def test_stationary_points_of_perfect_shapes(label, num):
    assert classify(curve_of(TEMPLATES[label][0])).stationary_points == num


def test_features_of_a_known_curve():
    shape = classify(curve_of(lambda a: (a**2 - 0.25) ** 2 * 16, 81))
    (left, right), (peak,) = shape.valleys, shape.barriers
    assert left == pytest.approx((-0.5, 0))
    assert right == pytest.approx((0.5, 0))
    assert peak == pytest.approx((0, 1))
    assert shape.depths == pytest.approx((1, 1))
    # d²/dα² at 0 is -16; the second difference adds h²/12 times the fourth derivative, 384.
    assert shape.curvature == pytest.approx(-16 + 0.025**2 / 12 * 384, rel=1e-9)
    assert shape.asymmetry == pytest.approx(0, abs=1e-12)
    assert classify(curve_of(lambda a: torch.where(a > 0, a, 0 * a))).asymmetry > 0.4
    assert classify(curve_of(lambda a: torch.where(a < 0, -a, 0 * a))).asymmetry < -0.4


def test_depth_of_a_valley_cut_by_the_window_is_that_within():
    shape = classify(curve_of(lambda a: -(a**2)))
    assert [alpha for alpha, _ in shape.valleys] == [-1, 1]
    assert shape.depths == pytest.approx((1, 1))
    assert classify(curve_of(lambda a: torch.exp(-2 * a))).depths[0] == pytest.approx(7.2537, 1e-4)


def test_offset_of_the_minimum():
    centred = classify(curve_of(lambda a: 1 + a**2))
    assert (centred.minimum_alpha, centred.theta_is_minimum) == (0, True)
    assert centred.summary == "v-basin; 1 stationary point; 1 nats deep"
    offset = classify(curve_of(lambda a: 1 + (a + 0.1) ** 2))
    assert offset.label == "v-basin"
    assert offset.minimum_alpha == pytest.approx(-0.1)
    assert not offset.theta_is_minimum
    assert offset.summary.endswith("lowest at α = -0.1")
    equal = curve_of(lambda a: 1 + torch.relu(abs(a) - 0.1))
    assert not classify(equal).theta_is_minimum  # two neighbours are as low
    rounded = curve_of(lambda a: 1 + 1e-5 * a**2)
    assert not classify(rounded).theta_is_minimum  # by less than rounding beside it
    nothing = classify(with_loss(rounded, torch.full_like(rounded.loss, math.nan)))
    assert math.isnan(nothing.minimum_alpha)
    assert not nothing.theta_is_minimum


def test_depth_and_minimum_know_the_errors():
    curve = curve_of(lambda a: 1 + a**2)
    independent = 0.02**2 * torch.eye(41, dtype=torch.float64)
    shape = classify(Curve(curve.alphas, curve.loss, loss_covariance=independent))
    assert shape.depth_errors == pytest.approx((0.02 * math.sqrt(2),))
    assert not shape.theta_is_minimum  # its neighbours are higher by 0.0025
    assert shape.summary.startswith("v-basin; 1 stationary point; 1 ± 0.03 nats deep")
    common = torch.full((41, 41), 0.04, dtype=torch.float64)
    shape = classify(Curve(curve.alphas, curve.loss, loss_covariance=common))
    assert shape.depth_errors == pytest.approx((0,), abs=1e-9)
    assert shape.theta_is_minimum
    # The rim is cut off at log C, which is exact.
    shape = classify(
        Curve(curve.alphas, curve.loss, None, chance_loss=1.5, loss_covariance=independent)
    )
    assert shape.depths == pytest.approx((0.5,))
    assert shape.depth_errors == pytest.approx((0.02,))


@pytest.mark.parametrize("num", [4, 6, 9, 12])
def test_clean_valleys_are_counted_and_noise_is_chaotic(num):
    clean = curve_of(lambda a: 1 - torch.cos((num - 1) * math.pi * (a + 1)), 20 * num + 1)
    assert classify(clean).label == f"{num}-basin"
    generator = torch.Generator().manual_seed(num)
    noise = torch.rand(81, generator=generator, dtype=torch.float64)
    assert classify(Curve(torch.arange(-40.0, 41.0), noise)).label == "chaotic"


def test_curvature_on_unequal_steps():
    alphas = torch.tensor([-0.5, -0.1, 0.0, 0.3, 0.4]).double()
    shape = classify(Curve(alphas, 3 * alphas**2 + alphas))
    assert shape.curvature == pytest.approx(6)


def test_points_as_torch_makes_them_have_a_theta():
    alphas = torch.linspace(-1, 1, 11, dtype=torch.float64)
    assert float(alphas[5]) != 0  # -5.6e-17
    assert classify(Curve(alphas, alphas**2)).label == Shape.V_BASIN
    assert classify(Curve(alphas, alphas**2)).curvature == pytest.approx(2)
    plane = Surface(alphas, alphas, alphas[:, None] ** 2 - alphas**2)
    assert classify_critical_point(plane).kind == "saddle"
    two = Surface(alphas[5:7], alphas, alphas[5:7, None] ** 2 - alphas**2)
    assert classify_critical_point(two).kind == "slope"  # θ is an end of an axis


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_tensors_of_any_kind_make_a_curve(dtype):
    alphas = torch.linspace(-1, 1, 5)
    loss = (1 + alphas**2).to(dtype).requires_grad_()
    curve = Curve(alphas.to(dtype), loss)
    assert curve.loss.dtype == curve.alphas.dtype == torch.float64
    assert not curve.loss.requires_grad
    assert classify(curve).label == "v-basin"


def test_theta_at_the_edge_of_the_window():
    alphas = torch.linspace(0, 1, 21).double()
    assert classify(Curve(alphas, alphas**2)).label == Shape.V_BASIN
    shape = classify(Curve(alphas, (alphas - 1) ** 2))
    assert shape.label == Shape.V_SIDE
    assert math.isnan(shape.curvature)
    assert math.isnan(shape.asymmetry)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="must contain 0"):
        classify(Curve(torch.tensor([1.0, 2.0, 3.0]), torch.zeros(3)))
    with pytest.raises(ValueError, match="prominence must lie between 0 and 1"):
        CurveClassifier(prominence=1.5)
    with pytest.raises(ValueError, match="explosion must exceed 1"):
        CurveClassifier(explosion=0.5)
