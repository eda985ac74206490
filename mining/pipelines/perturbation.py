"""Compare the loss under Gaussian perturbation with its second-order prediction."""

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from mining.explain.second_order import Perturbations, perturb
from mining.pipelines.pictures import save_picture
from mining.pipelines.problem import Problem
from mining.pipelines.titles import EPOCH, describe_point
from mining.plotting import draw_perturbations, explain
from mining.storage.records import load_record, save_record


@dataclass(frozen=True)
class PerturbationSettings:
    """What ``pipeline=perturbation`` samples; see ``conf/config.yaml``."""

    num_samples: int = 100
    sigma: float = 1.0
    scales: Sequence[float] = (0.001, 0.01)


def run(problem: Problem) -> None:
    """Sample the change of the loss under Gaussian perturbation."""
    settings = problem.settings.perturbation.make(PerturbationSettings)
    landscape = problem.landscape
    found = perturb(
        landscape,
        settings.scales,
        settings.num_samples,
        settings.sigma,
        generator=problem.generator,
        progress=problem.settings.progress,
    )
    path = problem.run.directory / "perturbations.npz"
    save_record(path, found, second_order=found.second_order)
    draw(problem)
    problem.run.finish(
        {
            "loss_at_theta": float(landscape.loss(landscape.theta)),
            "gradient_norm": found.gradient_norm,
            "trace": found.trace.mean,
            "trace_standard_error": found.trace.standard_error,
            "trace_of_square": found.trace_of_square.mean,
            "trace_of_square_standard_error": found.trace_of_square.standard_error,
            "scales": found.scales.tolist(),
            "predicted_mean": found.predicted_mean().tolist(),
            "predicted_deviation": found.predicted_variance().sqrt().tolist(),
            "printed_deviation": found.printed_variance().sqrt().tolist(),
            "second_order_mean": found.second_order.mean(0).tolist(),
            "second_order_deviation": found.second_order.std(0).tolist(),
            "mean": found.changes.mean(0).tolist(),
            "deviation": found.changes.std(0).tolist(),
            "share_rising": (found.changes > 0).double().mean(0).tolist(),
            **problem.record(),
        },
        device=str(landscape.device),
    )


def draw(problem: Problem) -> None:
    """Draw the distribution of the changes for every scale beside the predicted normal one."""
    directory = problem.run.directory
    found = load_record(directory / "perturbations.npz", Perturbations)
    title = f"{directory.parent.name}, {describe_point(problem.settings)}"
    picture = Figure(figsize=(5 * len(found.scales), 3.4), layout="constrained")
    explain(picture, draw_perturbations(picture, found, title=title), EPOCH)
    save_picture(problem, picture, "perturbations")
