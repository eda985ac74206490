"""Power iteration from the command line."""

import pytest
from command_line import QUICK, record

from mining.storage.files import read_arrays

POWER = ("pipeline=power_iteration", *QUICK, "num_examples=50")


def test_values_approach_the_leading_eigenvalue(command):
    directory = command(*POWER, "power.iterations=60", "power.starts=3")
    metrics = record(directory)["metrics"]
    arrays = read_arrays(directory / "power_iteration.npz")
    assert arrays["values"].shape == (3, 60)
    first, second = metrics["eigenvalues_leading"]
    assert abs(first) >= abs(second)
    assert metrics["ratio"] == pytest.approx(abs(second / first))
    # Lanczos and power iteration, to the residuals of either.
    slack = arrays["residuals"][:, -1] + metrics["residuals_leading"][0] + 1e-5 * abs(first)
    assert (abs(arrays["values"][:, -1] - first) <= slack).all()
    assert (directory / "power_iteration.png").stat().st_size > 10_000


def test_a_number_out_of_range_is_refused(command, capsys):
    with pytest.raises(SystemExit):
        command(*POWER, "power.starts=0")
    assert "power.starts must be at least 1, got 0" in capsys.readouterr().err
