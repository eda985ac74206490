"""Compare the loss under Gaussian perturbation with its second-order prediction."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from mining.explain.second_order import Perturbations, perturb
from mining.pipelines.building import Config
from mining.pipelines.schema import make
from mining.pipelines.setting import build_setting, describe_point
from mining.plotting import draw_perturbations, save_figure
from mining.storage.records import load_record, save_record
from mining.storage.runs import Run


@dataclass(frozen=True)
class PerturbationSettings:
    """What ``pipeline=perturbation`` samples; see ``conf/config.yaml``."""

    num_samples: int = 100
    sigma: float = 1.0
    scales: Sequence[float] = (0.001, 0.01)


def run(config: Config, run: Run) -> None:
    """Sample the change of the loss under Gaussian perturbation into ``run``."""
    settings: PerturbationSettings = make(
        "perturbation", config["perturbation"], PerturbationSettings
    )
    setting = build_setting(config)
    found = perturb(
        setting.landscape,
        settings.scales,
        settings.num_samples,
        settings.sigma,
        generator=setting.generator,
        progress=config["progress"],
    )
    save_record(run.directory / "perturbations.npz", found, second_order=found.second_order)
    draw(run.directory, config)
    run.finish(
        {
            "loss_at_theta": float(setting.landscape.loss(setting.landscape.theta)),
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
            **setting.record(),
        },
        device=str(setting.landscape.device),
    )


def draw(directory: Path, config: Config) -> None:
    """Draw the distribution of the changes for every scale beside the predicted normal one."""
    found = load_record(directory / "perturbations.npz", Perturbations)
    title = f"{directory.parent.name}, {describe_point(config)}"
    picture = Figure(figsize=(5 * len(found.scales), 3.4), layout="constrained")
    draw_perturbations(picture, found, title=title)
    save_figure(picture, directory / "perturbations.png")
