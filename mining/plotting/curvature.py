"""Pictures of spectra and of second-order models."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from scipy.stats import norm

from mining.curvature import SpectralDensity
from mining.directions.eigenvectors import signed_number
from mining.evaluation.curves import Curve
from mining.explain.second_order import Expansions, Perturbations
from mining.plotting.losses import draw_chance_level

_FLOOR = 1e-10
_POSITIVE, _NEGATIVE = "tab:blue", "tab:red"


def draw_density(
    axes: Axes, density: SpectralDensity, extremes: tuple[float, float] | None = None
) -> None:
    """Draw a spectral density on a logarithmic axis, as Xu et al. (2024), Fig. 13.

    The line is the mean over the random vectors, and the band their range. Dotted lines mark the
    extreme eigenvalues, whose values are in the title.

    Args:
        axes: Where to draw.
        density: The spectral density.
        extremes: Smallest and largest eigenvalue; by default the extreme nodes.
    """
    low, high = (density.low, density.high) if extremes is None else extremes
    points = density.grid()
    found = density.evaluate(points).clamp(min=_FLOOR)
    mean = found.mean(0)
    axes.fill_between(points, found.amin(0), found.amax(0), alpha=0.25, linewidth=0)
    axes.plot(points, mean, linewidth=1.2)
    for value, color in ((low, _NEGATIVE), (high, _POSITIVE)):
        axes.axvline(value, color=color, linestyle=":", linewidth=1)
    axes.set_yscale("log")
    # A single eigenvalue has weight 1/D: anything far below is the tail of the broadening kernel.
    peak = 1 / (density.size * density.width * math.sqrt(2 * math.pi))
    axes.set_ylim(max(_FLOOR, 1e-3 * peak), 3 * float(found.max()))
    axes.set_title(
        f"density, λ in [{low:.4g}, {high:.4g}], {len(density.nodes)} vectors × "
        f"{density.nodes.shape[1]} nodes, broadened by {density.width:.2g}",
        fontsize=8,
    )
    axes.set_xlabel("eigenvalue λ", fontsize=8)
    axes.set_ylabel("fraction of eigenvalues per unit of λ", fontsize=8)
    axes.tick_params(labelsize=8)


def eigenvector_colors(names: Sequence[str]) -> list[str]:
    """Choose the colours of eigenvectors: blue of a P.E., red of an N.E., grey of others."""
    numbers = map(signed_number, names)
    return [_POSITIVE if n > 0 else _NEGATIVE if n < 0 else "0.5" for n in numbers]


def draw_eigenvalues(
    axes: Axes, names: Sequence[str], eigenvalues: Sequence[float], residuals: Sequence[float]
) -> None:
    """Draw extreme eigenvalues as bars in descending order.

    Args:
        axes: Where to draw.
        names: P.E.1 (of a positive eigenvalue), N.E.1 (of a negative one) and the like, ``(k,)``.
        eigenvalues: Shape ``(k,)``, in any order.
        residuals: Residual norms, which bound the errors of the eigenvalues, ``(k,)``.
    """
    order = np.argsort(eigenvalues, stable=True)[::-1]
    names = [names[i] for i in order]
    values, errors = np.array(eigenvalues)[order], np.array(residuals)[order]
    colors = eigenvector_colors(names)
    axes.bar(range(len(values)), values, color=colors, yerr=errors, capsize=2)
    axes.axhline(0, color="black", linewidth=0.6)
    # Negative eigenvalues are often a hundredth of the positive ones: both must be visible.
    lowest = np.abs(values[values != 0]).min(initial=np.abs(values).max(initial=1.0))
    axes.set_yscale("symlog", linthresh=max(float(lowest), 1e-12))
    axes.set_xticks(range(len(values)), names, rotation=90, fontsize=7)
    axes.set_ylabel("eigenvalue λ (symmetric log scale)", fontsize=8)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_title(
        "extreme eigenvalues (P.E.: positive, N.E.: negative), error bars: residual ‖Hv - λv‖",
        fontsize=7.5,
    )


def draw_expansions(axes: Axes, curve: Curve, found: Expansions) -> None:
    """Draw a curve and its second-order models, as Xu et al. (2024), Fig. 14.

    Args:
        axes: Where to draw.
        curve: The curve.
        found: Its parabolas.
    """
    axes.plot(curve.alphas, curve.loss, color="0.6", linewidth=1.2, label=f"loss, {curve.name}")
    for row, alpha in enumerate(found.alphas.tolist()):
        x = np.linspace(float(found.offsets[0]), float(found.offsets[-1]), 21)
        parabola = (
            float(found.loss[row])
            + float(found.slope[row]) * x
            + float(found.curvature[row]) * x**2 / 2
        )
        label = "second order" if row == 0 else None
        color = "tab:red" if row % 2 == 0 else "tab:orange"  # neighbours may touch
        axes.plot(alpha + x, parabola, color=color, linewidth=1.6, label=label)
    axes.plot(found.alphas, found.loss, "o", color="black", markersize=3)
    draw_chance_level(axes, curve.loss.numpy(), curve.chance_loss)
    axes.axvline(0, color="black", linestyle=":", linewidth=1)
    axes.set_title(f"largest error of a parabola {float(found.error.max()):.2g} nats", fontsize=9)
    factor = " × its factor" if curve.scale is not None else ""
    axes.set_xlabel(f"α, in units of the direction's length{factor}", fontsize=8)
    axes.set_ylabel("loss (nats)" if curve.chance_loss is not None else "loss", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=7)


def draw_perturbations(picture: FigureBase, found: Perturbations, *, title: str = "") -> None:
    """Draw the distribution of the loss change for every λ, as Xu et al. (2024), Fig. 13.

    Args:
        picture: Where to draw, one panel per λ.
        found: The samples.
        title: Title above all panels.
    """
    means = found.predicted_mean().tolist()
    deviations = found.predicted_variance().sqrt().tolist()
    for column, scale in enumerate(found.scales.tolist()):
        axes = picture.add_subplot(1, len(found.scales), column + 1)
        samples = found.changes[:, column].numpy()
        kept = samples[np.isfinite(samples)]
        mean, deviation = means[column], deviations[column]
        second = found.second_order[:, column].numpy()
        bins = np.histogram_bin_edges(np.concatenate([kept, second]), 20).tolist()
        axes.hist(kept, bins, density=True, alpha=0.5, label="loss change, evaluated")
        axes.hist(
            second,
            bins,
            density=True,
            histtype="step",
            color="tab:red",
            label="second order",
        )
        points = np.linspace(
            min(kept.min(initial=mean), mean - 4 * deviation),
            max(kept.max(initial=mean), mean + 4 * deviation),
            200,
        )
        axes.plot(points, norm.pdf(points, mean, deviation), color="black", label="predicted")
        axes.axvline(0, color="black", linestyle=":", linewidth=1)
        axes.set_title(
            f"λ = {scale:g}: {float((found.changes[:, column] > 0).double().mean()):.0%} rise",
            fontsize=9,
        )
        axes.set_xlabel("L(θ + λε) - L(θ) (nats)", fontsize=8)
        axes.set_ylabel("probability density", fontsize=8)
        axes.tick_params(labelsize=7)
        axes.legend(fontsize=7)
    picture.suptitle(f"{title}: {len(found.slopes)} Gaussians, σ = {found.sigma:g}", fontsize=9)
