"""``mining explore``: who is answered, and that lines are those of the surface's own landscape."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
from command_line import QUICK
from exploring import ask, line, running, wait_for
from pages import decoded, evaluated_surface, small_landscape

from mining import Curve, InputError
from mining.app.command_line import main
from mining.app.explore import serve
from mining.app.reports import find_runs
from mining.directions import UpdateRule
from mining.evaluation.lines import evaluate_line
from mining.evaluation.storage import load_surface
from mining.explain.curve_shape import classify
from mining.reporting.server import Server


def command(folder, *arguments):
    patch = pytest.MonkeyPatch()
    patch.chdir(folder)
    patch.setattr(sys, "argv", ["mining", *map(str, arguments)])
    main()
    patch.undo()


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """A surface on train and test, one by the rule of Adam, and a training."""
    folder = tmp_path_factory.mktemp("explored")
    command(folder, *QUICK, "pipeline=surface", "grid.num=5", "split=both")
    command(folder, *QUICK, "pipeline=surface", "grid.num=5", "grid.scale=0.5", "seed=1")
    command(folder, *QUICK, "view=adameq", "grid.num=5", "train.optimizer=adam", "train.lr=0.001")
    return folder / "outputs"


@pytest.fixture(scope="module")
def server(outputs):
    with running(serve(find_runs([outputs], []), "explore")) as started:
        yield started


def surface_of(server_runs, number=0):
    return load_surface(server_runs[number].directory / "surface.npz")


def surfaces(outputs):
    return [run for run in find_runs([outputs], []) if run.pipeline == "surface"]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_points_of_the_grid_have_the_values_that_the_surface_stores(outputs, server, number):
    stored = surface_of(surfaces(outputs), number)
    alphas, betas = stored.alphas.tolist(), stored.betas.tolist()
    job = line(server.url, [alphas[0], betas[1]], [alphas[-1], betas[1]], 5, number)
    assert (job["state"], job["done"], job["total"]) == ("done", 5, 5)
    for name in ("loss", "accuracy", "loss_test", "accuracy_test"):
        expected = getattr(stored, name)
        found = job["result"][name]
        if expected is None:
            assert found is None
        else:
            assert np.array_equal(decoded(found), expected[:, 1].numpy())
    place = job["result"]["place"][str(number)]
    np.testing.assert_allclose(decoded(place["x"]), alphas, atol=1e-15)
    assert np.array_equal(decoded(place["y"]), [betas[1]] * 5)


def test_a_line_through_theta_has_the_label_of_its_curve(outputs, server):
    stored = surface_of(surfaces(outputs))
    found = line(server.url, None, [stored.alphas[-1].item(), 0.0])["result"]
    middle = int((stored.betas == 0).nonzero())
    curve = Curve(
        torch.linspace(-1, 1, 5).double(), stored.loss[:, middle], chance_loss=stored.chance_loss
    )
    assert found["label"] == str(classify(curve))
    assert np.array_equal(decoded(found["loss"]), curve.loss.numpy())
    assert found["of_surface"] == 0
    assert found["run"] is None  # no command makes it


def test_a_line_is_plain_evaluation_between_its_points():
    landscape = small_landscape()
    _, (x, y) = evaluated_surface(landscape)
    told = []
    curve = evaluate_line(
        landscape,
        (x, y),
        ((0.3, -0.2), (-0.4, 0.7)),
        torch.linspace(0, 1, 7),
        chunk=2,
        watch=lambda done, total: told.append((done, total)),
    )
    start, end = ((landscape.at([x.vector, y.vector], p)) for p in ((0.3, -0.2), (-0.4, 0.7)))
    for t, loss, accuracy in zip(curve.alphas, curve.loss, curve.accuracy, strict=True):
        plain = landscape.evaluate(start + t * (end - start))
        assert loss == pytest.approx(float(plain.loss), rel=1e-12)  # float64
        assert accuracy == plain.accuracy
    assert told == [(0, 7), (2, 7), (4, 7), (6, 7), (7, 7)]
    with pytest.raises(InputError, match="two different, finite points"):
        evaluate_line(landscape, (x, y), ((1, 1), (1, 1)), torch.linspace(0, 1, 3))


def test_a_rule_moves_theta_where_a_surface_has_one():
    class Square(UpdateRule):
        def displacement(self, theta, x, y, alpha, beta):
            return alpha**2 * x - beta * y

    landscape = small_landscape()
    _, (x, y) = evaluated_surface(landscape)
    points = torch.linspace(0, 1, 3)
    ends = ((-1.0, 0.0), (1.0, 0.5))
    curve = evaluate_line(landscape, (x, y), ends, points, rule=Square())
    for (a, b), loss in zip([(-1.0, 0.0), (0.0, 0.25), (1.0, 0.5)], curve.loss, strict=True):
        expected = landscape.loss(landscape.theta + a**2 * x.vector - b * y.vector)
        assert loss == pytest.approx(float(expected), rel=1e-12)


def test_nobody_is_answered_without_the_token(server):
    root = server.url.removesuffix(f"{server.token}/")
    assert server.server_address[0] == "127.0.0.1"
    content = {"surface": 0, "start": None, "end": [1, 1], "num": 5}
    for path in ("", server.token, f"{server.token[:-1]}x/", "jobs/1", "x/lines", "é/".encode()):
        path = path if isinstance(path, str) else "%C3%A9/"
        for method in ("GET", "POST", "DELETE"):
            given = content if method == "POST" else None
            assert ask(root, method, path, given)[0] == 403
    status, text = ask(server.url)
    assert status == 200
    assert "Evaluate" in text
    assert server.token not in text


@pytest.mark.parametrize(
    "headers",
    [{"Host": "evil.example"}, {"Host": "127.0.0.1"}, {"Origin": "http://evil.example"}],
)
def test_other_names_of_the_server_are_refused(server, headers):
    assert ask(server.url, **headers)[0] == 403
    own = {"Host": f"localhost:{server.server_port}"}
    assert ask(server.url, **own)[0] == 200


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"surface": 0}, "is a mapping of"),
        ([], "is a mapping of"),
        ({"surface": 3, "start": None, "end": [1, 1], "num": 5}, "surface must be"),
        ({"surface": True, "start": None, "end": [1, 1], "num": 5}, "surface must be"),
        ({"surface": 0, "start": None, "end": [1, 1], "num": 10**6}, "num must be"),
        ({"surface": 0, "start": [1], "end": [1, 1], "num": 5}, "start must be"),
        ({"surface": 0, "start": [1, True], "end": [1, 1], "num": 5}, "start must be"),
        ({"surface": 0, "start": [1, 1], "end": [1, 1], "num": 5}, "two different points"),
        ({"surface": 0, "start": None, "end": [0, 0], "num": 5}, "two different points"),
        (b'{"surface": 0, "start": null, "end": [1, NaN], "num": 5}', "end must be"),
        (b"{", "must be JSON"),
        (b"[" * 4000, "must be JSON"),
        (b" " * 5000, "1 to 4096 bytes"),
        (b"", "1 to 4096 bytes"),
    ],
)
def test_what_is_no_line_is_refused(server, content, words):
    status, text = ask(server.url, "POST", "lines", content)
    assert status == 400
    assert words in json.loads(text)["error"]


def test_other_addresses_and_types_are_refused(server):
    content = {"surface": 0, "start": None, "end": [1, 1], "num": 5}
    assert ask(server.url, "POST", "other", content)[0] == 404
    assert ask(server.url, path="../../etc/passwd")[0] == 404
    assert ask(server.url, path="jobs/999999")[0] == 404
    status, text = ask(server.url, "POST", "lines", content, **{"Content-Type": "text/plain"})
    assert (status, json.loads(text)["error"]) == (400, "A request must be application/json.")


def blocked():
    """A server whose evaluations stop after 3 of 9 points until they are let go."""
    reached, go = threading.Event(), threading.Event()

    def evaluate(request, watch):
        watch(3, 9)
        reached.set()
        assert go.wait(60)
        watch(9, 9)
        return {"num": request.num}

    return Server("page", 1, evaluate), reached, go


def test_progress_is_told_and_a_line_can_be_cancelled():
    server, reached, go = blocked()
    content = {"surface": 0, "start": None, "end": [1, 1], "num": 9}
    with running(server):
        numbers = [
            json.loads(ask(server.url, "POST", "lines", content)[1])["number"] for _ in "abc"
        ]
        assert reached.wait(60)
        first, second, third = (json.loads(ask(server.url, path=f"jobs/{n}")[1]) for n in numbers)
        assert (first["state"], first["done"], first["total"]) == ("running", 3, 9)
        assert second["state"] == third["state"] == "waiting"
        ask(server.url, "DELETE", f"jobs/{numbers[0]}")
        ask(server.url, "DELETE", f"jobs/{numbers[1]}")
        go.set()
        ended = [wait_for(server.url, n) for n in numbers]
    assert [job["state"] for job in ended] == ["cancelled", "cancelled", "done"]
    assert [job["result"] for job in ended] == [None, None, {"num": 9}]


def test_to_close_the_server_ends_its_evaluation():
    server, reached, go = blocked()
    with running(server):
        job = server.worker.submit(lambda watch: server.evaluate(None, watch))
        assert reached.wait(60)
        threading.Timer(0.1, go.set).start()
    assert job.state == "cancelled"
    with pytest.raises(InputError, match="stopping"):
        server.worker.submit(lambda watch: {})


def test_a_fault_ends_its_line_and_not_the_server():
    def evaluate(request, watch):
        raise (InputError("no such thing") if request.num == 2 else RuntimeError("broken"))

    with running(Server("page", 1, evaluate)) as server:
        assert line(server.url, None, [1, 1], 2)["error"] == "no such thing"
        failed = line(server.url, None, [1, 1], 3)
    assert failed["state"] == "failed"
    assert failed["error"].startswith("RuntimeError: broken")


def test_another_loss_at_theta_is_noticed(outputs, tmp_path):
    import shutil

    copied = tmp_path / "outputs"
    shutil.copytree(outputs, copied)
    run = surfaces(copied)[0]
    path = run.directory / "surface.npz"
    arrays = dict(np.load(path))
    arrays["loss"] = arrays["loss"] + 1
    np.savez(path, **arrays)
    other = surfaces(copied)[1]
    (other.directory / "directions.pt").unlink()
    with running(serve([run, other], "explore")) as started:
        assert "have changed since" in line(started.url, None, [1, 1])["error"]
        assert "directions.pt is missing" in line(started.url, None, [1, 1], surface=1)["error"]


def test_ctrl_c_ends_the_command_and_nothing_is_written(outputs):
    before = {path: path.stat().st_mtime_ns for path in outputs.rglob("*")}
    process = subprocess.Popen(
        [sys.executable, "-m", "mining", "explore", "outputs"],
        cwd=outputs.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    url = process.stdout.readline().strip()
    content = {"surface": 0, "start": None, "end": [1, 1], "num": 1001}
    number = json.loads(ask(url, "POST", "lines", content)[1])["number"]
    wait_for(url, number, ("running", "done"))
    while json.loads(ask(url, "GET", f"jobs/{number}")[1]).get("total") is None:
        time.sleep(0.05)  # the landscape is being built
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 0, told
    assert "Traceback" not in told
    assert told.splitlines()[-1] == "Stopping."
    assert {path: path.stat().st_mtime_ns for path in outputs.rglob("*")} == before


def test_what_has_no_surface_or_no_port_is_refused(outputs, server):
    trainings = [run for run in find_runs([outputs], []) if run.pipeline == "train"]
    with pytest.raises(InputError, match="no surface to explore"):
        serve(trainings, "explore")
    with pytest.raises(InputError, match=f"--port {server.server_port}: "):
        serve(surfaces(outputs), "explore", server.server_port)
