"""One evaluation on several processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ranks_job import points, sums

SIZES = (2, 3)
JOB = Path(__file__).parent / "ranks_job.py"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def jobs(tmp_path_factory):
    """What each rank of jobs of 2 and of 3 processes found, all at once."""
    folder = tmp_path_factory.mktemp("jobs")
    subprocess.run([sys.executable, JOB, folder, *map(str, SIZES)], env=ENVIRONMENT, check=True)
    return folder, {
        size: [torch.load(folder / f"{size}.{rank}") for rank in range(size)] for size in SIZES
    }


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The same in one process."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("one")
    found = {"points": points(folder), "sums": sums(folder)}
    torch.set_num_threads(threads)
    return folder, found


@pytest.mark.parametrize("size", SIZES)
def test_every_rank_has_the_points_of_one_process_bit_for_bit(jobs, one, size):
    expected = one[1]["points"]
    assert len(expected) > 15
    for rank in jobs[1][size]:
        assert rank["points"].keys() == expected.keys()
        for name, values in expected.items():
            assert torch.equal(rank["points"][name], values), name


@pytest.mark.parametrize("size", SIZES)
def test_every_rank_has_the_sums_of_one_process_to_rounding(jobs, one, size):
    expected = one[1]["sums"]
    for rank in jobs[1][size]:
        assert rank["sums"].keys() == expected.keys()
        for name, values in expected.items():
            scale = float(values.abs().max())
            assert torch.allclose(rank["sums"][name], values, rtol=0, atol=1e-11 * scale), name
            if name.startswith("loss"):
                assert torch.equal(rank["sums"][name], values), name
    for name in expected:  # the ranks decide by them what to do next
        assert all(
            torch.equal(r["sums"][name], jobs[1][size][0]["sums"][name]) for r in jobs[1][size]
        )


@pytest.mark.parametrize("size", SIZES)
def test_journals_of_ranks_end_up_in_one(jobs, one, size):
    folder = jobs[0] / f"journals-{size}"
    assert not list(folder.glob("*.rank*"))
    for path in one[0].glob("*.csv"):
        lines = [(place / path.name).read_text().splitlines() for place in (folder, one[0])]
        assert sorted(lines[0]) == sorted(lines[1])


@pytest.mark.parametrize("size", SIZES)
def test_ranks_hear_of_one_that_fails(jobs, size):
    *others, failed = (rank["heard"] for rank in jobs[1][size])
    assert failed == "mine"
    for heard in others:
        assert heard == f"rank {size - 1} ended with MemoryError: no room for this point"
