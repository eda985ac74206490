"""A served report in a real browser: lines that are drawn on the contours are evaluated."""

import shutil

import pytest
import torch
from command_line import QUICK
from exploring import running
from test_explore import command
from test_report_in_browser import FLAGS, SMALL

from mining.app.explore import serve
from mining.app.reports import find_runs

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of one surface, served."""
    playwright = pytest.importorskip("playwright.sync_api")
    folder = tmp_path_factory.mktemp("served")
    torch.set_num_threads(1)
    command(folder, *QUICK, "pipeline=surface", "grid.num=5")
    server = serve(find_runs([folder / "outputs"], ["pipeline=surface"]), "explore")
    with running(server), playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        opened = browser.new_page(viewport={"width": 1000, "height": 700})
        problems = []
        opened.on("pageerror", lambda error: problems.append(error.stack))
        opened.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        opened.set_default_timeout(120_000)
        opened.add_init_script(SMALL)
        opened.goto(server.url)
        opened.wait_for_selector("body[data-ready]")
        yield opened
        assert problems == []
        browser.close()


def pixels(page, x, y):
    """Where on the screen a point of the contours is."""
    page.locator("#contours").scroll_into_view_if_needed()
    return page.evaluate(
        """([x, y]) => {
            const box = at("contours").getBoundingClientRect();
            const { xaxis, yaxis } = at("contours")._fullLayout;
            const [left, top] = [xaxis._offset + xaxis.d2p(x), yaxis._offset + yaxis.d2p(y)];
            return [box.left + left, box.top + top];
        }""",
        [x, y],
    )


def newest(page, before):
    page.wait_for_function("n => curves.length > n && exploring.job === null", arg=before)
    return page.evaluate("curves.at(-1)")


def count(page):
    return page.evaluate("curves.length")


def test_a_line_that_is_drawn_is_evaluated_and_labelled(page):
    before = count(page)
    start, end = pixels(page, -0.5, -0.5), pixels(page, 0.5, 0.25)
    page.mouse.move(*start)
    page.mouse.down()
    page.mouse.move(*end, steps=4)
    page.mouse.up()
    curve = newest(page, before)
    # To a pixel.
    assert curve["place"]["0"]["x"][0] == pytest.approx(-0.5, abs=0.02)
    assert curve["place"]["0"]["y"][-1] == pytest.approx(0.25, abs=0.02)
    assert len(curve["loss"]) == 41
    assert curve["label"] in page.locator("#labels").inner_text()
    assert curve["name"] in page.locator("#labels").inner_text()
    assert curve["label"] in page.locator("#line-told").inner_text()
    assert page.evaluate("curves[state.curve].name") == curve["name"]


def test_a_click_evaluates_the_line_through_theta(page):
    before = count(page)
    page.mouse.click(*pixels(page, 0.5, 0.5))
    curve = newest(page, before)
    assert curve["alphas"][0] == -1
    assert curve["place"]["0"]["x"][-1] == pytest.approx(0.5, abs=0.02)
    origin = curve["alphas"].index(0)
    assert curve["loss"][origin] == page.evaluate("surfaces[0].loss[2][2]")


def test_the_same_by_keyboard(page):
    before = count(page)
    for name, value in {"start-x": "-1", "start-y": "0", "end-x": "1", "end-y": "0"}.items():
        page.fill(f"#line-{name}", value)
    page.fill("#line-num", "5")
    page.locator("#line-num").press("Enter")
    curve = newest(page, before)
    assert curve["loss"] == page.evaluate("surfaces[0].loss.map((row) => row[2])")
    page.fill("#line-end-x", "")
    page.locator("#line-form button[type=submit]").click()
    page.locator("#line-told", has_text="Give α and β").wait_for()
