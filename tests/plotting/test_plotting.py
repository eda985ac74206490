import math

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from mining import Curve, Surface, draw_curves, draw_surface
from mining.plotting import save_figure

ALPHAS = torch.linspace(-1, 1, 9).double()


def curve(loss, **fields):
    return Curve(ALPHAS, loss.double(), **{"chance_loss": 2.3, "name": "test", **fields})


def drawn(*curves, **options):
    axes = Figure().add_subplot()
    draw_curves(axes, curves, **options)
    return axes


def test_curves_are_drawn_as_in_the_paper():
    axes = drawn(curve(ALPHAS**2, other_alpha=0.5), curve(ALPHAS**4))
    assert axes.get_title() == "v-basin [1.0]"
    lines = {
        (line.get_color(), line.get_linestyle()): (line.get_xdata()[0], line.get_ydata()[0])
        for line in axes.get_lines()[2:]
    }
    assert lines["red", ":"][0] == 0.5
    dotted = [line for line in axes.get_lines() if line.get_linestyle() == ":"]
    assert sorted(line.get_color() for line in dotted) == ["black", "black", "red"]
    assert any(line.get_ydata()[0] == line.get_ydata()[1] == 2.3 for line in dotted)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "test (1): v-basin",
        "test (2): v-basin",
        "θ (vertical)",
        "where the direction leads (vertical)",
        "chance-level loss log C (horizontal)",
    ]


def test_test_loss_is_dashed_and_another_loss_has_no_unit():
    test = (ALPHAS**2 + 1).double()
    axes = drawn(curve(ALPHAS**2, loss_test=test, chance_loss=None))
    solid, dashed = axes.get_lines()[:2]
    assert (solid.get_linestyle(), dashed.get_linestyle()) == ("-", "--")
    assert solid.get_color() == dashed.get_color()
    assert [text.get_text() for text in axes.get_legend().get_texts()][:2] == [
        "test: v-basin",
        "test examples",
    ]
    assert np.array_equal(dashed.get_ydata(), test)
    assert axes.get_ylabel() == "loss"


def test_estimated_losses_have_bands_of_two_standard_errors():
    covariance = torch.diag(torch.full((9,), 0.01**2).double())
    axes = drawn(curve(ALPHAS**2 + 1, loss_covariance=covariance))
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.max() == pytest.approx(2.02)
    assert heights.min() == pytest.approx(0.98)
    assert "bands: 2 standard errors (up to 1.0% of the loss)" in axes.get_title()


def test_non_finite_points_leave_a_gap_and_are_counted():
    loss = ALPHAS**2
    loss[[0, 8]] = torch.tensor([math.inf, math.nan]).double()
    axes = drawn(curve(loss))
    shown = axes.get_lines()[0].get_ydata()
    assert np.isnan(shown[[0, 8]]).all()
    assert np.array_equal(shown[1:8], (ALPHAS**2)[1:8])
    assert axes.get_title() == "exploded [1], 2 points not finite"
    drawn(curve(torch.full_like(ALPHAS, math.nan)))


@pytest.mark.parametrize("log_scale", [False, True])
def test_a_cap_is_stated_and_keeps_the_bottom_in_view(log_scale):
    axes = drawn(curve(1 + 100 * ALPHAS**2), loss_cap=5, log_scale=log_scale)
    assert axes.get_title() == "v-basin [1], cut off at 5 of 101"
    low, high = axes.get_ylim()
    assert high == 5
    assert 0.7 < low <= 1
    assert axes.get_yscale() == ("log" if log_scale else "linear")


def test_an_explosion_is_cut_off_by_itself_but_not_on_a_log_axis():
    loss = 1 + 1000 * ALPHAS**2
    assert "cut off at 4.6 of" in drawn(curve(loss)).get_title()
    assert "cut off" not in drawn(curve(loss), log_scale=True).get_title()
    assert "cut off" not in drawn(curve(2 * ALPHAS**2)).get_title()


def surface(loss):
    return Surface(ALPHAS[:3], ALPHAS[:4], loss.double(), names=("x", "y"), chance_loss=2.3)


def test_a_surface_is_drawn_twice_with_its_cap_and_gaps_stated(tmp_path):
    loss = torch.arange(12.0).view(3, 4)
    loss[0, 0] = math.nan
    figure = draw_surface(surface(loss), title="t", loss_cap=5)
    contours, relief = figure.axes[:2]
    assert (contours.get_xlabel(), contours.get_ylabel()) == (
        "x: α, direction x",
        "y: β, direction y",
    )
    assert relief.name == "3d"
    assert figure.get_suptitle() == "t\n1 points not finite, cut off at 5 of 11"
    save_figure(figure, tmp_path / "surface.png")
    assert (tmp_path / "surface.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("value", [math.nan, math.inf, 1.0])
def test_degenerate_surfaces_are_drawn_too(tmp_path, value):
    figure = draw_surface(surface(torch.full((3, 4), value)), log_scale=value == 1.0)
    save_figure(figure, tmp_path / "surface.png")


def test_a_surface_is_not_transposed():
    """Rows are α, the horizontal axis: L(α, β) = α must vary from left to right."""
    loss = ALPHAS[:3, None].expand(3, 4)
    figure = draw_surface(surface(loss - loss.min()))
    (collection,) = figure.axes[0].collections
    lowest = next(path for path in collection.get_paths() if len(path.vertices))
    assert np.ptp(lowest.vertices[:, 1]) > np.ptp(lowest.vertices[:, 0])


def saddle(steepness, num=11):
    x = torch.linspace(-1, 1, num).double()
    loss = 1 + steepness * x[:, None] ** 2 - 0.1 * x[None] ** 2
    return Surface(x, x, loss, names=("x", "y"), chance_loss=2.3)


@pytest.mark.parametrize("steepness", [0.1, 3])
def test_colours_of_a_saddle_are_centred_at_the_loss_of_theta(steepness):
    figure = draw_surface(saddle(steepness))
    filled = figure.axes[0].collections[0]
    assert filled.norm(1.0) == pytest.approx(0.5)
    assert (filled.norm.vmin, filled.norm.vmax) == pytest.approx((0.9, 1 + steepness))
    assert filled.get_cmap().name == "RdBu_r"
    asked = draw_surface(saddle(steepness), colormap="PuOr").axes[0].collections[0]
    assert asked.get_cmap().name == "PuOr"
    assert asked.norm(1.0) == pytest.approx(0.5)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["θ", "loss of θ, at which the colours are centred"]


def test_minima_and_saddles_of_several_basins_are_marked():
    x = torch.linspace(-2, 2, 21).double()
    wells = (x[:, None] ** 2 - 1) ** 2 + x[None] ** 2 + 0.2 * x[:, None]
    picture = draw_surface(Surface(x, x, wells, names=("x", "y")))
    marked = {line.get_label(): line.get_xydata().tolist() for line in picture.axes[0].lines}
    minima = marked["2 minima, at least 1 % of the range deep"]
    assert np.allclose(minima, [(-1, 0), (1, 0)], atol=1e-6)
    assert np.allclose(marked["their saddles"], [(0, 0)], atol=0.21)
    bowl = draw_surface(Surface(x, x, x[:, None] ** 2 + x[None] ** 2, names=("x", "y")))
    assert not any("minima" in str(line.get_label()) for line in bowl.axes[0].lines)


def test_a_steep_saddle_is_cut_off_in_3d_so_that_both_sides_are_seen():
    relief = draw_surface(saddle(3)).axes[1]
    assert relief.get_zlim() == pytest.approx((0.9, 1.4), abs=0.03)
    assert relief.get_title() == "3-D: cut off above 1.4"
    level = draw_surface(saddle(0.1)).axes[1]
    assert level.get_title() == ""
    assert level.get_zlim() == pytest.approx((0.9, 1.1), abs=0.03)


def test_colours_of_a_bowl_rise_from_its_bottom():
    bowl = Surface(ALPHAS, ALPHAS, ALPHAS[:, None] ** 2 + ALPHAS**2, chance_loss=2.3)
    figure = draw_surface(bowl)
    filled = figure.axes[0].collections[0]
    assert filled.get_cmap().name == "viridis"
    assert (filled.norm.vmin, filled.norm.vmax) == (0, 2)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["θ"]


def test_chance_level_loss_does_not_press_curves_flat():
    def lines(axes):
        return [line for line in axes.get_lines() if line.get_ydata()[0] == 2.3]

    assert lines(drawn(curve(ALPHAS**2)))
    assert not lines(drawn(curve(0.1 * ALPHAS**2 + 1)))


def test_factor_of_a_direction_is_on_the_picture():
    axes = drawn(curve(ALPHAS**2, scale=0.25))
    assert axes.get_legend().get_texts()[0].get_text() == "test × 0.25: v-basin"
    assert "× its factor" in axes.get_xlabel()


def test_long_titles_are_broken():
    axis = torch.linspace(-1, 1, 11, dtype=torch.float64)
    covariance = 0.2**2 * torch.eye(11, dtype=torch.float64)
    shapes = (axis**2, (axis - 0.5) ** 2, -(axis**2), torch.sin(8 * axis))
    curves = [Curve(axis, loss + 1, loss_covariance=covariance, chance_loss=2.3) for loss in shapes]
    axes = Figure().add_subplot()
    draw_curves(axes, curves)
    assert "labels uncertain" in axes.get_title().replace("\n", " ")
    assert max(map(len, axes.get_title().split("\n"))) <= 75
    assert any("uncertain: " in text.get_text() for text in axes.get_legend().get_texts())
