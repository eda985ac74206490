"""A report in a real browser: it opens from disk, turns, answers to hovering, and switches."""

import csv
import shutil

import numpy as np
import pytest
import torch
from pages import bowl, parabola, wells

from mining import report
from mining.curvature import SpectralDensity
from mining.reporting.spectra import blocks_content
from mining.reporting.tables import layers_content
from mining.storage.records import save_record

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")
#: WebGL without a graphics card.
FLAGS = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--no-sandbox"]
#: Fewer pixels to compute.
SMALL = """addEventListener("DOMContentLoaded", () => {
    const style = document.createElement("style");
    style.textContent = ".plot, .plot.tall { height: 240px }";
    document.head.append(style);
})"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report of two surfaces and two curves, opened without a network."""
    playwright = pytest.importorskip("playwright.sync_api")
    path = tmp_path_factory.mktemp("report") / "page.html"
    surfaces = bowl(11, error=True), bowl(13), wells()
    report(*surfaces, parabola(), parabola("other", 0.5), output=path)
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = browser.new_context(
            viewport={"width": 800, "height": 600}, offline=True, accept_downloads=True
        )
        opened = context.new_page()
        problems, requests = [], []
        opened.on("pageerror", lambda error: problems.append(error.stack))
        opened.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        opened.on("request", lambda request: requests.append(request.url))
        opened.set_default_timeout(120_000)
        opened.add_init_script(SMALL)
        opened.goto(path.as_uri())
        opened.wait_for_selector("body[data-ready]")
        yield opened
        assert problems == []
        assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
        browser.close()


def camera(page):
    return page.evaluate("document.getElementById('relief').layout.scene.camera.eye")


def height(page):
    return np.array(page.evaluate("document.getElementById('relief').data[0].z"), dtype=float)


def choose(page, name, **option):
    page.select_option(f"#{name}", **option)
    settle(page)


def settle(page):
    """Wait until what was asked for is drawn, and the frame after it."""
    page.evaluate("""async () => {
        await state.drawing;
        for (let n = 0; n < 3; n += 1) await new Promise(requestAnimationFrame);
    }""")


def told(page, words):
    """Wait until the words under the surface contain others, and give them all."""
    box = page.locator("#readout")
    box.filter(has_text=words).wait_for()
    return box.inner_text()


def test_it_draws_the_surface_that_it_was_given(page):
    np.testing.assert_allclose(height(page).T, bowl(11).loss)
    assert page.locator("#problem").is_hidden()
    assert "v-basin" in page.locator("#labels").inner_text()


def test_it_turns_by_mouse_and_by_keyboard(page):
    before = camera(page)
    page.locator("#relief").focus()
    page.keyboard.press("ArrowRight")
    settle(page)
    turned = camera(page)
    angles = [np.arctan2(eye["y"], eye["x"]) for eye in (before, turned)]
    assert angles[1] - angles[0] == pytest.approx(0.15, abs=1e-3)
    box = page.locator("#relief").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 120, y, steps=4)
    page.mouse.up()
    moved = "x => Math.abs(document.getElementById('relief').layout.scene.camera.eye.x - x) > 0.05"
    page.wait_for_function(moved, arg=turned["x"])


def test_a_point_of_a_curve_shows_its_place_on_the_surface(page):
    place = """() => {
        const curve = curves.findIndex((c) => c.name === "along x: first");
        const plot = document.getElementById("curves");
        const y = plot._fullLayout.yaxis, x = plot._fullLayout.xaxis;
        const box = plot.getBoundingClientRect();
        const point = 8;
        return [box.left + x._offset + x.d2p(curves[curve].alphas[point]),
                box.top + y._offset + y.d2p(curves[curve].loss[point]), curves[curve].loss[point]];
    }"""
    page.locator("#curves").scroll_into_view_if_needed()
    x, y, loss = page.evaluate(place)
    page.mouse.move(x - 3, y)
    page.mouse.move(x, y)
    words = told(page, "along x: first at α = 0.6")
    assert f"loss {loss:.4g}" in words
    assert "accuracy" in words
    assert "v-side" in words
    assert "on the surface at (0.6, 0)" in words
    settle(page)
    mark = page.evaluate("document.getElementById('relief').data.at(-1)")
    assert (mark["x"], mark["y"]) == ([pytest.approx(0.6)], [0])
    assert mark["z"] == [pytest.approx(loss)]


def test_the_same_by_keyboard(page):
    name = page.locator("#curve option", has_text="other").inner_text()
    page.mouse.move(1, 1)  # what it hovers over is told, too
    choose(page, "curve", label=name)
    page.locator("#alpha").focus()
    page.keyboard.press("End")
    told(page, "other at α = 1: loss 0.35 ± 0.007")


def test_axis_and_cap_change_the_heights(page):
    page.locator("[value=log]").check()
    settle(page)
    np.testing.assert_allclose(height(page).T, np.log10(bowl(11).loss.numpy()))
    page.locator("[value=linear]").check()
    page.locator("#cap").fill("50")
    settle(page)
    loss = bowl(11).loss.numpy()
    cap = np.sqrt(loss.min() * loss.max())
    np.testing.assert_allclose(height(page).T, np.minimum(loss, cap))
    page.locator("#cap-auto").click()
    settle(page)
    np.testing.assert_allclose(height(page).T, loss)


def test_surfaces_and_quantities_switch_in_one_scene(page):
    choose(page, "surface", value="1")
    np.testing.assert_allclose(height(page).T, bowl(13).loss)
    choose(page, "quantity", value="accuracy")
    np.testing.assert_allclose(height(page).T, bowl(13).accuracy)
    assert page.locator("#relief canvas").count() <= 2
    choose(page, "quantity", value="loss")
    choose(page, "surface", value="0")


def test_basins_are_marked_and_listed(page):
    assert (
        page.locator("#basins summary").inner_text().endswith("deep; minimum inside the picture: 1")
    )
    choose(page, "surface", value="2")
    for picture in ("relief", "contours"):
        found = page.evaluate(f"at('{picture}').data.slice(1, 3).map((t) => [t.x, t.y])")
        assert found == [[[0.5, -0.5], [0, 0]], [[0], [0]]]
    page.locator("#basins summary").click()
    rows = page.locator("#basins tbody tr").all_inner_texts()
    assert [row.split("\t")[1] for row in rows] == ["(0.5, 0)", "(−0.5, 0)"]
    assert rows[1].split("\t")[4:6] == ["1", "(0, 0)"]
    choose(page, "surface", value="0")


def test_the_spectrum_of_a_layer_is_chosen_from_a_list(page, tmp_path):
    nodes = torch.tensor([[0.0, 1.0, 9.0]] * 2, dtype=torch.float64)
    weights = torch.tensor([[0.5, 0.3, 0.2]] * 2, dtype=torch.float64)
    density = SpectralDensity(nodes, weights, size=10, products=6)
    values = torch.tensor([9.0, 8.0, 1.0], dtype=torch.float64)
    rows = []
    for number, (layer, outliers) in enumerate([("fc", 2), ("(whole)", None)]):
        path = tmp_path / f"hessian_{number:04d}.npz"
        save_record(path, density, layer=layer, eigenvalues=values, residuals=0 * values)
        rows.append({"operator": "hessian", "layer": layer, "outliers": outliers})
    item = layers_content({"layers": rows}) | {"blocks": blocks_content(tmp_path), "run": None}
    page.evaluate(
        """async (item) => {
            content.layers.push({ ...item, network: state.network, point: state.point });
            await drawLayers();
        }""",
        item,
    )
    marks = "document.querySelector('#layers .plot:nth-of-type(2)').data.at(-1)"
    names = page.evaluate(f"[{marks}.name, {marks}.x]")
    assert names == ["hessian, largest eigenvalues (outliers not counted)", values.tolist()]
    page.locator("#layers select").select_option("fc")
    page.wait_for_function(f"() => {marks}.name.includes('outliers: 2')")
    symbols = page.evaluate(f"{marks}.marker.symbol")
    assert symbols == ["triangle-up", "triangle-up", "triangle-up-open"]
    page.evaluate("content.layers.pop(); drawLayers()")


def test_the_numbers_can_be_downloaded_in_full(page, tmp_path):
    with page.expect_download() as waiting:
        page.locator("#surface-csv").click()
    path = tmp_path / "surface.csv"
    waiting.value.save_as(path)
    with path.open() as file:
        rows = list(csv.DictReader(file))
    surface = bowl(11, error=True)
    found = np.array([float(row["loss"]) for row in rows]).reshape(11, 11)
    assert np.array_equal(found, surface.loss.numpy())
    errors = np.array([float(row["loss_error"]) for row in rows]).reshape(11, 11)
    assert np.array_equal(errors, surface.loss_error.numpy())
    assert [float(row["beta"]) for row in rows[:11]] == surface.betas.tolist()


def test_controls_and_pictures_have_names_for_screen_readers(page):
    unnamed = page.evaluate("""() => [...document.querySelectorAll("select, input, button")]
        .filter((e) => !(e.labels && e.labels.length) && !e.textContent.trim()
                       && !e.getAttribute("aria-label")).map((e) => e.outerHTML)""")
    assert unnamed == []
    pictures = page.locator("[role=img]:visible")
    for number in range(pictures.count()):
        assert len(pictures.nth(number).get_attribute("aria-label")) > 20
