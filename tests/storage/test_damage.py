"""Files of runs that were damaged: named in one line and computed again, never used."""

import random

import numpy as np
import pytest
import torch
from cases import landscape
from command_line import QUICK

from mining import Direction, InputError
from mining.directions.storage import load_directions, save_directions
from mining.storage.checkpoints import load_state_dict
from mining.storage.files import read_arrays, read_record, save_arrays, write_record
from mining.training import save_model

SPECTRUM = (
    "pipeline=spectrum",
    "spectrum.num_eigenvalues=1",
    "spectrum.density_probes=0",
    "spectrum.trace_error=null",
    "spectrum.trace_products=6",
)
MINE = ("pipeline=mine", "direction=xu2024_w_peak", "descent.epochs=2")
OF = landscape("mlp")
KINDS = {
    "epoch_0001.pt": (lambda path: save_model(OF.model, path, 0), load_state_dict),
    "directions.pt": (
        lambda path: save_directions(path, [Direction(OF.theta, "own")], OF),
        lambda path: {d.source: d.vector for d in load_directions(path, OF)},
    ),
    "trace.npz": (lambda path: save_arrays(path, {"mean": np.arange(3.0)}), read_arrays),
    "run.json": (lambda path: write_record(path, {"metrics": {"loss": 0.1}}), read_record),
}


def damage(path, generator):
    """Truncate, empty or replace a file, or flip one to eight of its bits."""
    content = bytearray(path.read_bytes())
    kind = generator.choice(["truncate", "empty", "folder", "text", *["flip"] * 6])
    if kind == "folder":
        path.unlink()
        path.mkdir()
    elif kind == "flip":
        for _ in range(generator.randint(1, 8)):
            bit = generator.randrange(8 * len(content))
            content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
    else:
        length = generator.randrange(len(content)) if kind == "truncate" else 0
        path.write_bytes(b"not a record" if kind == "text" else content[:length])
    return kind


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_file_is_refused_in_one_line_or_holds_what_it_held(tmp_path, name):
    write, read = KINDS[name]
    generator, refused = random.Random(0), 0
    path = tmp_path / name
    write(path)
    whole, content = read(path), path.read_bytes()
    for _ in range(150):
        damage(path, generator)
        try:
            found = read(path)
        except InputError as error:
            refused += 1
            assert name in str(error)
            assert "\n" not in str(error)
        else:  # in padding, times or names, which hold no numbers
            assert found.keys() == whole.keys()
            assert all(np.array_equal(found[key], whole[key]) for key in whole)
        path.rmdir() if path.is_dir() else path.unlink()
        path.write_bytes(content)
    assert refused > 100


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ((), ["curves.npz", "directions.pt", "points.csv"]),
        (SPECTRUM, ["eigenpairs.npz", "eigenvectors.pt", "trace.npz"]),
        (MINE, ["directions.pt", "history.csv"]),
        (("pipeline=train",), ["epoch_0000.pt", "epoch_0003.pt", "history.csv"]),
    ],
    ids=["curve", "spectrum", "mine", "train"],
)
def test_damaged_files_of_a_run_are_computed_again(command, arguments, names):
    """A run whose files are damaged ends as if they were not, finished or interrupted."""
    call = (*QUICK, "grid.num=5", *arguments)
    directory = command(*call)
    metrics = _stable(directory)
    for seed, interrupted in enumerate((False, True)):
        generator = random.Random(seed)
        for name in names:
            damage(directory / name, generator)
        if interrupted:
            (directory / "run.json").unlink()
        assert command(*call) == directory
        assert _stable(directory) == metrics
        assert all((directory / name).is_file() for name in names)


def test_a_damaged_state_of_training_or_mining_is_not_gone_on_from(command):
    for arguments, name in ((("pipeline=train",), "resume.pt"), (MINE, "resume_1.pt")):
        directory = command(*QUICK, *arguments)
        metrics = _stable(directory)
        (directory / "run.json").unlink()
        (directory / name).write_bytes(b"half of a state")
        assert command(*QUICK, *arguments) == directory
        assert _stable(directory) == metrics
        log = (directory / "mining.log").read_text()
        assert log.count(f"{name} is damaged. Computing it again.") == 1


def test_a_flipped_bit_of_a_weight_is_not_used(tmp_path):
    path = tmp_path / "w.pt"
    torch.save({"weight": torch.ones(1000)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.ones(4).numpy().tobytes()) + 3] ^= 0x40  # 1.0 becomes 3e38 or so
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"w.pt is damaged: the checksum of"):
        load_state_dict(path)


def _stable(directory):
    """The metrics of a run but for those that measure time."""
    metrics = read_record(directory / "run.json")["metrics"]
    metrics.get("landscape", {}).pop("cost", None)
    return {key: value for key, value in metrics.items() if "seconds" not in key}
