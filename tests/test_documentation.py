"""README and docs: links lead somewhere, commands are valid, and the README's example runs."""

import re
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
from command_line import QUICK
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

import mining
from mining.app.arguments import with_packages
from mining.app.command_line import main
from mining.app.experiments import plan, register_resolvers
from mining.app.hydra_versions import VERSION
from mining.app.runs import parse as parse_runs

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
PYTHON = re.compile(r"\.venv/bin/python -m (\S+)([^#&\n]*)")


def prose(page):
    return re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


@cache
def anchors(page):
    """List the anchors of the headings of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_and_pictures_exist(page):
    for target in re.findall(r"\]\(([^)]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.is_file(), target
        assert linked.is_relative_to(ROOT), target
        assert not anchor or anchor in anchors(linked), target


def test_every_page_is_in_the_index():
    listed = set(re.findall(r"\]\((\w[\w-]*\.md)\)", (ROOT / "docs/index.md").read_text()))
    assert listed == {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_are_valid(page):
    register_resolvers()
    for module, rest in (found for block in blocks(page, "") for found in PYTHON.findall(block)):
        arguments = [argument.strip("'") for argument in rest.replace("='", "=").split()]
        if arguments[:1] == ["runs"]:
            assert parse_runs(arguments[1:])
        elif module != "mining":
            assert find_spec(module) is not None, module
        elif arguments[:1] == ["-m"]:
            assert plan(arguments[1:])
        elif arguments[:1] != ["--help"]:
            with initialize_config_module("mining.conf", **VERSION):
                config = compose("config", with_packages(arguments))
            OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


def test_the_example_of_the_readme_prints_what_it_says(capsys):
    (example,) = blocks(ROOT / "README.md", "python")
    exec(compile(example, "README.md", "exec"), {})
    (promised,) = re.findall(r"This prints `(.*?)`", (ROOT / "README.md").read_text())
    assert capsys.readouterr().out.splitlines() == [promised]


def test_the_tutorial_prints_what_it_says(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs/tutorial.md"
    found = re.findall(r"```(python|text)\n(.*?)```", page.read_text(), re.DOTALL)
    names: dict = {}
    for number, (language, block) in enumerate(found):
        if language == "python":
            exec(compile(block, f"docs/tutorial.md, block {number}", "exec"), names)
        else:
            printed, promised = capsys.readouterr().out.split(), block.split()
            assert [word for word in printed if not is_number(word)] == [
                word for word in promised if not is_number(word)
            ]
            # The rounding of a processor is amplified by training.
            numbers = ([float(w) for w in words if is_number(w)] for words in (printed, promised))
            assert next(numbers) == pytest.approx(next(numbers), rel=0.3, abs=0.01)
    assert (tmp_path / "surface.png").exists()


def is_number(word):
    return re.fullmatch(r"-?[\d.]+", word) is not None


def test_the_site_has_every_page_and_every_public_name():
    contents = (ROOT / "docs/_toc.yml").read_text()
    entries = set(re.findall(r"file: docs/([\w-]+)$", contents, re.MULTILINE))
    assert entries == {page.stem for page in (ROOT / "docs").glob("*.md")}
    listed = re.findall(
        r"auto(?:class|function):: mining\.(\w+)",
        "".join(page.read_text() for page in (ROOT / "docs/reference").glob("*.rst")),
    )
    assert sorted(listed) == sorted(mining.__all__)


def test_the_examples_of_hugging_face_run(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for number, block in enumerate(blocks(ROOT / "docs/hugging-face.md", "python")):
        exec(compile(block, f"docs/hugging-face.md, block {number}", "exec"), names)
    assert names["surface"].accuracy.shape == (5, 5)
    assert names["pairs"].values[0] > names["pairs"].values[1]
    assert names["line"].accuracy is None
    assert len(names["head"].theta) == 16 * 3 + 3


def test_the_example_of_a_figure_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["mining", *QUICK, "grid.num=5"])
    main()
    (example,) = blocks(ROOT / "docs/figures.md", "python")
    exec(compile(example, "docs/figures.md", "exec"), {})
    assert (tmp_path / "curves.pdf").read_bytes().startswith(b"%PDF")


def test_the_example_of_an_objective_runs():
    (example,) = blocks(ROOT / "docs/losses.md", "python")
    names: dict = {}
    exec(compile(example, "docs/losses.md", "exec"), names)
    assert names["curve"].loss.isfinite().all()
    assert names["pairs"].values.shape == (2,)
