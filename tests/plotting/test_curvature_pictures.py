import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from mining.curvature import SpectralDensity
from mining.plotting import draw_density, draw_eigenvalues, explain
from mining.plotting.curvature import eigenvector_colors


def bars(names, values, residuals=None):
    axes = Figure().add_subplot()
    draw_eigenvalues(axes, names, values, residuals or [1e-3] * len(values))
    return axes


def test_a_single_eigenvalue_is_a_bar_among_others_with_its_value():
    axes = bars(["P.E.1"], [6.0512])
    (bar,) = axes.patches
    low, high = axes.get_xlim()
    assert bar.get_width() < 0.2 * (high - low)
    assert [text.get_text() for text in axes.texts] == ["6.05"]
    assert axes.get_yscale() == "linear"


@pytest.mark.parametrize(("num", "shown"), [(12, 12), (13, 0)])
def test_up_to_twelve_bars_carry_their_values(num, shown):
    values = np.linspace(5, 1, num).tolist()
    axes = bars([f"P.E.{i + 1}" for i in range(num)], values)
    assert [text.get_text() for text in axes.texts] == [f"{value:.3g}" for value in values][:shown]


def test_bars_have_the_colours_of_their_signs_and_error_bars_are_named():
    names = ["P.E.1", "smallest 1", "N.E.1"]
    axes = bars(names, [2.0, 0.5, -1.0], [0.1, 0.1, 0.1])
    assert [bar.get_facecolor() for bar in axes.patches] == [
        to_rgba(color) for color in eigenvector_colors(names)
    ]
    handles, labels = axes.get_legend_handles_labels()
    assert labels == [
        "P.E.: positive",
        "neither: of the wrong sign, or zero",
        "N.E.: negative",
        "error bar: residual ‖Av - λv‖, A the matrix",
    ]
    assert len(handles) == 4


def test_eigenvalues_far_apart_are_drawn_on_a_log_scale_down_to_what_is_beyond_its_error():
    axes = bars(["P.E.1", "N.E.1", "N.E.2"], [100.0, -0.5, -1e-9])
    assert axes.get_yscale() == "symlog"
    assert axes.yaxis.get_transform().linthresh == 0.5


@pytest.mark.parametrize(
    ("low", "high", "names"),
    [
        (-1.0, 3.0, ["N.E.1", "P.E.1"]),
        (1.0, 3.0, ["P.E.2", "P.E.1"]),
        (-3.0, -1.0, ["N.E.1", "N.E.2"]),
        (-1e-9, 3.0, ["smallest 1", "P.E.1"]),
    ],
)
def test_extreme_eigenvalues_of_a_density_have_the_colours_of_their_signs(low, high, names):
    nodes = torch.tensor([[low, 0.5 * (low + high), high]], dtype=torch.float64).expand(2, 3)
    density = SpectralDensity(nodes, torch.full((2, 3), 1 / 3).double(), 100, 6)
    axes = Figure().add_subplot()
    draw_density(axes, density)
    marks = [line for line in axes.get_lines() if line.get_linestyle() == ":"]
    assert [line.get_xdata()[0] for line in marks] == [low, high]
    assert [line.get_color() for line in marks] == eigenvector_colors(names)


def test_a_legend_below_the_panels_names_every_label_once():
    picture = Figure(figsize=(5, 4), layout="constrained")
    panels = picture.subplots(1, 2)
    for axes in panels:
        axes.plot([0, 1], label="same")
    panels[1].plot([1, 0], label="other")
    explain(picture, panels, "What it is about.")
    picture.draw_without_rendering()
    (legend,) = picture.legends
    assert [text.get_text() for text in legend.get_texts()] == ["same", "other"]
    assert legend.get_title().get_text() == "What it is about."
    assert legend.get_window_extent().y1 < min(axes.get_tightbbox().y0 for axes in panels)
