"""Every figure of the paper at its smallest, and the scripts that draw them."""

import functools
import sys
from pathlib import Path
from runpy import run_module

import pandas as pd
import pytest
from hydra.plugins.sweeper import Sweeper

from analysis import archive, claims, gallery, records
from analysis.records import experiment_runs, run_script, tell_apart
from analysis.xu2024 import overlaps as overlaps_script
from analysis.xu2024.figures import FIGURES as TABLE
from analysis.xu2024.overlaps import overlaps
from mining.app.command_line import main
from mining.app.experiments import plan
from mining.storage.table import read_runs

EXPERIMENTS = Path(__file__).parents[2] / "conf/experiment/xu2024"
FIGURES = sorted(path.stem for path in EXPERIMENTS.glob("fig*.yaml"))
QUICK = ("data=digits", "data.num_examples=100", "train.epochs=2", "train.checkpoints=[0,1]")
QUICK += ("progress=false",)
SMOKE = ("size=smoke", "num_threads=1", "progress=false")


#: Experiments that the tests run on one of their networks only, for the sake of time.
ON_ONE_NETWORK = {"fig02", "fig07", "fig08", "fig09", "fig10", "fig11", "fig12", "fig13", "fig14"}


#: Experiments of many windows or epochs of the ResNet, run along one direction for the same reason.
ALONG_ONE_DIRECTION = {"figA15", "figB16", "figB17"}


def of(figure):
    """What the tests run a figure with."""
    fewer = ["subject=mlp"] * (figure in ON_ONE_NETWORK)
    return ["size=smoke", *fewer, *["num_directions=1"] * (figure in ALONG_ONE_DIRECTION)]


def mine(*arguments):
    patch = pytest.MonkeyPatch()
    patch.setattr(sys, "argv", ["mining", *arguments])
    main()
    patch.undo()


@pytest.fixture(scope="module", autouse=True)
def composed_once():
    """Compose the configurations of an experiment once, not for every script and again per sweep.

    Hydra takes a fifth of a second for each.
    """
    patch = pytest.MonkeyPatch()
    kept = functools.cache(plan)
    patch.setattr(records, "plan", lambda arguments: kept(tuple(arguments)))
    patch.setattr(Sweeper, "validate_batch_is_legal", lambda self, batch: None)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A working directory in which every figure has been computed."""
    folder = tmp_path_factory.mktemp("analysis")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    for figure in FIGURES:
        mine(f"experiment=xu2024/{figure}", *of(figure), *SMOKE[1:])
    mine("experiment=quickstart", "model=mlp", "outputs=quick", *QUICK)
    yield folder
    patch.undo()


def test_drawn_curves_are_shown_with_their_template(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["size=smoke", "direction.basins=3", "model.hidden=[8]", "train.epochs=20"]
    arguments += ["train.checkpoints=[0]", "progress=false"]
    mine("experiment=xu2024/multipoint", *arguments)
    draw("multipoint", monkeypatch, *arguments, "--picture", tmp_path / "multipoint.png")
    printed = capsys.readouterr().out
    assert "1 hidden" in printed  # what it reaches, by depth
    assert "not decided" in printed
    assert (tmp_path / "multipoint.png").stat().st_size > 10_000


def call(script, monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [script.__name__, *map(str, arguments)])
    script.main()


def draw(figure, monkeypatch, *arguments):
    """Run the script of a figure as ``python -m`` does."""
    monkeypatch.setattr(sys, "argv", [figure, *map(str, arguments)])
    run_module(f"analysis.xu2024.{figure}", run_name="__main__")


@pytest.mark.parametrize("figure", FIGURES)
def test_every_figure_is_drawn_with_its_numbers(work, figure, tmp_path, monkeypatch, capsys):
    picture = tmp_path / "picture.png"
    draw(figure, monkeypatch, *of(figure), "--picture", picture)
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-2:] == [str(picture), str(tmp_path / "picture.csv")]
    assert printed.err == ""  # no run is missing
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert len(pd.read_csv(tmp_path / "picture.csv")) > 10


@pytest.mark.parametrize("figure", ["fig02", "fig09", "fig14", "figB16", "figB17"])
def test_panels_of_a_figure_say_in_what_they_differ(work, figure):
    runs = list(experiment_runs(f"xu2024/{figure}", of(figure)).itertuples())
    shown = {
        (run.pipeline, about, str(run.metrics.get("directions", run.metrics.get("direction"))))
        for run, about in zip(runs, tell_apart(runs), strict=True)
    }
    assert len(shown) == len(runs)


def test_every_experiment_has_a_row_in_the_table():
    assert sorted(TABLE) == sorted(path.stem for path in EXPERIMENTS.iterdir())


@pytest.mark.parametrize("figure", TABLE)
def test_every_figure_says_what_it_shows_and_how_to_make_it(figure, monkeypatch, capsys):
    with pytest.raises(SystemExit, match="0"):
        draw(figure, monkeypatch, "--help")
    told = " ".join(capsys.readouterr().out.split())
    command = f"python -m mining experiment=xu2024/{figure}"
    assert TABLE[figure][0] in told
    assert command in told
    about = (EXPERIMENTS / f"{figure}.yaml").read_text()
    assert f"{command} && python -m analysis.xu2024.{figure}\n" in about


def test_numbers_are_those_of_the_runs(work, tmp_path, monkeypatch):
    draw("fig04", monkeypatch, "size=smoke", "--picture", tmp_path / "a.png")
    written = pd.read_csv(tmp_path / "a.csv")
    run = next(experiment_runs("xu2024/fig04", ["size=smoke"]).itertuples())
    name = f"{run.model}-{run.data}, E=0"
    at_theta = written[(written.run == name) & (written.alpha == 0)].loss
    assert at_theta.tolist() == pytest.approx([run.metrics["loss_at_theta"]] * 2, rel=1e-5)


@pytest.mark.parametrize(("suffix", "header"), [("pdf", b"%PDF-"), ("svg", b"<?xml")])
def test_the_suffix_of_the_picture_is_its_format(work, tmp_path, monkeypatch, suffix, header):
    picture = tmp_path / f"fig04.{suffix}"
    draw("fig04", monkeypatch, "size=smoke", "--picture", picture, "--width", 7)
    content = picture.read_bytes()
    assert content.startswith(header)
    assert (b"/MediaBox [ 0 0 504 " if suffix == "pdf" else b'width="504pt"') in content


def test_a_script_draws_with_the_colormap_asked_for(work, tmp_path, monkeypatch, capsys):
    paths = [tmp_path / name for name in ("own.png", "cividis.png")]
    for path, options in zip(paths, ([], ["--colormap", "cividis"]), strict=True):
        draw("fig04", monkeypatch, "size=smoke", "--picture", path, *options)
    assert paths[0].read_bytes() != paths[1].read_bytes()
    with pytest.raises(SystemExit, match=r"picture.colormap must be .*did you mean cividis"):
        draw("fig04", monkeypatch, "size=smoke", "--colormap", "civids")
    with pytest.raises(SystemExit, match=r"picture.format must be png or pdf or svg, got 'jpg'"):
        draw("fig04", monkeypatch, "size=smoke", "--picture", "a.jpg")


def test_fig05_lists_ranges(work, tmp_path, monkeypatch, capsys):
    draw("fig05", monkeypatch, "size=smoke", "--picture", tmp_path / "fig05.png")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[1:5]] == ["E=0", "E=10", "E=50", "E=100"]


def test_fig06_compares_the_descents(work, tmp_path, monkeypatch, capsys):
    draw("fig06", monkeypatch, "size=smoke", "--picture", tmp_path / "fig06.png")
    assert len(capsys.readouterr().out.splitlines()) == 1 + 2 * 3 + 2


def test_fig06_passes_over_points_without_every_scale(work, tmp_path, monkeypatch, capsys):
    window = "grid={low:-0.1,high:0.1}"
    mine("experiment=xu2024/fig06", "seed=3", "epoch=0", window, *SMOKE)
    capsys.readouterr()
    with pytest.raises(SystemExit, match="No point has a run at every s yet"):
        draw("fig06", monkeypatch, "size=smoke", "seed=3", "--picture", tmp_path / "a.png")
    assert "14 of 16 runs are missing. Make them: python -m mining" in capsys.readouterr().err


def test_fig13_shows_spectrum_and_perturbation_of_every_point(work, tmp_path, monkeypatch, capsys):
    draw("fig13", monkeypatch, *of("fig13"), "--picture", tmp_path / "fig13.png")
    spectra, changes = capsys.readouterr().out.split("\n\n")
    assert len(spectra.splitlines()) == 1 + 4
    header, *rows = changes.splitlines()[1:-2]
    assert "as Eq. 4 prints" in header
    assert [row.split()[2] for row in rows] == ["0.001", "0.01"] * 4


def test_fig14_lists_every_parabola(work, tmp_path, monkeypatch, capsys):
    draw("fig14", monkeypatch, "size=smoke", "subject=mlp", "--picture", tmp_path / "fig14.png")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 4 * 5 + 2
    assert "gaussian" in lines[1]
    assert "from E=0" in lines[-3]


def test_overlaps_with_eigenvectors_are_those_of_eigenvectors(work, capsys):
    """Computed from other start vectors, to a residual of 1e-3."""
    mine("direction=eigenvectors", "num_directions=2", "epoch=10", "subject=mlp", *SMOKE)
    directory = Path(capsys.readouterr().out.splitlines()[-1])
    spectra = experiment_runs("xu2024/fig13", ["size=smoke", "subject=mlp"])
    found = overlaps(read_runs([directory]), spectra)
    assert [item["direction"] for item in found] == ["P.E.1", "N.E.1"]
    for item in found:
        name = item["direction"]
        assert max(item["cosines"], key=item["cosines"].__getitem__) == name
        assert item["cosines"][name] == pytest.approx(1, abs=1e-3)


def test_fig09_lists_mined_curves_and_overlaps(work, tmp_path, monkeypatch, capsys):
    draw("fig09", monkeypatch, *of("fig09"), "--picture", tmp_path / "fig09.png")
    printed = capsys.readouterr().out
    for direction in ("gaussian", "negative gradient", "mined w-peak"):
        assert direction in printed


def test_claims_are_judged_by_the_runs_of_every_figure(work, tmp_path, monkeypatch, capsys):
    path = tmp_path / "claims.csv"
    call(claims, monkeypatch, "xu2024", "size=smoke", "--csv", path)
    written = pd.read_csv(path)
    mine = [claim for claim in claims.CLAIMS if claim.paper == "xu2024"]
    named = {criterion.name for claim in mine for criterion in claim.criteria}
    # Overlaps are of kept records; the figure of 6b is of the MLP alone here; 1e tells of
    # stationary points besides θ, and 5b of peaks early in training, where there are any.
    assert named - set(written.criterion.astype(str)) <= {"5c", "5d", "6b", "1e", "5b"}
    resnets = {"cifar_resnet8-digits", "cifar_resnet8-digits, no skip connections"}
    assert set(written.network) == {"mlp-digits"} | resnets
    assert set(written.verdict) == {"not decided"}  # of one or two trainings
    assert set(written.n) == {1, 2}
    printed = capsys.readouterr().out
    assert all(statement in printed for statement in written.statement)


def test_overlaps_are_kept_with_the_records_of_mined_curves(work, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_FOLDER", tmp_path)
    call(overlaps_script, monkeypatch, *of("fig09"))
    kept = archive.read_archive("xu2024/fig09")
    cosines = [record.metrics["cosines"] for record in kept if record.metrics["cosines"]]
    assert cosines
    assert all(0 <= cosine <= 1 for found in cosines for cosine in found.values())


def test_claims_name_the_commands_of_missing_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(claims, "CLAIMS", claims.CLAIMS[1:3])
    with pytest.raises(FileNotFoundError) as raised:
        call(claims, monkeypatch, "seed=77", "--csv", tmp_path / "claims.csv")
    for figure in ("fig05", "fig04", "fig07"):
        assert f"python -m mining experiment=xu2024/{figure} seed=77" in str(raised.value)


def test_gallery_lists_and_draws_every_curve(work, tmp_path, monkeypatch, capsys):
    picture = tmp_path / "gallery.png"
    call(gallery, monkeypatch, "--outputs", work / "quick", "--picture", picture)
    table = capsys.readouterr().out
    header = table.splitlines()[0]
    for column in ("model", "checkpoint", "direction", "shape", "stationary points", "seconds"):
        assert column in header
    assert "loss at α=0" in header
    for direction in ("gaussian 5", "negative gradient", "to E=2", "to E'=2"):
        assert direction in table
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_gallery_names_the_models_there_are(work, monkeypatch):
    with pytest.raises(ValueError, match="no curve run with --model nope; there are mlp"):
        call(gallery, monkeypatch, "--outputs", work / "quick", "--model", "nope")


@pytest.mark.parametrize("figure", FIGURES)
def test_missing_runs_name_the_command_that_makes_them(figure, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = f"python -m mining experiment=xu2024/{figure} size=smoke"
    with pytest.raises(SystemExit, match=f"Make them: {command}"):
        draw(figure, monkeypatch, "size=smoke")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("subjct=mlp", "Could not override 'subjct'"),
        ("subject=nope", "Could not find 'subject/nope' Available options in 'subject': densenet"),
        ("size=", "Could not find 'size/' Available options in 'size': cpu"),
        ("size", "size"),
    ],
)
def test_scripts_refuse_what_the_command_refuses(tmp_path, monkeypatch, argument, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=message):
        draw("fig08", monkeypatch, argument)


def test_a_script_says_in_one_line_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["gallery", "--outputs", str(tmp_path)])
    with pytest.raises(
        SystemExit, match=r"^error: No finished run in .* Make it: python -m mining"
    ):
        run_script(gallery.main)


@pytest.mark.parametrize(
    "arguments",
    [
        ["experiment=xu2024/fig04"],
        ["experiment=xu2024/fig06", "grid={low:-0.1,high:0.1}", "seed=0,2"],
        ["experiment=xu2024/fig08", "subject=mlp", "view=glob(*_eigenvector)", "epoch=10"],
    ],
    ids=" ".join,
)
def test_a_plan_is_what_the_command_makes(work, capsys, arguments):
    mine(*arguments, *SMOKE)
    printed = [Path(line).resolve() for line in capsys.readouterr().out.splitlines()]
    assert [run.directory.resolve() for run in plan([*arguments, "size=smoke"])] == printed


def test_sizes_differ_in_every_run():
    for figure in ("fig02", "fig05", "fig10"):
        arguments = [f"experiment=xu2024/{figure}", "subject=mlp"]
        runs = [plan([*arguments, f"size={size}"]) for size in ("cpu", "paper")]
        cpu, paper = ({run.directory for run in planned} for planned in runs)
        assert not cpu & paper, figure
