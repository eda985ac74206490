import math

import pytest
import torch

from mining import Curve, Surface
from mining.evaluation.curves import SINGLE
from mining.evaluation.storage import load_curves, load_surface, save_curves, save_surface
from mining.storage.files import save_arrays


def curve(**fields):
    alphas = torch.linspace(-1, 1, 5, dtype=torch.float64)
    loss = torch.tensor([math.inf, 1.0, 0.0, -1.0, math.nan], dtype=torch.float64)
    return Curve(**{"alphas": alphas, "loss": loss, **fields})


def test_curves_survive_the_disk(tmp_path):
    first = curve(
        name="a",
        chance_loss=2.3,
        metadata={"angle": 89.5},
        scale=0.5,
        other_alpha=2.0,
        accuracy=torch.rand(5).double(),
    )
    second = curve(name="b", chance_loss=2.3, accuracy=torch.rand(5).double())
    save_curves(tmp_path / "curves.npz", [first, second])
    found = load_curves(tmp_path / "curves.npz")
    for a, b in zip(found, [first, second], strict=True):
        assert torch.equal(a.alphas, b.alphas)
        assert torch.allclose(a.loss, b.loss, rtol=0, atol=0, equal_nan=True)
        assert torch.equal(a.accuracy, b.accuracy)
        assert a.loss_test is None
        assert (a.name, a.chance_loss, dict(a.metadata)) == (
            b.name,
            b.chance_loss,
            dict(b.metadata),
        )
        assert (a.scale, a.other_alpha) == (b.scale, b.other_alpha)
    assert found[0].nonfinite == 2
    assert found[0].origin == 2


def test_surfaces_survive_the_disk(tmp_path):
    surface = Surface(
        alphas=torch.tensor([-1.0, 0, 2]).double(),
        betas=torch.tensor([0.0, 1, 2, 3]).double(),
        loss=torch.rand(3, 4).double(),
        loss_test=torch.rand(3, 4).double(),
        names=("x", "y"),
        chance_loss=1.5,
    )
    save_surface(tmp_path / "surface.npz", surface)
    found = load_surface(tmp_path / "surface.npz")
    for name in ("alphas", "betas", "loss", "loss_test"):
        assert torch.equal(getattr(found, name), getattr(surface, name))
    assert (found.names, found.chance_loss, found.accuracy) == (("x", "y"), 1.5, None)


def test_files_without_later_fields_are_read(tmp_path):
    alphas, loss = torch.arange(3.0).double(), torch.rand(1, 3).double()
    save_arrays(tmp_path / "curves.npz", {"alphas": alphas, "names": ["a"], "loss": loss})
    (found,) = load_curves(tmp_path / "curves.npz")
    assert torch.equal(found.loss, loss[0])
    assert (found.chance_loss, found.rounding, found.accuracy) == (None, SINGLE, None)
    surface = {"alphas": alphas[:2], "betas": alphas, "names": ["x", "y"], "loss": loss.tile(2, 1)}
    save_arrays(tmp_path / "surface.npz", surface)
    found = load_surface(tmp_path / "surface.npz")
    assert torch.equal(found.loss, surface["loss"])
    assert (found.names, found.chance_loss, found.rounding) == (("x", "y"), None, SINGLE)


def test_curves_over_different_points_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one, and over the same alphas"):
        save_curves(tmp_path / "x.npz", [])
    shifted = Curve(torch.arange(5.0), torch.zeros(5))
    with pytest.raises(ValueError, match="at least one, and over the same alphas"):
        save_curves(tmp_path / "x.npz", [curve(), shifted])
