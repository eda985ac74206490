"""What tests compute in one process and in several; run as a script, jobs of several ranks.

``python ranks_job.py FOLDER SIZE…`` writes what each rank found to ``FOLDER/<size>.<rank>``.
"""

import sys
from multiprocessing import get_context
from pathlib import Path

import torch
import torch.distributed as dist
from cases import direction, landscape

from mining import Evaluator, distributed
from mining.ranks import RankError


def points(folder: Path) -> dict[str, torch.Tensor]:
    """Points of curves and surfaces, whose values must be the same bit for bit."""
    found = {}
    for name, policy, options in (
        ("batchnorm", "recalibrate", {}),
        ("batchnorm", "batch", {}),
        ("mlp", "frozen", {"chunk": 5}),  # points share the products of the first layer
        ("attention", "frozen", {"test": True}),
        ("batchnorm", "frozen", {"refine": 0.1}),
    ):
        of = landscape(name, policy)
        x, y = direction(of, 0), direction(of, 1)
        if "test" in options:
            options = {"test": [(batch.inputs, batch.targets) for batch in of.batches[:1]]}
        journal = folder / f"{name}-{policy}-{len(options)}.csv"
        evaluator = Evaluator(of, progress=False, journal=journal, **options)
        surface = evaluator.surface(x, y, torch.linspace(-1, 1, 7), torch.linspace(-2, 1, 9))
        for field in ("loss", "accuracy", "loss_test", "evaluated"):
            if getattr(surface, field) is not None:
                found[f"{field} of {journal.stem}"] = getattr(surface, field)
        if "refine" not in options:
            curves = Evaluator(of, progress=False, chunk=2).curves([x, y], torch.linspace(-1, 1, 8))
            found[f"curves of {journal.stem}"] = torch.stack([curve.loss for curve in curves])
    for policy in ("recalibrate", "frozen"):
        of = landscape("batchnorm", policy, num_examples=900)
        evaluator = Evaluator(
            of, progress=False, journal=folder / f"few-{policy}.csv", tolerance=0.05
        )
        curve = evaluator.curve(direction(of), torch.linspace(-1, 1, 9))
        found[f"loss of few-{policy}"] = curve.loss
        found[f"covariance of few-{policy}"] = curve.loss_covariance
    return found


def broken() -> str:
    """Say what the other ranks hear of one that fails while points are dealt out."""
    of = landscape("mlp", "frozen")

    try:
        with distributed() as ranks:
            if ranks.index == ranks.size - 1:
                raise MemoryError("no room for this point")
            Evaluator(of, progress=False, chunk=1).curve(direction(of), torch.linspace(-1, 1, 9))
    except RankError as error:
        return str(error)
    except MemoryError:
        return "mine"
    return "nothing"


def run(folder: Path, rank: int, size: int) -> None:
    """Do the work of one rank."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/at{size}", rank=rank, world_size=size
    )
    journals = folder / f"journals-{size}"
    journals.mkdir(exist_ok=True)
    with distributed() as ranks:
        assert (ranks.index, ranks.size, ranks.first) == (rank, size, rank == 0)
        found = {"points": points(journals)}
    found["heard"] = broken()
    torch.save(found, folder / f"{size}.{rank}")


def main(folder: str, *sizes: str) -> None:
    # Forked, since importing torch takes longer than the work.
    context = get_context("fork")
    processes = [
        context.Process(target=run, args=(Path(folder), rank, int(size)))
        for size in sizes
        for rank in range(int(size))
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    sys.exit(any(process.exitcode != 0 for process in processes))


if __name__ == "__main__":
    main(*sys.argv[1:])
