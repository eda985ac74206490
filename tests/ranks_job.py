"""What tests compute in one process and in several; run as a script, jobs of several ranks.

``python ranks_job.py FOLDER SIZE…`` writes what each rank found to ``FOLDER/<size>.<rank>``.
"""

import sys
from multiprocessing import get_context
from pathlib import Path

import torch
import torch.distributed as dist
from cases import direction, landscape, vectors

from mining import (
    Descent,
    Evaluator,
    Xu2024WPeak,
    distributed,
    eigenpairs,
    mine,
    spectral_density,
    trace,
)
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


def sums(folder: Path) -> dict[str, torch.Tensor]:
    """Sums over examples, which may differ by rounding."""
    found = {}
    for name, policy in (
        ("batchnorm", "recalibrate"),
        ("batchnorm", "batch"),
        ("shared", "recalibrate"),  # one norm layer runs twice
        ("counting", "recalibrate"),  # whose batches depend on those before: they are not shared
        ("attention", "frozen"),
    ):
        of = landscape(name, policy, num_examples=200)
        at = of.theta + 0.1 * direction(of).vector
        found[f"gradient {name} {policy}"] = of.gradient(at)
        found[f"gradient at θ {name} {policy}"] = of.gradient()
        for kind in ("hessian", "gauss_newton", "residual") if name != "counting" else ():
            operator = getattr(of, kind)(at, micro_batch=None if name == "attention" else 20)
            found[f"{kind} {name} {policy}"] = operator @ vectors(of.space.size)
        # The statistics of one rank, which evaluations take, are not those that were shared.
        found[f"loss {name} {policy}"] = (
            Evaluator(of, progress=False).curve(direction(of), torch.linspace(-1, 1, 3)).loss
        )
    for name, policy in (("mlp", "frozen"), ("batchnorm", "recalibrate")):
        mined = mine(
            Xu2024WPeak(Descent(epochs=3, batch_size=25)),
            landscape(name, policy),
            generator=torch.Generator().manual_seed(3),
            checkpoint=folder / f"{name}.pt",
            callbacks=[lambda loop: torch.manual_seed(loop.epoch)],
        )
        found[f"mined {name}"] = mined.direction.vector
        again = mine(  # goes on from the end
            Xu2024WPeak(Descent(epochs=3, batch_size=25)),
            landscape(name, policy),
            generator=torch.Generator().manual_seed(3),
            checkpoint=folder / f"{name}.pt",
        )
        assert torch.equal(again.direction.vector, mined.direction.vector)
    of = landscape("batchnorm", num_examples=60)  # two batches, fewer than ranks
    operator = of.hessian()
    generator = torch.Generator().manual_seed(0)
    pairs = eigenpairs(operator, 2, "both", tol=1e-8, generator=generator)
    found["eigenvalues"], found["products"] = pairs.values, torch.tensor(pairs.products)
    found["trace"] = trace(operator, generator=generator, num_products=40).samples
    found["nodes"] = spectral_density(operator, 12, 3, generator=generator).nodes
    layer = of.hessian(parameters="linear.weight")
    found["block"] = layer @ vectors(layer.shape[0], 1)
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
        found = {"points": points(journals), "sums": sums(journals)}
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
