"""How much memory is left, where something less than the machine limits it."""

from pathlib import Path

import psutil
import pytest
import torch

from mining.functional import memory
from mining.functional.memory import available_memory, left_by_control_groups

CPU, GIB = torch.device("cpu"), 2**30


def group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


@pytest.fixture(autouse=True)
def no_job(monkeypatch):
    for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)


def test_control_groups_and_their_parents_limit(tmp_path):
    groups, membership = tmp_path / "groups", tmp_path / "cgroup"
    membership.write_text("0::/job/step\n")
    group(groups, memory__stat="inactive_file 7")  # the root has no limit
    stat = "anon 5\ninactive_file 100\nfile 300"
    group(groups / "job", memory__max=5000, memory__current=3000, memory__stat=stat)
    group(groups / "job/step", memory__max="max", memory__current=2000, memory__stat=stat)
    assert list(left_by_control_groups(membership, groups)) == [2100]


def test_control_groups_of_the_first_version_limit(tmp_path):
    groups, membership = tmp_path / "groups", tmp_path / "cgroup"
    membership.write_text("5:cpuset:/\n4:cpu,memory:/box\n0::/\n")
    stat = "inactive_file 1\ntotal_inactive_file 50"
    used = {"memory__usage_in_bytes": 400, "memory__stat": stat}
    group(groups / "memory", memory__limit_in_bytes=2**63 - 4096, **used)
    group(groups / "memory/box", memory__limit_in_bytes=1000, **used)
    assert min(left_by_control_groups(membership, groups)) == 650


def test_without_control_groups_nothing_is_limited(tmp_path):
    assert list(left_by_control_groups(tmp_path / "none", tmp_path)) == []


def test_the_least_is_available(monkeypatch):
    free = psutil.virtual_memory()._replace(available=6 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    monkeypatch.setattr(memory, "left_by_control_groups", lambda: iter(()))
    assert available_memory(CPU) == 6 * GIB
    monkeypatch.setattr(memory, "left_by_control_groups", lambda: iter([4 * GIB, 5 * GIB]))
    assert available_memory(CPU) == 4 * GIB
    own = psutil.Process().memory_info().rss
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "1024")
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "3")
    assert available_memory(CPU) == pytest.approx(3 * GIB - own, abs=2**24)
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "2048")
    assert available_memory(CPU) == pytest.approx(2 * GIB - own, abs=2**24)
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "1")
    assert available_memory(CPU) == 0
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "0")  # all of the node
    assert available_memory(CPU) == 4 * GIB
