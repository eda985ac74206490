import numpy as np
import pytest
import torch
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from PIL import Image

from mining import Curve, InputError, draw_curves
from mining.plotting import explain, save_figure

ALPHAS = torch.linspace(-1, 1, 9).double()
HEADERS = {"pdf": b"%PDF-", "svg": b"<?xml"}


def figure():
    picture = Figure(figsize=(5, 4), layout="constrained")
    picture.add_subplot().plot([0, 1], label="θ")
    return picture


@pytest.mark.parametrize(("dpi", "width"), [(150, None), (100, 3.5), (300, 7)])
def test_a_png_has_the_width_and_the_dots_per_inch_asked_for(tmp_path, dpi, width):
    path = tmp_path / "a.png"
    save_figure(figure(), path, dpi=dpi, width=width)
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert image.width == round((width or 5) * dpi)
        assert image.height == pytest.approx(image.width * 4 / 5, abs=1)
        assert image.info["dpi"] == pytest.approx((dpi, dpi), rel=1e-3)


@pytest.mark.parametrize("width", [None, 3.5])
def test_vector_pictures_have_the_width_asked_for_in_points(tmp_path, width):
    for suffix, header in HEADERS.items():
        path = tmp_path / f"a.{suffix}"
        save_figure(figure(), path, width=width)
        content = path.read_bytes()
        assert content.startswith(header)
        points = f"{72 * (width or 5):g}"
        told = f"/MediaBox [ 0 0 {points} " if suffix == "pdf" else f'width="{points}pt"'
        assert told.encode() in content


@pytest.mark.parametrize("width", [None, 3.0])
def test_titles_and_explanations_stay_within_the_picture(tmp_path, width):
    words = "several words about it " * 8
    picture = Figure(figsize=(7, 4), layout="constrained")
    panels = picture.subplots(1, 2)
    for axes in panels:
        axes.plot([0, 1], label="line")
        axes.set_title(words, fontsize=9)
    picture.suptitle(words * 2, fontsize=9)
    explain(picture, panels, words * 3)
    save_figure(picture, tmp_path / "a.png", width=width)
    assert picture.get_figwidth() == (width or 7)
    picture.draw_without_rendering()
    texts = [picture.legends[0].get_title(), *picture.texts, *(axes.title for axes in panels)]
    for text in texts:
        extent = text.get_window_extent()
        assert extent.x0 >= 0
        assert extent.x1 <= picture.bbox.width
    assert panels[0].title.get_window_extent().x1 < panels[1].title.get_window_extent().x0


def test_letters_of_a_narrow_picture_shrink_to_five_points(tmp_path):
    for width, size in ((10, 8), (4, 6.4), (1.5, 5)):
        picture = figure()
        (axes,) = picture.axes
        axes.set_title("title", fontsize=8)
        axes.tick_params(labelsize=8)
        save_figure(picture, tmp_path / "a.svg", width=width)
        assert axes.title.get_fontsize() == pytest.approx(size)
        assert axes.get_xticklabels()[-1].get_fontsize() == pytest.approx(size)


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_the_same_figure_gives_the_same_file(tmp_path, suffix):
    paths = [tmp_path / f"{name}.{suffix}" for name in "ab"]
    for path in paths:
        save_figure(figure(), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_other_formats_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"a.jpg must end in .png, .pdf, .svg"):
        save_figure(figure(), tmp_path / "a.jpg")


def test_colours_of_curves_are_those_of_the_colormap_asked_for():
    curves = [Curve(ALPHAS, ALPHAS**n, chance_loss=2.3) for n in (2, 4, 6)]

    def colors(**options):
        axes = Figure().add_subplot()
        draw_curves(axes, curves, **options)
        return [to_rgba(line.get_color()) for line in axes.get_lines()[:3]]

    assert colors() == colors(colormap="tab10") == list(map(to_rgba, ("C0", "C1", "C2")))
    greys = np.array(colors(colormap="gray"))
    assert (greys[0] == (0, 0, 0, 1)).all()
    assert (np.diff(greys[:, 0]) > 0).all()
    assert greys[-1, 0] < 0.95  # white on white cannot be seen
