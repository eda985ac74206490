"""The scripts on runs of the digits, and their pictures."""

import sys

import pytest

from analysis import fig05, fig06, fig09, fig13, fig14, gallery
from analysis.records import run_script
from mining.__main__ import main

QUICK = ("data=digits", "data.num_examples=100", "train.epochs=2", "train.checkpoints=[0,1]")
QUICK += ("progress=false",)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("analysis")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    for arguments in (
        ("experiment=quickstart", "model=mlp", *QUICK),
        ("experiment=paper/fig05", "num_directions=4", "epoch=0,1", *QUICK),
        (
            "experiment=paper/fig06",
            "direction.num_samples=4",
            "epoch=0",
            "direction=most_overlapping",
            *QUICK,
        ),
        ("experiment=paper/fig06", "epoch=0", "direction=gradient", *QUICK),
        (
            "experiment=paper/fig13",
            "epoch=1",
            "num_examples=80",
            "spectrum.num_eigenvalues=3",
            "spectrum.density_steps=8",
            "spectrum.trace_products=40",
            "perturbation.num_samples=20",
            *QUICK,
        ),
        ("experiment=paper/fig14", "seed=0", "expansion.num_points=3", "grid.num=5", *QUICK),
        ("experiment=paper/fig09", "epoch=1", "num_examples=80", "grid.num=3", *QUICK),
        ("direction=eigenvectors", "num_directions=2", "epoch=1", "num_examples=80", *QUICK),
    ):
        patch.setattr(sys, "argv", ["mining", *arguments])
        main()
    yield folder / "outputs"
    patch.undo()


def call(script, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, arguments)])
    script.main()


def test_gallery_lists_and_draws_every_curve(outputs, tmp_path, monkeypatch, capsys):
    picture = tmp_path / "gallery.png"
    call(gallery, monkeypatch, "--outputs", outputs, "--picture", picture, "--data", "digits")
    table = capsys.readouterr().out
    header = table.splitlines()[0]
    for column in ("model", "checkpoint", "direction", "shape", "stationary points", "seconds"):
        assert column in header
    assert "loss at α=0" in header
    for direction in ("gaussian 5", "negative gradient", "to E=2", "to E'=2"):
        assert direction in table
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_fig05_lists_ranges_and_draws_them(outputs, tmp_path, monkeypatch, capsys):
    picture = tmp_path / "fig05.png"
    call(fig05, monkeypatch, "--outputs", outputs, "--picture", picture)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[1:3]] == ["E=0", "E=1"]
    assert picture.exists()


def test_fig06_compares_the_descents(outputs, tmp_path, monkeypatch, capsys):
    picture = tmp_path / "fig06.png"
    call(fig06, monkeypatch, "--outputs", outputs, "--picture", picture)
    assert len(capsys.readouterr().out.splitlines()) == 1 + 3 + 1
    assert picture.exists()


def test_fig06_draws_every_seed(outputs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(outputs.parent)
    for source in ("gradient", "most_overlapping"):
        arguments = ("experiment=paper/fig06", "epoch=0", f"direction={source}", "seed=8", *QUICK)
        monkeypatch.setattr(sys, "argv", ["mining", *arguments])
        main()
    capsys.readouterr()
    call(fig06, monkeypatch, "--outputs", outputs, "--picture", tmp_path / "fig06.png")
    names = [line.split()[:4] for line in capsys.readouterr().out.splitlines()[1:-1]]
    assert sorted({name[3] for name in names}) == ["0", "8"]
    assert len(names) == 2 * 3


def test_fig06_passes_over_points_without_every_scale(outputs, tmp_path, monkeypatch, capsys):
    arguments = ("--outputs", outputs, "--picture", tmp_path / "fig06.png")
    call(fig06, monkeypatch, *arguments)
    before = capsys.readouterr().out
    stray = ("direction=most_overlapping", "direction.num_samples=2", "seed=4", *QUICK)
    monkeypatch.chdir(outputs.parent)
    monkeypatch.setattr(sys, "argv", ["mining", *stray])
    main()
    capsys.readouterr()
    call(fig06, monkeypatch, *arguments)
    assert capsys.readouterr().out == before


def test_fig13_shows_spectrum_and_perturbation_of_every_point(
    outputs, tmp_path, monkeypatch, capsys
):
    picture = tmp_path / "fig13.png"
    call(fig13, monkeypatch, "--outputs", outputs, "--picture", picture)
    spectra, changes = capsys.readouterr().out.split("\n\n")
    assert len(spectra.splitlines()) == 2
    header, *rows, path = changes.splitlines()[1:]
    assert "as Eq. 4 prints" in header
    assert [row.split()[4] for row in rows] == ["0.001", "0.01"]
    assert path == str(picture)
    assert picture.exists()


def test_fig14_lists_every_parabola(outputs, tmp_path, monkeypatch, capsys):
    picture = tmp_path / "fig14.png"
    call(fig14, monkeypatch, "--outputs", outputs, "--picture", picture)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 2 * 3 + 1
    assert "from E=0" in lines[1]
    assert "gaussian" in lines[-2]
    assert picture.exists()


def test_fig09_compares_directions_with_eigenvectors(outputs, tmp_path, monkeypatch, capsys):
    picture = tmp_path / "fig09.png"
    call(fig09, monkeypatch, "--outputs", outputs, "--picture", picture)
    table = capsys.readouterr().out
    for name in ("P.E.1", "N.E.1"):  # computed from other start vectors, to a residual of 1e-3
        (row,) = (
            line
            for line in table.splitlines()
            if line.split()[-2:-1] == [name] and line.split().count(name) == 2
        )
        assert float(row.split()[-1]) == pytest.approx(1, abs=1e-3)
    for direction in ("gaussian", "negative gradient", "to E=2"):
        assert direction in table
    assert picture.exists()


def test_gallery_names_the_models_there_are(outputs, monkeypatch):
    with pytest.raises(ValueError, match="no curve run with --model nope; there are mlp"):
        call(gallery, monkeypatch, "--outputs", outputs, "--model", "nope")


@pytest.mark.parametrize("script", [gallery, fig05, fig06, fig09, fig13, fig14])
def test_missing_runs_name_the_command_that_makes_them(script, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="Make it: python -m mining experiment="):
        call(script, monkeypatch, "--outputs", tmp_path)


def test_a_script_says_in_one_line_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gallery", "--outputs", str(tmp_path)])
    with pytest.raises(
        SystemExit, match=r"^error: No finished run in .* Make it: python -m mining"
    ):
        run_script(gallery.main)
