"""The wheel works from outside the checkout, and the library without any configuration."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from torch import nn

import mining

ROOT = Path(__file__).parent.parent


def run(*arguments, **options):
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_exported_name_exists():
    for name in mining.__all__:
        assert getattr(mining, name) is not None
    assert set(mining.__all__) <= set(dir(mining))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = mining.nonsense


def test_the_wheel_has_every_package():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = {".".join(p.parent.relative_to(ROOT).parts) for p in ROOT.glob("mining/**/*.py")}
    assert set(settings["packages"]) == found | set(settings["package-dir"])


def test_the_wheel_runs_outside_the_checkout(tmp_path):
    pytest.importorskip("build")
    source = tmp_path / "source"  # a build leaves files beside the sources
    run("git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(source))
    for path in run("git", "-C", str(ROOT), "ls-files", "-mo", "--exclude-standard").splitlines():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / path).exists():
            (source / path).write_bytes((ROOT / path).read_bytes())
    run(sys.executable, "-m", "build", "--wheel", "--outdir", str(tmp_path), str(source))
    (wheel,) = tmp_path.glob("mining-*.whl")
    site = tmp_path / "site"
    run(
        sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel)
    )
    assert (site / "mining/py.typed").exists()
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    where = run(
        sys.executable, "-c", "import mining; print(mining.__file__)", cwd=tmp_path, env=environment
    )
    assert where.startswith(str(site))
    options = ("train.epochs=1", "data.num_examples=50", "grid.num=3", "progress=false")
    command = (sys.executable, "-m", "mining", *options)
    directory = Path(run(*command, cwd=tmp_path, env=environment).splitlines()[-1])
    assert (directory / "run.json").exists()
    assert directory.is_relative_to(tmp_path)


def test_the_library_works_on_a_users_own_module():
    from mining import Evaluator, Gaussian, Landscape, classify

    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(64, 10, generator=generator)
    targets = (inputs.sum(1) > 0).long()
    model = nn.Sequential(nn.Linear(10, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(inputs, targets), batch_size=16
    )
    landscape = Landscape(model, nn.CrossEntropyLoss(), loader, batchnorm="recalibrate")
    directions = Gaussian(normalization="filter").directions(landscape, num=5, generator=generator)
    curves = [
        Evaluator(landscape, progress=False).curve(d, torch.linspace(-1, 1, 41)) for d in directions
    ]
    assert len([classify(c) for c in curves]) == 5
    assert all(c.loss.shape == (41,) for c in curves)
    assert model.training
