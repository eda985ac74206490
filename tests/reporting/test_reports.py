"""What a report holds: the numbers of its runs, exact, and where curves lie on surfaces."""

import sys

import numpy as np
import pytest
import torch
from command_line import QUICK, record
from pages import bowl, content_of, decoded, evaluated_surface, parabola, small_landscape, wells

from mining import Curve, Direction, InputError, find_basins, report
from mining.app.command_line import main
from mining.curvature import SpectralDensity
from mining.curvature.outliers import count_outliers
from mining.evaluation.storage import load_curves, load_surface
from mining.reporting.encoding import as_json, encode
from mining.reporting.places import Plane
from mining.storage.files import read_arrays
from mining.storage.records import load_record

MEGABYTE = 1_000_000


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["mining", *map(str, arguments)])
    main()


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """A surface with the path of its training, a curve between two of its points, and others."""
    folder = tmp_path_factory.mktemp("runs")
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    for arguments in (
        ["view=trajectory", "grid.num=7", "size=smoke"],
        ["view=subsequent", "grid.num=6"],
        ["pipeline=spectrum", "spectrum.num_eigenvalues=2", "spectrum.density_steps=8"],
        ["pipeline=layers", "layers.density_steps=6", "layers.density_probes=2"],
        ["pipeline=curve", "seed=1", "tolerance=0.1", "grid.num=5"],
    ):
        command(patch, *QUICK, *arguments)
    yield folder / "outputs"
    patch.undo()


@pytest.fixture(scope="module")
def written(outputs):
    """The content of the report of all runs."""
    patch = pytest.MonkeyPatch()
    command(patch, "report", "--folder", outputs)
    patch.undo()
    return content_of(outputs / "report.html")


def test_a_report_has_the_numbers_of_the_runs_to_the_last_bit(outputs, written):
    (shown,) = written["surfaces"]
    (path,) = outputs.glob("surface/*/*/surface.npz")
    surface = load_surface(path)
    for name in ("alphas", "betas", "loss", "accuracy"):
        assert np.array_equal(decoded(shown[name]), getattr(surface, name).numpy())
    assert shown["path"]["names"] == list(surface.path_names)
    curves = {c["name"]: c for c in written["curves"] if c.get("of_surface") is None}
    for path in outputs.glob("curve/*/*/curves.npz"):
        for curve in load_curves(path):
            assert np.array_equal(decoded(curves[curve.name]["loss"]), curve.loss.numpy())


def test_a_report_has_the_basins_that_a_run_recorded(outputs, written):
    (path,) = outputs.glob("surface/*/*/run.json")
    (shown,) = written["surfaces"]
    assert shown["basins"] == record(path.parent)["metrics"]["basins"]
    assert shown["basins"]


def test_a_report_finds_the_basins_of_a_surface_of_python(tmp_path):
    surface = wells()
    content = content_of(report(surface, output=tmp_path / "page.html"))
    deep, shallow = content["surfaces"][0]["basins"]
    assert (deep["at"], shallow["at"]) == ([0.5, 0.0], [-0.5, 0.0])
    at_saddle = surface.loss[:, 4][4:13].max()
    assert shallow["depth"] == pytest.approx(float(at_saddle - surface.loss[4, 4]))
    assert shallow["joins"] == 0
    assert len(find_basins(surface)) == 2
    assert any("has 2 basins inside" in s for s in content["networks"][0]["summary"]["θ"])


def test_a_report_has_density_and_outliers_of_every_layer(outputs, written):
    (item,) = written["layers"]
    files = sorted(outputs.glob("layers/*/*/*_0*.npz"))
    assert len(item["blocks"]) == len(files) == len(item["rows"])
    rows = [dict(zip(item["columns"], row, strict=True)) for row in item["rows"]]
    known = {(row["operator"], row["layer"]): row for row in rows}
    for path, block in zip(files, item["blocks"], strict=True):
        arrays, density = read_arrays(path), load_record(path, SpectralDensity)
        points = torch.from_numpy(decoded(block["density"]["points"]).copy())
        expected = density.evaluate(points).mean(0).numpy()
        assert np.array_equal(decoded(block["density"]["mean"]), expected)
        assert block["eigenvalues"] == arrays["eigenvalues"].tolist()
        values, residuals = (torch.tensor(block[n]) for n in ("eigenvalues", "residuals"))
        found = count_outliers(values.double(), residuals.double(), zero=density.zero)
        assert known[block["operator"], block["layer"]]["outliers"] == found.count


def test_a_curve_between_checkpoints_lies_on_the_surface_of_their_path(written):
    (shown,) = written["surfaces"]
    path = np.stack([decoded(shown["path"][axis]) for axis in "xy"], 1)
    names = shown["path"]["names"]
    (curve,) = [c for c in written["curves"] if c["name"].startswith("to E=")]
    place, alphas = curve["place"]["0"], decoded(curve["alphas"])
    start, end = path[names.index("E=1")], path[names.index("E=3")]
    found = np.stack([decoded(place[axis]) for axis in "xy"], 1)
    assert place["share"] == pytest.approx(1, abs=1e-3)  # float32 weights
    expected = start + alphas[:, None] * (end - start)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_every_run_has_its_command_digest_versions_and_seed(written):
    assert len(written["runs"]) >= 5  # the training, too
    for run in written["runs"]:
        assert run["command"].startswith("python -m mining ")
        assert len(run["digest"]) == 64
        assert run["versions"]["torch"] == torch.__version__.partition("+")[0]
        assert run["seed"] in (0, 1)
    typed = [run["typed"] for run in written["runs"] if run["typed"]]
    assert any("view=trajectory" in line for line in typed)


def test_conditions_choose_runs(outputs, tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.html"
    command(monkeypatch, "report", outputs, "seed=1", "pipeline=curve", "--output", page)
    assert capsys.readouterr().out.splitlines()[-1] == str(page)
    (run,) = content_of(page)["runs"]
    assert run["seed"] == 1
    report(run["directory"], output=page)
    assert content_of(page)["runs"][0]["digest"] == run["digest"]
    with pytest.raises(SystemExit):
        command(monkeypatch, "report", outputs, "seed=5")
    assert "No finished run has seed=5" in capsys.readouterr().err


def test_a_page_is_small(tmp_path):
    page = report(bowl(11), output=tmp_path / "page.html")
    small = page.stat().st_size
    assert small < 6 * MEGABYTE
    report(bowl(101, error=True), output=page)
    assert page.stat().st_size - small < MEGABYTE


def test_curves_and_surfaces_of_python_are_shown(tmp_path):
    landscape = small_landscape()
    surface, _ = evaluated_surface(landscape)
    page = report(surface, [parabola(), parabola("other")], output=tmp_path / "page.html")
    content = content_of(page)
    (network,) = content["networks"]
    assert network["summary"]["θ"][-1] == (
        "Along the direction “other”: v-basin (one valley, with θ at its bottom)."
    )
    assert np.array_equal(decoded(content["surfaces"][0]["loss"]), surface.loss.numpy())
    own = [curve for curve in content["curves"] if curve.get("of_surface") is None]
    assert [(curve["name"], curve["label"]) for curve in own] == [
        ("gaussian 1", "v-basin"),
        ("other", "v-basin"),
    ]
    error = decoded(own[0]["loss_error"])
    np.testing.assert_allclose(error, 0.01 * parabola().loss.numpy())


def test_losses_that_are_not_finite_stay_what_they_are(tmp_path):
    alphas = torch.linspace(-1, 1, 5, dtype=torch.float64)
    loss = torch.tensor([torch.inf, 1.0, 0.5, 1.0, torch.nan], dtype=torch.float64)
    page = report(Curve(alphas, loss, name="</script><b>"), output=tmp_path / "page.html")
    (curve,) = content_of(page)["curves"]
    assert np.array_equal(decoded(curve["loss"]), loss.numpy(), equal_nan=True)
    assert (curve["name"], curve["label"]) == ("</script><b>", "exploded")


def test_text_cannot_end_the_script_that_holds_it():
    assert "<" not in as_json({"a": "</script><!--"})
    assert decoded(encode(torch.tensor([[1 / 3]])))[0, 0] == np.float32(1 / 3)


def test_a_direction_is_projected_onto_a_plane_that_is_not_orthogonal():
    generator = torch.Generator().manual_seed(0)
    x, y, other = torch.randn(3, 50, generator=generator, dtype=torch.float64)
    basis, _ = torch.linalg.qr(torch.stack([x, y], 1))
    outside = other - basis @ (basis.T @ other)
    plane = Plane(torch.stack([x, y]), "E=2", bowl())
    vector = 2 * x - 3 * y + outside
    alphas = torch.tensor([0.0, 0.5], dtype=torch.float64)
    place = plane.place(Direction(vector, "d", 0), alphas, "E=1")
    np.testing.assert_allclose(decoded(place["x"]), [0.5, 1.5])
    np.testing.assert_allclose(decoded(place["y"]), [-0.25, -1.75], rtol=1e-6)
    inside = float((2 * x - 3 * y).norm() / vector.norm())
    assert place["share"] == pytest.approx(inside)
    assert plane.place(Direction(vector, "d", 0), alphas, "E=9") is None
    assert plane.place(Direction(vector[:9], "d", 0), alphas, "E=2") is None


def test_what_cannot_be_shown_is_refused(tmp_path):
    with pytest.raises(InputError, match="nothing to show"):
        report(output=tmp_path / "page.html")
    with pytest.raises(InputError, match="got int"):
        report([3], output=tmp_path / "page.html")
    (tmp_path / "curve/a/b").mkdir(parents=True)
    with pytest.raises(InputError, match="holds no finished run"):
        report(tmp_path, output=tmp_path / "page.html")
