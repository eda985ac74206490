"""Pictures of spectra and of second-order models."""

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import FigureBase
from matplotlib.ticker import MaxNLocator
from scipy.stats import norm

from mining.curvature import SpectralDensity
from mining.directions.eigenvectors import signed_number
from mining.evaluation.curves import Curve
from mining.explain.second_order import Expansions, Perturbations
from mining.plotting.losses import draw_chance_level, mark_theta

_FLOOR = 1e-10
_COLORS = {1: "tab:blue", -1: "tab:red", 0: "0.5"}
_SIGNS = {1: "positive", -1: "negative", 0: "zero up to rounding"}
_BARS = {1: "P.E.: positive", -1: "N.E.: negative", 0: "neither: of the wrong sign, or zero"}
#: Up to this many bars carry their values.
_FEW = 12
#: A picture of fewer bars has room for this many.
_ROOM = 6


def draw_density(
    axes: Axes,
    density: SpectralDensity,
    extremes: tuple[float, float] | None = None,
    rounding: float | None = None,
) -> None:
    """Draw a spectral density on a logarithmic axis, as Xu et al. (2024), Fig. 13.

    The line is the mean over the random vectors, and the band their range. Dotted lines mark the
    extreme eigenvalues, whose values are in the title, in the colours of their signs.

    Args:
        axes: Where to draw.
        density: The spectral density.
        extremes: Smallest and largest eigenvalue; by default the extreme nodes.
        rounding: Magnitude up to which an eigenvalue passes for zero; by default a millionth of
            the largest.
    """
    low, high = (density.low, density.high) if extremes is None else extremes
    if rounding is None:
        rounding = 1e-6 * max(abs(low), abs(high))
    points = density.grid()
    found = density.evaluate(points).clamp(min=_FLOOR)
    mean = found.mean(0)
    label = "density, mean over random vectors"
    axes.plot(points, mean, color="black", linewidth=1, label=label)
    band = axes.fill_between(points, found.amin(0), found.amax(0))
    band.set(facecolor="black", alpha=0.2, linewidth=0, label="range over the random vectors")
    for value in (low, high):
        sign = 0 if abs(value) <= rounding else int(math.copysign(1, value))
        label = f"smallest or largest eigenvalue: {_SIGNS[sign]}"
        axes.axvline(value, color=_COLORS[sign], linestyle=":", linewidth=1.5, label=label)
    axes.set_yscale("log")
    # A single eigenvalue has weight 1/D: anything far below is the tail of the broadening kernel.
    peak = 1 / (density.size * density.width * math.sqrt(2 * math.pi))
    axes.set_ylim(max(_FLOOR, 1e-3 * peak), 3 * float(found.max()))
    axes.set_title(
        f"spectral density, λ in [{low:.4g}, {high:.4g}]\n{len(density.nodes)} random vectors × "
        f"{density.nodes.shape[1]} Lanczos nodes, each broadened to σ = {density.width:.2g}",
        fontsize=8,
    )
    axes.set_xlabel("eigenvalue λ", fontsize=8)
    axes.set_ylabel("fraction of eigenvalues per unit of λ", fontsize=8)
    axes.tick_params(labelsize=8)


def eigenvector_colors(names: Sequence[str]) -> list[str]:
    """Choose the colours of eigenvectors: blue of a P.E., red of an N.E., grey of others."""
    return [_COLORS[_sign(name)] for name in names]


def _sign(name: str) -> int:
    return int(np.sign(signed_number(name)))


def draw_eigenvalues(
    axes: Axes, names: Sequence[str], eigenvalues: Sequence[float], residuals: Sequence[float]
) -> None:
    """Draw extreme eigenvalues as bars in descending order, with their values if they are few.

    Args:
        axes: Where to draw.
        names: P.E.1 (of a positive eigenvalue), N.E.1 (of a negative one) and the like, ``(k,)``.
        eigenvalues: Shape ``(k,)``, in any order.
        residuals: Residual norms, which bound the errors of the eigenvalues, ``(k,)``.
    """
    order = np.argsort(eigenvalues, stable=True)[::-1]
    names = [names[i] for i in order]
    values, errors = np.array(eigenvalues)[order], np.array(residuals)[order]
    signs = [_sign(name) for name in names]
    first = {sign: signs.index(sign) for sign in signs}
    labels = [_BARS[s] if first[s] == i else "_nolegend_" for i, s in enumerate(signs)]
    colors = eigenvector_colors(names)
    bars = axes.bar(range(len(values)), values, color=colors, label=labels, yerr=errors, capsize=2)
    assert bars.errorbar is not None
    bars.errorbar.set_label("error bar: residual ‖Av - λv‖, A the matrix")
    axes.axhline(0, color="black", linewidth=0.6)
    # Negative eigenvalues are often a hundredth of the positive ones: both must be visible.
    clear = np.abs(values[np.abs(values) > errors])
    scale = ""
    if clear.size and clear.max() > 10 * clear.min():
        axes.set_yscale("symlog", linthresh=float(clear.min()))
        scale = " (symmetric log scale)"
    if len(values) <= _FEW:
        axes.bar_label(bars, [f"{value:.3g}" for value in values], fontsize=7, padding=2)
        axes.margins(y=0.12)
    middle, half = (len(values) - 1) / 2, max(len(values), _ROOM) / 2
    axes.set_xlim(middle - half, middle + half)
    axes.set_xticks(range(len(values)), names, rotation=90, fontsize=7)
    axes.set_ylabel(f"eigenvalue λ{scale}", fontsize=8)
    axes.tick_params(axis="y", labelsize=8)
    axes.set_title("extreme eigenvalues", fontsize=8)


def draw_expansions(axes: Axes, curve: Curve, found: Expansions) -> None:
    """Draw a curve and its second-order models, as Xu et al. (2024), Fig. 14.

    Args:
        axes: Where to draw.
        curve: The curve.
        found: Its parabolas.
    """
    axes.plot(curve.alphas, curve.loss, color="0.6", linewidth=1.2, label="loss")
    for row, alpha in enumerate(found.alphas.tolist()):
        x = np.linspace(float(found.offsets[0]), float(found.offsets[-1]), 21)
        parabola = (
            float(found.loss[row])
            + float(found.slope[row]) * x
            + float(found.curvature[row]) * x**2 / 2
        )
        color = "tab:red" if row % 2 == 0 else "tab:orange"  # neighbours may touch
        label = "second-order models, red and orange in turn"
        axes.plot(alpha + x, parabola, color=color, linewidth=1.6, label=label)
    label = "points of the models"
    axes.plot(found.alphas, found.loss, "o", color="black", markersize=3, label=label)
    draw_chance_level(axes, curve.loss.numpy(), curve.chance_loss)
    mark_theta(axes)
    error, reach = float(found.error.max()), float(found.offsets.max())
    title = f"{curve.name}: error of the models up to {error:.2g} nats within ±{reach:g}"
    axes.set_title(title, fontsize=9)
    factor = " × its factor" if curve.scale is not None else ""
    axes.set_xlabel(f"α, in units of the direction's length{factor}", fontsize=8)
    axes.set_ylabel("loss (nats)" if curve.chance_loss is not None else "loss", fontsize=8)
    axes.tick_params(labelsize=8)


def draw_perturbations(picture: FigureBase, found: Perturbations, *, title: str = "") -> list[Axes]:
    """Draw the distribution of the loss change for every λ, as Xu et al. (2024), Fig. 13.

    Args:
        picture: Where to draw, one panel per λ.
        found: The samples.
        title: Title above all panels.

    Returns:
        The panels, for ``explain``.
    """
    drawn = []
    means = found.predicted_mean().tolist()
    deviations = found.predicted_variance().sqrt().tolist()
    for column, scale in enumerate(found.scales.tolist()):
        axes = picture.add_subplot(1, len(found.scales), column + 1)
        samples = found.changes[:, column].numpy()
        kept = samples[np.isfinite(samples)]
        mean, deviation = means[column], deviations[column]
        second = found.second_order[:, column].numpy()
        bins = np.histogram_bin_edges(np.concatenate([kept, second]), 20).tolist()
        axes.hist(kept, bins, density=True, alpha=0.5, label="evaluated")
        axes.hist(
            second,
            bins,
            density=True,
            histtype="step",
            color="tab:red",
            label="second-order model of the same perturbations",
        )
        points = np.linspace(
            min(kept.min(initial=mean), mean - 4 * deviation),
            max(kept.max(initial=mean), mean + 4 * deviation),
            200,
        )
        axes.plot(
            points,
            norm.pdf(points, mean, deviation),
            color="black",
            label="normal distribution predicted from gradient and Hessian",
        )
        axes.axvline(0, color="black", linestyle=":", linewidth=1, label="loss of θ")
        axes.set_title(
            f"λ = {scale:g}: the loss rises for "
            f"{float((found.changes[:, column] > 0).double().mean()):.0%}",
            fontsize=9,
        )
        axes.set_xlabel("change of the loss, L(θ + λε) - L(θ) (nats)", fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_ylabel("probability density", fontsize=8)
        axes.ticklabel_format(axis="x", scilimits=(-3, 4))
        axes.tick_params(labelsize=7)
        axes.xaxis.get_offset_text().set_fontsize(7)
        drawn.append(axes)
    about = f"{len(found.slopes)} Gaussian ε, entries of standard deviation {found.sigma:g}"
    picture.suptitle(f"{title}: {about}", fontsize=9)
    return drawn
