"""The commands as a user types them, on the digits."""

import operator
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from types import FunctionType

import numpy as np
import pytest
import torch
from command_line import QUICK, record
from PIL import Image

import mining.app.command_line
from mining import Landscape, classify, load_runs
from mining.data import digits
from mining.evaluation.storage import load_curves, load_surface
from mining.models import MLP, CifarResNet
from mining.storage.checkpoints import load_weights
from mining.storage.files import write_record
from mining.storage.states import run_states

ROOT = Path(__file__).parent.parent.parent
SMALL = (
    "spectrum.num_eigenvalues=3",
    "spectrum.density_steps=8",
    "spectrum.density_probes=2",
    "spectrum.trace_products=40",
)


def test_a_curve_run_leaves_what_the_contract_says(command, folder):
    directory = command(*QUICK, "num_directions=2", "grid.num=11")
    assert directory.parent == folder / "outputs/curve/mlp-digits"
    assert {p.name for p in directory.iterdir()} == {
        "run.json",
        "curves.npz",
        "curves.png",
        "directions.pt",
        "points.csv",
        "mining.log",
    }
    metrics = record(directory)["metrics"]
    per_curve = ("labels", "stationary_points", "minimum_alpha", "theta_is_minimum", "nonfinite")
    for key in per_curve:
        assert len(metrics[key]) == 2
    with np.load(directory / "curves.npz") as arrays:
        assert arrays["alphas"].shape == (11,)
        assert arrays["loss"].shape == arrays["accuracy"].shape == (2, 11)
        assert "loss_test" not in arrays
        assert arrays["loss"][:, 5].tolist() == [metrics["loss_at_theta"]] * 2
        assert arrays["accuracy"][:, 5].tolist() == [metrics["accuracy_at_theta"]] * 2
    directions = torch.load(directory / "directions.pt", weights_only=True)
    assert directions["vectors"].shape == (2, 64 * 128 + 128 + 128 * 10 + 10)
    assert directions["names"] == [
        f"layers.{i}.{kind}" for i in (1, 3) for kind in ("weight", "bias")
    ]
    curves = load_curves(directory / "curves.npz")
    assert [classify(c).label for c in curves] == metrics["labels"]
    (training,) = load_runs(folder / "outputs", pipeline="train")["directory"]
    names = {p.name for p in training.iterdir()}
    assert names >= {"epoch_0000.pt", "epoch_0001.pt", "epoch_0003.pt", "history.csv"}
    assert "history.png" in names


def test_a_finished_run_is_skipped(command):
    arguments = (*QUICK, "num_directions=2", "grid.num=11")
    first = command(*arguments)
    before = {p.name: p.stat().st_mtime_ns for p in first.iterdir() if p.name != "mining.log"}
    assert command(*arguments, "device=cpu") == first
    after = {p.name: p.stat().st_mtime_ns for p in first.iterdir() if p.name != "mining.log"}
    assert before == after


def test_other_picture_settings_redraw_a_finished_run(command):
    arguments = (*QUICK, "num_directions=2", "grid.num=11")
    first = command(*arguments)
    picture, arrays = (first / "curves.png").read_bytes(), (first / "curves.npz").read_bytes()
    seconds = record(first)["seconds"]
    assert command(*arguments, "picture.log_scale=true") == first
    assert (first / "curves.png").read_bytes() != picture
    assert (first / "curves.npz").read_bytes() == arrays
    assert record(first)["config"]["picture"]["log_scale"] is True
    assert record(first)["seconds"] == seconds
    command(*arguments)
    assert (first / "curves.png").read_bytes() == picture


def pictures(directory):
    found = [path for path in directory.iterdir() if path.suffix in {".png", ".pdf", ".svg"}]
    assert record(directory)["files"].keys() & {"curves.png", "curves.pdf", "curves.svg"} == {
        path.name for path in found
    }
    return [path.name for path in found]


def test_another_format_takes_the_place_of_the_picture_of_a_finished_run(command):
    arguments = (*QUICK, "grid.num=3")
    directory = command(*arguments)
    arrays = (directory / "curves.npz").read_bytes()
    for format in ("pdf", "svg", "png"):
        assert command(*arguments, f"picture.format={format}", "picture.width=3") == directory
        assert pictures(directory) == [f"curves.{format}"]
    assert "subset" not in (directory / "mining.log").read_text()  # fonts are not spoken of
    with Image.open(directory / "curves.png") as image:
        assert image.width == 3 * 150
    assert (directory / "curves.npz").read_bytes() == arrays


def test_a_run_that_recorded_fewer_keys_of_its_picture_is_drawn_again_only_where_they_differ(
    command,
):
    arguments = (*QUICK, "grid.num=3")
    directory = command(*arguments)
    content = record(directory)
    content.pop("checksum")
    content["config"]["picture"] = {"log_scale": False, "loss_cap": None}
    write_record(directory / "run.json", content)
    drawn = (directory / "curves.png").stat().st_mtime_ns
    command(*arguments)
    assert (directory / "curves.png").stat().st_mtime_ns == drawn
    command(*arguments, "picture.dpi=90")
    assert (directory / "curves.png").stat().st_mtime_ns > drawn
    assert record(directory)["config"]["picture"]["dpi"] == 90


def test_both_splits_come_from_one_pass(command):
    directory = command(*QUICK, "split=both", "grid.num=5")
    alone = command(*QUICK, "split=test", "grid.num=5")
    with np.load(directory / "curves.npz") as both, np.load(alone / "curves.npz") as test:
        assert np.array_equal(both["loss_test"], test["loss"])
        assert np.array_equal(both["accuracy_test"], test["accuracy"])


@pytest.mark.parametrize("source", ["gradient", "best_of_n_gaussians", "checkpoint_delta"])
def test_sources_run_from_the_command_line(command, source):
    directory = command(*QUICK, f"direction={source}", "epoch=1", "grid.num=5")
    metrics = record(directory)["metrics"]
    (metadata,) = metrics["metadata"]
    if source == "checkpoint_delta":
        assert metrics["directions"] == ["to E=3"]
        assert metadata["other_alpha"] == 1
        (curve,) = load_curves(directory / "curves.npz")
        last = command(*QUICK, "grid.num=2", "grid.low=0")
        assert curve.loss[-1] == pytest.approx(record(last)["metrics"]["loss_at_theta"], rel=1e-5)
    elif source == "gradient":
        assert metadata["gradient_norm"] > 0


def test_independent_checkpoint_is_another_training(command, folder):
    directory = command(
        *QUICK, "direction=checkpoint_delta", "direction.independent=true", "grid.num=5"
    )
    assert record(directory)["metrics"]["directions"] == ["to E'=3"]
    assert sorted(load_runs(folder / "outputs", pipeline="train")["seed"]) == [0, 1000]


def test_directions_of_a_run_can_be_used_again(command):
    first = command(*QUICK, "num_directions=2", "grid.num=11")
    path = first / "directions.pt"
    again = command(
        *QUICK, "direction=from_file", f"direction.path={path}", "num_directions=2", "grid.num=11"
    )
    with np.load(first / "curves.npz") as a, np.load(again / "curves.npz") as b:
        assert np.array_equal(a["loss"], b["loss"])


@pytest.mark.parametrize("normalization", ["model", "layer", "filter", "weight", "none"])
@pytest.mark.parametrize("batchnorm", ["recalibrate", "frozen", "batch"])
def test_normalizations_and_policies(command, normalization, batchnorm):
    directory = command(
        *QUICK,
        "model=cifar_resnet8",
        f"normalization={normalization}",
        f"batchnorm={batchnorm}",
        "grid.num=3",
    )
    run = record(directory)
    vectors = torch.load(directory / "directions.pt", weights_only=True)["vectors"]
    if normalization == "model":
        path = load_runs(directory.parents[2], pipeline="train", model__depth=8)["directory"][0]
        state = torch.load(path / "epoch_0003.pt", weights_only=True)["model"]
        names = torch.load(directory / "directions.pt", weights_only=True)["names"]
        norm = torch.cat([state[n].flatten() for n in names]).norm()
        assert float(vectors.norm()) == pytest.approx(float(norm), rel=1e-5)
    assert run["config"]["batchnorm"]["mode"] == batchnorm
    assert run["metrics"]["accuracy_at_theta"] > 0.1


def test_a_surface_run_leaves_what_the_contract_says(command):
    directory = command(
        *QUICK,
        "pipeline=surface",
        "y_direction=checkpoint_delta",
        "epoch=1",
        "grid.num=5",
        "grid.y_num=3",
        "grid.y_high=2",
    )
    surface = load_surface(directory / "surface.npz")
    assert surface.loss.shape == surface.accuracy.shape == (5, 4)  # 0 is added to -1, 0.5, 2
    metrics = record(directory)["metrics"]
    assert float(surface.loss[2, 1]) == metrics["loss_at_theta"]
    assert metrics["angle"] == pytest.approx(90, abs=1e-4)
    assert metrics["directions"] == ["gaussian", "to E=3"]
    assert (directory / "surface.png").exists()


def test_two_random_axes_differ(command):
    directory = command(*QUICK, "pipeline=surface", "grid.num=3")
    metrics = record(directory)["metrics"]
    assert metrics["directions"] == ["gaussian 1", "gaussian 2"]
    assert 80 < metrics["angle_before"] < 100


def test_angles_are_near_ninety_degrees(command):
    directory = command(
        *QUICK, "pipeline=angles", "num_directions=5", "epoch=0", "train.batch_size=16"
    )
    metrics = record(directory)["metrics"]
    for key in ("gaussian_gradient", "gaussian_checkpoint"):
        assert 85 < metrics["angles"][key]["min"] < metrics["angles"][key]["max"] < 95
    assert metrics["angles"]["gradient_checkpoint"]["max"] < 90
    assert metrics["batch_gradient_norm"] != metrics["gradient_norm"]
    with np.load(directory / "angles.npz") as arrays:
        assert arrays["gradient_checkpoint"].shape == (5,)


def test_a_sweep_prints_every_directory(command, capsys, folder):
    last = command("-m", *QUICK, "seed=0,1", "direction=gaussian,gradient", "grid.num=3")
    assert last.is_relative_to(folder / "outputs/curve")
    assert len(load_runs(folder / "outputs", pipeline="curve", seed=1, grid__num=3)) == 2


def test_a_sweep_goes_on_after_a_job_that_fails(command, folder, capsys):
    with pytest.raises(SystemExit) as stop:
        command("-m", *QUICK, "seed=0,x,2", "grid.num=7")
    assert stop.value.code == 1
    assert "error: seed must be an integer, got 'x'." in capsys.readouterr().err
    assert set(load_runs(folder / "outputs", grid__num=7)["seed"]) == {0, 2}


def test_test_images_are_recalibrated_on_training_images(command):
    directory = command(*QUICK, "model=cifar_resnet8", "split=test", "grid.num=3")
    (training,) = load_runs(directory.parents[2], pipeline="train", model__depth=8)["directory"]
    dataset = digits(num_examples=100)
    model = CifarResNet((1, 8, 8), 10, depth=8, width=8)
    load_weights(model, training / "epoch_0003.pt")
    landscape = Landscape(
        model,
        torch.nn.CrossEntropyLoss(),
        dataset.test.batches(128),
        recalibration=dataset.train.batches(128),
    )
    assert record(directory)["metrics"]["loss_at_theta"] == pytest.approx(
        landscape.loss(landscape.theta).item(), rel=1e-6
    )


@pytest.mark.parametrize(
    ("split", "evaluated", "wanted"),
    [
        ("train", 50, None),
        ("both", 50, None),
        ("test", 50, 40),
        ("train", None, 40),
        ("train", 40, 40),
    ],
)
def test_recalibration_takes_training_examples_whatever_is_evaluated(
    command, split, evaluated, wanted
):
    policy = () if wanted is None else (f"batchnorm.num_examples={wanted}",)
    of = () if evaluated is None else (f"num_examples={evaluated}",)
    directory = command(*QUICK, "model=cifar_resnet8", f"split={split}", *of, *policy, "grid.num=2")
    metrics = record(directory)["metrics"]
    assert metrics["recalibration"] == {"split": "train", "num_examples": wanted or 100}
    (training,) = load_runs(directory.parents[2], pipeline="train", model__depth=8)["directory"]
    dataset = digits(num_examples=100)
    model = CifarResNet((1, 8, 8), 10, depth=8, width=8)
    load_weights(model, training / "epoch_0003.pt")

    def some(examples, num):
        subset = torch.Generator().manual_seed(0)
        return examples if num is None else examples.subset(num, subset)

    landscape = Landscape(
        model,
        torch.nn.CrossEntropyLoss(),
        some(dataset.test if split == "test" else dataset.train, evaluated).batches(128),
        recalibration=some(dataset.train, wanted).batches(128),
    )
    assert metrics["loss_at_theta"] == pytest.approx(
        landscape.loss(landscape.theta).item(), rel=1e-6
    )


def test_a_model_that_does_not_fit_the_data_leaves_nothing(command, folder, capsys):
    (folder / "misfits.py").write_text(
        "import torch\n"
        "class Few(torch.nn.Sequential):\n"
        "    def __init__(self):\n"
        "        super().__init__(torch.nn.Flatten(), torch.nn.Linear(64, 3))\n"
        "class Tuple(Few):\n"
        "    def forward(self, x):\n"
        "        return super().forward(x), x\n"
        "class Wide(torch.nn.Sequential):\n"
        "    def __init__(self):\n"
        "        super().__init__(torch.nn.Flatten(), torch.nn.Linear(65, 10))\n"
        "class Broken(Few):\n"
        "    def __init__(self):\n"
        "        raise RuntimeError('out of order')\n"
    )
    for name, message in (
        ("Few", "3 outputs, but there are labels up to"),
        ("Tuple", "must return a tensor, got tuple"),
        ("Wide", "Wide does not take inputs"),
        ("Broken", "refuses its options: out of order"),
    ):
        with pytest.raises(SystemExit):
            command(*QUICK, "model=custom", f"model._target_=misfits.{name}", "model.name=misfit")
        assert message in capsys.readouterr().err
    assert not list((folder / "outputs").glob("*/misfit*"))


def test_precisions_agree(command):
    losses = {
        precision: record(command(*QUICK, f"precision={precision}", "grid.num=3"))["metrics"][
            "loss_at_theta"
        ]
        for precision in ("fp32", "fp64", "bf16")
    }
    assert losses["fp32"] == pytest.approx(losses["fp64"], rel=1e-5)
    assert losses["bf16"] == pytest.approx(losses["fp64"], rel=3e-2)  # 8 bits an output
    assert len(set(losses.values())) == 3


def test_interrupted_run_goes_on(command, monkeypatch, folder, capsys):
    arguments = (*QUICK, "grid.num=21", "seed=5", "chunk=1")
    original = Landscape.evaluate_points
    calls = []

    def interrupted(self, *rest):
        calls.append(1)
        if len(calls) == 8:
            raise KeyboardInterrupt
        return original(self, *rest)

    monkeypatch.setattr(Landscape, "evaluate_points", interrupted)
    with pytest.raises(SystemExit) as stop:
        command(*arguments)
    assert stop.value.code == 130
    assert "goes on from here" in capsys.readouterr().err
    (unfinished,) = (
        p.parent
        for p in (folder / "outputs/curve").glob("*/*/points.csv")
        if not (p.parent / "run.json").exists()
    )
    assert command(*arguments) == unfinished
    assert len(calls) == 8 + 21 - 7


def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been(command, folder):
    arguments = (*QUICK, "model=cifar_resnet8", "grid.num=301", "seed=9", "num_threads=1")
    running = subprocess.Popen(
        [sys.executable, "-m", "mining", *arguments], cwd=folder, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        journals = [
            path
            for path in (folder / "outputs/curve/cifar_resnet8-digits").glob("*/points.csv")
            if not (path.parent / "run.json").exists()
        ]
        if journals and len(journals[0].read_text().splitlines()) > 20:
            break
        time.sleep(0.01)
    running.kill()
    running.wait()
    (journal,) = journals
    finished = len(journal.read_text().splitlines()) - 1
    assert 20 <= finished < 301
    assert command(*arguments) == journal.parent
    undisturbed = command(*arguments, "outputs=undisturbed")
    with np.load(journal.parent / "curves.npz") as a, np.load(undisturbed / "curves.npz") as b:
        assert np.array_equal(a["loss"], b["loss"])


def test_a_users_own_model_direction_and_data(command, folder, capsys):
    (folder / "mine.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Sequential):\n"
        "    def __init__(self, input_shape, num_classes, width=4):\n"
        "        super().__init__(torch.nn.Flatten(),\n"
        "            torch.nn.Linear(input_shape[1] * input_shape[2], width), torch.nn.Tanh(),\n"
        "            torch.nn.Linear(width, num_classes))\n"
    )
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (60, 6, 7), dtype=np.uint8), np.arange(60) % 5
    np.savez(
        folder / "own.npz",
        train_images=images, train_labels=labels, test_images=images, test_labels=labels,
    )  # fmt: skip
    directory = command(
        "model=custom", "model._target_=mine.Net", "model.width=3", "data=arrays",
        "data.path=own.npz", "train.epochs=2", "progress=false", "grid.num=3",
    )  # fmt: skip
    assert directory.parent.name == "custom-own"
    assert record(directory)["metrics"]["num_parameters"] == 42 * 3 + 3 + 3 * 5 + 5


BAD = [
    (["model=resnet50"], "Could not find 'model/resnet50'"),
    (["grid.nun=5"], "no key 'grid.nun'; there are high, low, num"),
    (["grid.nun=5"], "(did you mean num?)"),
    (["nonsense=1"], " experiment, "),
    (["modle=mlp"], "(did you mean model?)"),
    (["model=resnet"], "Could not find 'model/resnet' There are cifar_resnet, cifar_resnet8,"),
    (["model=lennet"], "(did you mean lenet?)"),
    (["x_direction=gradeint"], "(did you mean gradient?)"),
    (["x_direktion=gradient"], "(did you mean x_direction?)"),
    (["+y_direction=gradient"], "Multiple values for y_direction."),
    (["pipeline=surface", "x_direction={which: 1}"], "no key 'x_direction.which'; there are none"),
    (["--sweep"], "unrecognized arguments: --sweep. Options are "),
    (["--multirum"], "(did you mean --multirun?). Options are"),
    (["--cfg", "everything"], "argument --cfg/-c: invalid choice: 'everything'"),
    (["hydra/launcher=nowhere"], "Could not find 'hydra/launcher/nowhere'"),
    (["seed"], "'seed' must be KEY=VALUE or GROUP=OPTION"),
    (["outputs=???"], "outputs must be given: outputs=VALUE"),
    (["grid=[1,2]"], "grid is a mapping: set one of its keys, grid.KEY=VALUE"),
    (["outputs="], "outputs must be the name of a folder, got nothing"),
    (["outputs=/proc/absent"], "cannot write /proc/absent: No such file or directory"),
    (["grid.scale=0"], "grid.scale must be positive or curvature, got 0"),
    (["grid.scale=wide"], "grid.scale must be a number or curvature, got 'wide'"),
    (["chunk=0"], "chunk must be at least 1, got 0"),
    (["tolerance=2"], "tolerance must lie between 0 and 1, got 2"),
    (["tolerance=0.1", "batchnorm=batch", "model=cifar_resnet8"], "tolerance needs batchnorm=rec"),
    (["precision=tf32"], "tf32 is a precision of GPUs"),
    (["direction=eigenvectors", "precision=tf32", "device=cpu"], "tf32 is a precision of GPUs"),
    (["pipeline={a:1}"], "pipeline must be text, got {'a': 1}"),
    (["pipeline=surface", "refine=1.5"], "refine must lie between 0 and 1, got 1.5"),
    (["compile=maybe"], "compile must be true or false, got 'maybe'"),
    (["num_examples=0"], "num_examples must be at least 1, got 0"),
    (["direction=eigenvectors", "direction.which=top"], "direction.which must be both or largest"),
    (["direction=eigenvectors", "direction.parameters=fc"], "Give a layer (layers.1, layers.3)"),
    (["direction=eigenvectors", "num_directions=0"], "num_directions must be at least 1"),
    (["direction=eigenvectors", "precision=bf16"], "Second derivatives in torch.bfloat16"),
    (["pipeline=spectrum", "spectrum.operator=fisher"], "spectrum.operator must be hessian or"),
    (["pipeline=spectrum", "spectrum.num_eigenvalues=-1"], "spectrum.num_eigenvalues must be 0"),
    (["pipeline=spectrum", "spectrum.num_eigenvalues=9999"], "k must be between 1 and 4805"),
    (["pipeline=spectrum", "spectrum.parameters=[conv]"], "No parameter matches 'conv'"),
    (["pipeline=spectrum", "spectrum.num_eigenvalues=0", "spectrum.trace_products=0",
      "spectrum.density_probes=0"], "nothing is left to compute"),
    (["pipeline=surface", "x_direction=eigenvectors", "y_direction=eigenvectors"], "both P.E.1"),
    (["pipeline=spectrum", "spectrum.tol=2"], "tol must be between 0 and 1, got 2"),
    (["pipeline=spectrum", "spectrum.density_probes=1"], "spectrum.density_probes must be 0 or"),
    (["pipeline=spectrum", "spectrum.trace_products=3"], "spectrum.trace_products must be 0 or"),
    (["pipeline=spectrum", "spectrum.micro_batch=0"], "spectrum.micro_batch must be at least 1"),
    (["view=gmi", "expansion.num_offsets=4"], "expansion.num_offsets must be odd"),
    (["pipeline=perturbation", "perturbation.sigma=0"], "a positive sigma"),
    (["nonsense=1"], "no key 'nonsense'; there are assess, batch_size,"),
    (["grid.num=1"], "grid.num must be at least 2 points, got 1"),
    (["grid.low=2"], "grid.low must lie below grid.high, got 2 and 1"),
    (["num_directions=0"], "num_directions must be at least 1, got 0"),
    (["direction=gradient", "num_directions=2"], "num_directions must be 1 for the full gradient"),
    (["normalization.name=l2", "normalization=model"], "normalization.name must be model or layer"),
    (["batchnorm.num_examples=0"], "batchnorm.num_examples must be at least 2"),
    (["split=validation"], "split must be train or test or both, got 'validation'"),
    (["precision=fp16"], "precision must be fp32 or bf16 or fp64"),
    (["device=tpu"], "device must be auto or cpu or cuda"),
    (["seed=x"], "seed must be an integer, got 'x'"),
    (["num_directions=2.5"], "num_directions must be an integer, got 2.5"),
    (["grid.num=x"], "grid.num must be an integer"),
    (["grid.y_num=2.5"], "grid.y_num must be an integer or null, got 2.5"),
    (["train.lr=fast"], "train.lr must be a number"),
    (["train.checkpoints=[a]"], "train.checkpoints[0] must be an integer, got 'a'"),
    (["data.mean=x"], "mean must be"),
    (["data.num_examples=0.5"], "data.num_examples must be an integer or null"),
    (["model=cifar_resnet", "model.depth=deep"], "model.depth must be an integer"),
    (["direction.batch_size=3"], "no key 'direction.batch_size'; there are none"),
    (["checkpoint=absent.pt"], "no file absent.pt"),
    (["checkpoint=broken.pt"], "broken.pt"),
    (["checkpoint=other.pt"], "layers.1.weight"),
    (["epoch=2"], r"Epoch 2 is not among the kept checkpoints [0, 1, 3]"),
    (["data=arrays"], "data.path must be given"),
    (["data=arrays", "data.path=absent.npz"], "absent.npz"),
    (["data=arrays", "data.path=float.npz"], "uint8"),
    (["data=arrays", "data.path=labels.npz"], "label"),
    (["data=cifar10", "data.root=nowhere"], "data.download=true"),
    (["model=lenet"], "8"),
    (["model.hidden=-1"], "model.hidden must be a list, got -1"),
    (["direction=from_file", "direction.path=absent.npz"], "no file absent.npz"),
    (["direction=from_file", "direction.path=zero.npz"], "norm zero"),
    (["direction=checkpoint_delta"], "is θ itself"),
    (["direction=best_of_n_gaussians", "normalization=model"], "leave normalization out"),
    (["pipeline=surface", "direction=gradient", "x_direction=from_file", "y_direction=from_file",
      "x_direction.path=one.npz", "y_direction.path=one.npz"], "parallel"),
    (["pipeline=train", "train.lr=-1"], "train.lr must be positive"),
    (["pipeline=train", "train.lr=1e6"], "Training diverged in epoch"),
    (["outputs=a_file"], "a_file"),
    (["train.checkpoints=abc"], "train.checkpoints must be a list, got 'abc'"),
    (["grid=null"], "grid must be one of its options, got None"),
    (["picture=null"], "picture has the keys log_scale, loss_cap"),
    (["picture.loss_cap=abc"], "picture.loss_cap must be a number or null"),
    (["+picture.foo=1"], "picture has the keys log_scale, loss_cap"),
    (["num_threads=0"], "num_threads must be at least 1"),
    (["direction._target_=os.getcwd"], "gives mining.directions.base.DirectionSource, got os.get"),
    (["direction._target_=torch.nn.Linear"], "that gives mining.directions.base.DirectionSource"),
    (["model=custom", "model._target_=os.getcwd"], "gives torch.nn.modules.module.Module, got os"),
    (["model=custom", "model._target_=os.system", "+model.command=touch called"], "got os.system"),
    (["model=custom", "model._target_=builtins.exec", "+model.source=1"], "got builtins.exec"),
    (["model=custom", "model._target_=subprocess.Popen", "+model.args=ls"], "got subprocess.Popen"),
    (["model=custom", "model._target_=torch.tensor", "+model.data=1"], "no Module but Tensor"),
    (["+model.x={a:[{_target_:os.system,command:touch called}]}"], "got os.system"),
    (["data._target_=os.system"], "gives mining.data.dataset.Dataset, got os.system"),
    (["grid._target_=os.system"], "gives mining.evaluation.grid.Grid, got os.system"),
    (["model=custom", "model._target_=torch.nn.Identity"], "no trainable parameters"),
    (["model=torchvision", "model.architecture=alexnet"], "3 channels"),
    (["checkpoint=good.pt", "epoch=3"], "leave it out with checkpoint=FILE"),
    (["data=arrays", "data.path=test_only.npz", "data.mean=0", "data.std=1", "split=test",
      "model=cifar_resnet8", "checkpoint=resnet8.pt"], "use batchnorm=frozen"),
    (["model=custom", "model._target_=torch.nn.Linear"], "missing a required argument"),
    (["model=custom", "model._target_=nowhere.Net"], "nowhere"),
]  # fmt: skip


@pytest.fixture(scope="module")
def bad_files(folder):
    size = 64 * 128 + 128 + 128 * 10 + 10
    (folder / "broken.pt").write_bytes(b"not a checkpoint")
    torch.save({"weight": torch.zeros(2)}, folder / "other.pt")
    (folder / "a_file").write_text("in the way")
    np.savez(folder / "zero.npz", np.zeros(size))
    np.savez(folder / "one.npz", np.ones(size))
    torch.save(MLP((1, 8, 8), 10).state_dict(), folder / "good.pt")
    torch.save(CifarResNet((1, 8, 8), 10, depth=8, width=8).state_dict(), folder / "resnet8.pt")
    images, labels = np.zeros((10, 8, 8), np.uint8), np.arange(10)
    np.savez(folder / "test_only.npz", test_images=images, test_labels=labels)
    good = {"train_images": images, "train_labels": labels, "test_images": images,
            "test_labels": labels}  # fmt: skip
    np.savez(folder / "float.npz", **{**good, "train_images": images.astype(float)})
    np.savez(folder / "labels.npz", **{**good, "test_labels": labels - 3})


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[" ".join(a) for a, _ in BAD])
def test_bad_input_is_one_line_and_leaves_nothing(
    command, bad_files, folder, capsys, arguments, message
):
    existing = {p for p in (folder / "outputs").rglob("*") if "train" not in p.parts}
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        command(*QUICK, *arguments)
    printed = capsys.readouterr()
    (line,) = (x for x in printed.err.splitlines() if not x.startswith("["))  # log lines
    assert line.startswith("error: ")
    assert message in line
    assert stop.value.code == 1
    assert printed.out == ""
    left = {p for p in (folder / "outputs").rglob("*") if "train" not in p.parts} - existing
    assert not [p for p in left if p.is_file()]
    assert not (folder / "called").exists()


def test_spectrum_leaves_what_the_contract_says(command, folder):
    directory = command(*QUICK, "pipeline=spectrum", *SMALL)
    assert {p.name for p in directory.iterdir()} == {
        "run.json",
        "eigenpairs.npz",
        "eigenvectors.pt",
        "trace.npz",
        "density.npz",
        "spectrum.png",
        "mining.log",
    }
    metrics = record(directory)["metrics"]
    for end, sign in (("largest", 1), ("smallest", -1)):
        values, residuals = metrics[f"eigenvalues_{end}"], metrics[f"residuals_{end}"]
        assert len(values) == len(residuals) == 3
        assert values == sorted(values, reverse=sign > 0)
        assert all(r <= 1e-3 * abs(v) for r, v in zip(residuals, values, strict=True))
    assert metrics["products"] == sum(metrics["products_of"].values())
    assert metrics["trace_standard_error"] > 0
    assert metrics["seconds_per_product"] > 0
    assert metrics["seconds_per_gradient"] > 0
    assert sum(layer["mean"] for layer in metrics["layer_traces"].values()) == pytest.approx(
        metrics["trace"]
    )
    lowest, highest = metrics["eigenvalues_smallest"][0], metrics["eigenvalues_largest"][0]
    assert metrics["r_e"]["value"] == pytest.approx(max(0, -lowest / highest))
    assert metrics["c_t"]["value"] == pytest.approx(lowest / highest)
    for key in ("r_e", "c_t", "k_h05", "k_h1"):
        assert set(metrics[key]) == {"value", "error", "applies", "why"}
        assert metrics[key]["error"] >= 0
    # The same θ and examples, by hand.
    training = directory.parents[2] / "train/mlp-digits"
    checkpoint = next(p for p in training.glob("*/epoch_0003.pt") if _seed(p.parent) == 0)
    model = MLP((1, 8, 8), 10)
    load_weights(model, checkpoint)
    of = Landscape(
        model, torch.nn.CrossEntropyLoss(), digits(num_examples=100).split("train").batches(128)
    )
    vectors = torch.load(directory / "eigenvectors.pt")["vectors"]
    errors = of.hessian() @ vectors.T - vectors.T * torch.tensor(
        metrics["eigenvalues_largest"] + metrics["eigenvalues_smallest"]
    )
    assert (errors.norm(dim=0) < 2e-3 * metrics["eigenvalues_largest"][0]).all()


def test_spectrum_of_a_layer_and_of_some_parts(command):
    directory = command(
        *QUICK,
        "pipeline=spectrum",
        "spectrum.operator=gauss_newton",
        "spectrum.parameters=layers.3",
        "spectrum.num_eigenvalues=0",
        "spectrum.density_probes=0",
        "spectrum.trace_error=null",
        "spectrum.trace_products=10",
    )
    metrics = record(directory)["metrics"]
    assert metrics["eigenvalues_largest"] == []
    assert list(metrics["layer_traces"]) == ["layers.3.weight", "layers.3.bias"]
    assert metrics["products"] == 10
    assert (directory / "spectrum.png").exists()
    assert not (directory / "density.npz").exists()


@pytest.mark.parametrize("max_products", [1, 4, 5])
def test_spectrum_of_fewer_pairs_than_asked_keeps_the_ends_apart(command, max_products):
    metrics = record(
        command(*QUICK, "pipeline=spectrum", *SMALL, f"spectrum.max_products={max_products}")
    )["metrics"]
    largest, smallest = metrics["eigenvalues_largest"], metrics["eigenvalues_smallest"]
    assert len(largest) == (max_products + 1) // 2
    assert len(smallest) == max_products // 2
    assert not smallest or max(smallest) < min(largest)


def test_spectrum_goes_on_after_an_interruption(command, folder, monkeypatch):
    arguments = (*QUICK, "pipeline=spectrum", *SMALL, "seed=5")
    with monkeypatch.context() as broken:
        broken.setattr("mining.pipelines.spectrum.spectral_density", _interrupt)
        with pytest.raises(SystemExit):
            command(*arguments)
    (directory,) = (
        path.parent
        for path in (folder / "outputs/spectrum/mlp-digits").glob("*/trace.npz")
        if not (path.parent / "run.json").exists()
    )
    before = (directory / "eigenpairs.npz").stat().st_mtime_ns
    assert command(*arguments) == directory
    assert (directory / "eigenpairs.npz").stat().st_mtime_ns == before
    metrics = record(directory)["metrics"]
    whole = record(command(*arguments, f"outputs={folder}/other"))["metrics"]
    for key in ("eigenvalues_largest", "trace", "density_trace"):
        assert metrics[key] == whole[key]


def test_eigenvectors_followed_as_far_as_their_curvature_shows(command):
    directory = command(
        *QUICK, "direction=eigenvectors", "num_directions=2", "epoch=0", "grid.scale=curvature"
    )
    metrics = record(directory)["metrics"]
    assert metrics["directions"] == ["P.E.1", "N.E.1"]
    curves = load_curves(directory / "curves.npz")
    stored = torch.load(directory / "directions.pt")
    for curve, vector, metadata, share in zip(
        curves, stored["vectors"], metrics["metadata"], (1, 0.2), strict=True
    ):
        assert float(vector.norm()) == pytest.approx(1, abs=1e-5)
        loss = metrics["loss_at_theta"]
        change = 0.5 * metadata["scale"] ** 2 * abs(metadata["eigenvalue"])
        assert change == pytest.approx(share * loss, rel=1e-3)
        # The curve near θ is the parabola of that eigenvalue.
        a, b = curve.origin - 1, curve.origin + 1
        bend = float(curve.loss[a] + curve.loss[b] - 2 * curve.loss[curve.origin])
        step = float(curve.alphas[b]) * metadata["scale"]
        assert bend / step**2 == pytest.approx(metadata["eigenvalue"], rel=0.1)


def test_surface_of_eigenvectors_names_their_factors(command):
    directory = command(
        *QUICK,
        "pipeline=surface",
        "x_direction=eigenvectors",
        "y_direction=eigenvectors",
        "y_direction.which=smallest",
        "grid.scale=0.5",
        "grid.num=5",
        "epoch=0",
    )
    assert record(directory)["metrics"]["scales"] == [0.5, 0.5]
    assert load_surface(directory / "surface.npz").names == ("P.E.1 × 0.5", "N.E.1 × 0.5")


def test_second_order_models_along_gmi_and_mli(command):
    for view in ("gmi", "mli"):
        directory = command(*QUICK, f"view={view}", "grid.num=5", "expansion.num_points=3")
        metrics = record(directory)["metrics"]
        assert metrics["alphas"] == [-1, -0.5, 0]
        assert max(metrics["errors"]) < 0.1
        assert metrics["metadata"].get("other_alpha") == (-1 if view == "mli" else None)
        assert (directory / "expansions.png").exists()


def test_perturbation_beside_its_prediction(command):
    directory = command(*QUICK, "pipeline=perturbation", "perturbation.num_samples=50")
    metrics = record(directory)["metrics"]
    for predicted, found in zip(
        metrics["predicted_deviation"], metrics["second_order_deviation"], strict=True
    ):
        assert predicted == pytest.approx(found, rel=0.4)  # of 50 samples: 10 %, four times
    assert (directory / "perturbations.png").exists()


def test_num_examples_leaves_the_training_alone(command):
    few, all_of_them = (
        record(command(*QUICK, "grid.num=3", *more))["metrics"]
        for more in (["num_examples=40"], [])
    )
    assert (few["num_examples"], all_of_them["num_examples"]) == (40, 100)
    assert few["loss_at_theta"] != all_of_them["loss_at_theta"]


def _seed(directory):
    return record(directory)["seed"]


def _interrupt(*arguments, **options):
    raise KeyboardInterrupt


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_asked_for_and_absent(command, capsys):
    with pytest.raises(SystemExit):
        command(*QUICK, "device=cuda")
    assert "error: device=cuda, but no CUDA device is available" in capsys.readouterr().err


def test_a_folder_of_the_users_is_not_removed_when_a_run_in_it_fails(command, folder):
    mine = folder / "kept/empty/too"
    mine.mkdir(parents=True)
    with pytest.raises(SystemExit):
        command(*QUICK, "seed=x", f"hydra.run.dir={mine}")
    assert mine.is_dir()


def test_a_full_disk_leaves_nothing_half_written(command, monkeypatch, folder, capsys):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(SystemExit) as stop:
        command(*QUICK, "seed=77")
    assert stop.value.code == 1
    assert "error: cannot write: No space left on device. Make room" in capsys.readouterr().err
    monkeypatch.undo()
    assert load_runs(folder / "outputs", seed=77).empty


def test_a_diverged_training_is_used_by_nothing(command, folder, capsys):
    for pipeline in ("train", "curve"):
        with pytest.raises(SystemExit):
            command(*QUICK, f"pipeline={pipeline}", "train.lr=1e5")
        assert "Training diverged" in capsys.readouterr().err
    assert load_runs(folder / "outputs", train__lr=1e5).empty
    assert not [
        p
        for p in (folder / "outputs/train").glob("*/*/epoch_*.pt")
        if not (p.parent / "run.json").exists()
    ]


def test_arguments_that_a_pipeline_does_not_read_are_named(command):
    unread = ["x_direction=gradient", "orthogonalize=false"]
    directory = command(*QUICK, "grid.num=3", "descent.lr=1", *unread)
    said = [line for line in (directory / "mining.log").read_text().splitlines() if "read" in line]
    assert [line.partition("read ")[2].partition(":")[0] for line in said] == unread


def test_help_and_a_skipped_run_do_without_torch(command, folder):
    directory = command(*QUICK, "grid.num=5")
    for arguments in (["--help"], [*QUICK, "grid.num=5"]):
        script = (
            f"import sys; sys.argv = ['mining', *{arguments!r}]\n"
            "import mining.app.command_line as m\n"
            "try: m.main()\n"
            "finally: print('torch' in sys.modules, 'matplotlib' in sys.modules, file=sys.stderr)"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True
        )
        assert done.stderr.splitlines()[-1] == "False False"
        assert "\ndirection:\n" in done.stdout or done.stdout.endswith(f"{directory}\n")


def test_python_dash_m_and_the_console_script_are_the_same(folder):
    script = Path(sys.executable).parent / "mining"
    if not script.exists():
        pytest.skip("the package is not installed beside this interpreter")
    outputs = [
        subprocess.run([*start, "--help"], cwd=folder, capture_output=True, text=True, check=True)
        for start in ([sys.executable, "-m", "mining"], [str(script)])
    ]
    assert outputs[0].stdout == outputs[1].stdout
    assert "python -m mining experiment=quickstart" in outputs[0].stdout


def _unequal(*given):
    return list(zip([1], [1, 2], strict=True))


def _unpacked(*given):
    first, second = [1]
    return first, second


FAULTS = [
    (_unequal, "ValueError"),
    (_unpacked, "ValueError"),
    (lambda *given: None + 1, "TypeError"),
    (lambda *given: {}["absent"], "KeyError"),
    (lambda *given: 1 / 0, "ZeroDivisionError"),
    (lambda *given: Path("absent").read_text(), "FileNotFoundError"),
    (lambda *given: torch.zeros(2) @ torch.zeros(3), "RuntimeError"),
]


@pytest.mark.parametrize(("fault", "name"), FAULTS)
def test_a_fault_of_the_program_keeps_its_traceback(
    command, folder, monkeypatch, capsys, fault, name
):
    code = fault.__code__.replace(co_filename=mining.__file__)
    inside = FunctionType(code, globals())  # as if its lines were ours
    monkeypatch.setattr("mining.pipelines.curve.take_directions", inside)
    with pytest.raises(SystemExit) as stop:
        command(*QUICK, "seed=4321")
    assert stop.value.code == 1
    (line,) = (x for x in capsys.readouterr().err.splitlines() if not x.startswith("["))
    assert line.startswith(f"error: {name}: ")
    assert "This is a fault of the program, not of the input; its traceback is in" in line
    kept = Path(line.rpartition(" is in ")[2])
    text = kept.read_text()
    assert text.count("Traceback (most recent call last):") == 1
    assert "mining/pipelines/curve.py" in text
    (failed,) = [
        run for run in run_states(folder / "outputs") if run.directory == kept.parent.resolve()
    ]
    assert failed.state == "failed"
    assert failed.note.startswith(f"{name}: ")
    failed.remove()


def test_a_fault_in_one_job_of_a_sweep_stops_no_other(command, folder, monkeypatch, capsys):
    original = Landscape.evaluate_points

    def faulty(self, vectors, points, sets):
        if len(vectors) == 2:
            raise TypeError("a fault")
        return original(self, vectors, points, sets)

    monkeypatch.setattr(Landscape, "evaluate_points", faulty)
    with pytest.raises(SystemExit) as stop:
        command("-m", *QUICK, "num_directions=2,1", "grid.num=5", "pipeline=curve,surface")
    assert stop.value.code == 1
    errors = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert [x.partition(". ")[0] for x in errors] == ["error: TypeError: a fault"] * len(errors)


def test_a_fault_in_naming_a_run_is_none_of_the_input(command, monkeypatch, capsys):
    monkeypatch.setattr("mining.pipelines.settings.Inputs", operator.neg)
    with pytest.raises(SystemExit):
        command(*QUICK)
    printed = capsys.readouterr().err
    assert "error: TypeError: " in printed
    assert "a fault of the program, not of the input; its traceback is above" in printed
    assert "Traceback (most recent call last)" in printed


def test_memory_that_runs_out_is_said_in_one_line(command, monkeypatch, capsys):
    def exhausted(*given):
        return torch.empty(2**50)

    monkeypatch.setattr("mining.pipelines.curve.take_directions", exhausted)
    with pytest.raises(SystemExit):
        command(*QUICK, "seed=4322")
    (line,) = (x for x in capsys.readouterr().err.splitlines() if not x.startswith("["))
    assert line.startswith("error: out of memory: ")
    assert line.endswith("Lower batch_size or chunk")


def test_a_fault_in_a_users_code_names_its_line(command, folder, capsys):
    (folder / "users.py").write_text(
        "import torch\n"
        "class Late(torch.nn.Linear):\n"
        "    def __init__(self):\n"
        "        super().__init__(64, 10)\n"
        "    def forward(self, x):\n"
        "        raise AttributeError('nobody is here')\n"
        "class Early(Late):\n"
        "    def __init__(self, width: 'Unknown' = 3):\n"
        "        first, second = [width]\n"
    )
    for name, message in (("Late", "raised in"), ("Early", "users.Early refuses its options:")):
        with pytest.raises(SystemExit):
            command(*QUICK, "model=custom", f"model._target_=users.{name}", "model.name=users")
        (line,) = (x for x in capsys.readouterr().err.splitlines() if not x.startswith("["))
        assert message in line
        assert f"{folder / 'users.py'}:{6 if name == 'Late' else 9}" in line


def test_the_working_directory_hides_no_installed_module(folder, tmp_path):
    for name in ("random", "logging", "shutil", "torch", "hydra", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('of the working directory')")
    done = subprocess.run(
        [sys.executable, "-m", "mining", "pipeline=spectrum", "spectrum.tol=3"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr.splitlines()[-1].startswith("error: spectrum.tol must be between 0 and 1")


def test_options_come_in_any_order(command, folder):
    last = command(*QUICK, "seed=21,22", "grid.num=3", "-m")
    assert last.is_relative_to(folder / "outputs/curve")
    assert len(load_runs(folder / "outputs", pipeline="curve", grid__num=3, seed=21)) == 1
    assert len(load_runs(folder / "outputs", pipeline="curve", grid__num=3, seed=22)) == 1


def test_the_version_is_that_of_this_package(command, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mining", "--version"])
    mining.app.command_line.main()
    assert capsys.readouterr().out == f"mining {version('mining')}\n"
