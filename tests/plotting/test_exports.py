"""Surfaces and labels in the formats of other programs, read by those programs."""

import shutil
import subprocess

import numpy as np
import pytest
import torch

from mining import Curve, InputError, Surface, export_surface, latex_table
from mining.plotting.latex import escape

vtk = pytest.importorskip("vtk")


def surface(*, gap=False):
    alphas = torch.arange(-2, 3, dtype=torch.float64) / 2
    betas = torch.tensor([-0.5, 0.0, 1.0], dtype=torch.float64)
    loss = 0.1 + alphas[:, None] ** 2 + 3 * betas**2
    if gap:
        loss[0, 0] = torch.nan
    return Surface(alphas, betas, loss, accuracy=1 - loss / 10, names=("x", "y"))


def points_of(data):
    from vtk.util.numpy_support import vtk_to_numpy

    return vtk_to_numpy(data.GetPoints().GetData())


def read(reader, path):
    reader.SetFileName(str(path))
    reader.Update()
    return reader.GetOutput()


def test_vtk_reads_every_number_of_a_structured_grid(tmp_path):
    from vtk.util.numpy_support import vtk_to_numpy

    export_surface(surface(gap=True), tmp_path / "surface.vts", loss_cap=2.0)
    data = read(vtk.vtkXMLStructuredGridReader(), tmp_path / "surface.vts")
    assert data.GetExtent() == (0, 4, 0, 2, 0, 0)
    points, expected = points_of(data).reshape(3, 5, 3), surface(gap=True)
    assert np.array_equal(points[..., 0], np.tile(expected.alphas, (3, 1)))
    assert np.array_equal(points[..., 1], np.tile(expected.betas[:, None], 5))
    heights = np.minimum(expected.loss.nan_to_num(2.0).T, 2.0)
    assert np.array_equal(points[..., 2], heights)
    for name in ("loss", "accuracy"):
        found = vtk_to_numpy(data.GetPointData().GetArray(name)).reshape(3, 5)
        assert np.array_equal(found, getattr(expected, name).T, equal_nan=True)


@pytest.mark.parametrize("suffix", [".ply", ".obj"])
def test_a_mesh_has_the_area_of_the_surface_and_a_gap_where_no_loss_is(tmp_path, suffix):
    path = tmp_path / f"surface{suffix}"
    reader = {".ply": vtk.vtkPLYReader, ".obj": vtk.vtkOBJReader}[suffix]
    flat = surface()
    flat = Surface(flat.alphas, flat.betas, torch.ones(5, 3).double(), names=flat.names)
    for drawn, gap, area in ((flat, 0, 3.0), (surface(gap=True), 1, None)):
        export_surface(drawn, path)
        data = read(reader(), path)
        assert data.GetNumberOfPoints() == 15
        assert data.GetNumberOfCells() == 2 * (4 * 2 - gap)
        if area is not None:
            measured = vtk.vtkMassProperties()
            measured.SetInputData(data)
            measured.Update()
            assert measured.GetSurfaceArea() == pytest.approx(area)


def test_heights_are_scaled_and_logarithmic_if_asked_for(tmp_path):
    path = tmp_path / "surface.vts"
    export_surface(surface(), path, height=0.5)
    heights = points_of(read(vtk.vtkXMLStructuredGridReader(), path))[:, 2]
    assert (heights.min(), heights.max()) == (0, pytest.approx(0.5 * 2))
    export_surface(surface(), path, log_scale=True)
    heights = points_of(read(vtk.vtkXMLStructuredGridReader(), path))[:, 2]
    np.testing.assert_allclose(heights.reshape(3, 5), surface().loss.log10().T)


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"must end in \.vts, \.ply, \.obj"):
        export_surface(surface(), tmp_path / "surface.stl")
    with pytest.raises(InputError, match="height must be positive"):
        export_surface(surface(), tmp_path / "surface.ply", height=0)
    nothing = Surface(surface().alphas, surface().betas, torch.full((5, 3), torch.nan))
    with pytest.raises(InputError, match="no loss that can be drawn"):
        export_surface(nothing, tmp_path / "surface.ply")


def curves():
    alphas = torch.arange(-10, 11, dtype=torch.float64) / 10
    exact = Curve(alphas, 1e-5 + alphas**2, name="to E'=30 & 50% of_it")
    errors = torch.diag((0.01 * exact.loss) ** 2)
    estimated = Curve(alphas, exact.loss + 0.1, name="gaussian", loss_covariance=errors)
    return exact, estimated


def test_a_table_has_labels_depths_and_errors():
    table = latex_table(curves(), ["one", "two"])
    lines = table.splitlines()
    assert lines[0] == r"\begin{tabular}{lllrrrl}"
    assert lines[4].startswith(r"one & to E'=30 \& 50\% of\_it & v-basin & 1 & $0$ & ")
    assert r"$1 \cdot 10^{-5}$ & $1$ \\" in lines[4]
    assert r"\pm" in lines[5]
    assert {line.count(" & ") for line in (lines[2], lines[4], lines[5])} == {6}


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_latex_takes_the_table(tmp_path):
    body = latex_table(curves()) + escape("θ_α λ × \\ ~ ^ # {}")
    text = f"\\documentclass{{article}}\\begin{{document}}{body}\\end{{document}}"
    (tmp_path / "t.tex").write_text(text)
    command = ["pdflatex", "-halt-on-error", "t.tex"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
