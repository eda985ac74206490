"""The claims of Xu et al. (2024) and their criteria; ``analysis/criteria.md`` quotes the paper."""

from functools import partial

from analysis.findings import Claim, Criterion
from analysis.verdicts import Bound
from analysis.xu2024 import no_skip
from analysis.xu2024 import quantities as q

_MOST = Bound(low=0.5)
_LOWER = Bound(high=0.0)

_GAUSSIAN = (
    Criterion(
        "1a", "mean number of stationary points of Gaussian curves", "paper", "fig02",
        Bound(high=1.5), q.stationary_points,
    ),
    Criterion(
        "1b", "share of Gaussian curves that are v-basins", "ours", "fig02", _MOST,
        q.of_gaussians(partial(q.labels, label="v-basin")),
    ),
    Criterion(
        "1c", "share of Gaussian curves of which θ is the lowest point", "ours", "fig02", _MOST,
        q.of_gaussians(q.lowest),
    ),
    Criterion(
        "1c, E=10", "share of Gaussian curves at E=10 of which θ is the lowest point", "ours",
        "fig02", _MOST, q.early_gaussians(q.lowest),
    ),
)  # fmt: skip
_NO_SKIP = (
    Criterion(
        "1d", "log10 of the largest loss within ±1, frozen", "paper", "fig03", Bound(low=3.0),
        no_skip.explosion,
    ),
    *(
        criterion
        for mode in ("frozen", "recalibrate")
        for criterion in (
            Criterion(
                "1e", f"share above log C of the stationary points within ±1, {mode}", "paper",
                "fig03", _MOST, no_skip.chaos_above_chance(mode),
            ),
            Criterion(
                "1f", f"stationary points per curve, within ±4 less within ±1, {mode}", "paper",
                "fig03", _LOWER, no_skip.smoother_far_away(mode),
            ),
        )
    ),
)  # fmt: skip
_ANGLES = (
    Criterion(
        "2a", "deviation of angles between Gaussians and gradient, over the isotropic one", "ours",
        "fig05", Bound(0.95, 1.05), q.spread_of_angles,
    ),
    Criterion(
        "2b", "share of angles between gradient and last checkpoint in [88°, 90°]", "paper",
        "fig05", _MOST, q.gradient_to_converged,
    ),
    Criterion(
        "2c", "‖g‖² at E=0", "ours", "fig05", Bound(0.9 * 119.7, 1.1 * 119.7), q.squared_gradient
    ),
)  # fmt: skip
_DESCENT = (
    Criterion(
        "3a", "share of v-sides along the gradient and to the last checkpoint", "ours", "fig04",
        _MOST, partial(q.labels, label="v-side"),
    ),
    Criterion(
        "3b", "share of curves to independent checkpoints with 3 stationary points", "paper",
        "fig07", _MOST, partial(q.points, number=3),
    ),
    Criterion(
        "3b", "share of curves to independent checkpoints that are w-basins", "ours", "fig07",
        _MOST, partial(q.labels, label="w-basin"),
    ),
)  # fmt: skip


def _eigenvectors() -> tuple[Criterion, ...]:
    criteria = []
    early, all_epochs = (10, 50), (10, 50, 200)
    for scaled, window in ((False, "of length one"), (True, "scaled by curvature")):
        criteria += [
            Criterion(
                "4a", f"share of P.E. curves with 1 stationary point, {window}", "paper", "fig08",
                _MOST,
                q.along(partial(q.points, number=1), "largest", *all_epochs, scaled=scaled),
            ),
            Criterion(
                "4a", f"share of P.E. curves that are v-basins, {window}", "ours", "fig08", _MOST,
                q.along(
                    partial(q.labels, label="v-basin"), "largest", *all_epochs, scaled=scaled
                ),
            ),
            Criterion(
                "4b", f"share of N.E. curves with 3 stationary points about θ, {window}", "paper",
                "fig08", _MOST,
                q.along(q.w_peaks_of_the_paper, "smallest", *early, scaled=scaled),
            ),
            Criterion(
                "4b", f"share of N.E. curves that fall on both sides, {window}", "ours", "fig08",
                _MOST, q.along(q.peaks, "smallest", *early, scaled=scaled),
            ),
        ]  # fmt: skip
    for first, last in ((10, 50), (10, 200)):
        criteria += [
            Criterion(
                "4c", f"height along N.E.1 (nats), E={last} less E={first}", "paper", "fig08",
                _LOWER, q.change(q.height, first, last),
            ),
            Criterion(
                "4d", f"log10 of the ratio of |λ min|, E={last} over E={first}", "paper", "fig08",
                _LOWER, q.change(q.smallest_eigenvalue, first, last),
            ),
        ]  # fmt: skip
    return tuple(criteria)


_MINED = tuple(
    criterion
    for rate in (0.1, 0.04)
    for criterion in (
        Criterion(
            "5a", f"share of E=10 and 50 at which the loss falls on both sides, η={rate:g}", "ours",
            "fig09", _MOST, q.mined_peaks(rate),
        ),
        Criterion(
            "5b", f"height at E=200 over that at E=10, η={rate:g}", "ours", "fig09",
            Bound(high=0.1), q.remaining_height(rate),
        ),
    )
)  # fmt: skip
_OVERLAPS = tuple(
    criterion
    for rate in (0.1, 0.04)
    for criterion in (
        Criterion(
            "5c", f"rms cosine with ten N.E. less that with ten P.E., η={rate:g}", "paper",
            "fig09", Bound(low=0.0), q.overlap(rate),
        ),
        Criterion(
            "5d", f"largest cosine with an eigenvector, η={rate:g}", "ours", "fig09",
            Bound(high=0.9), q.largest_cosine(rate),
        ),
    )
)  # fmt: skip
_ALGORITHM_1 = (*_MINED, *_OVERLAPS)
_BASINS = (
    Criterion(
        "6a", "settings of Algorithm 2 with a vvv-basin, of the MLP", "ours", "fig10",
        Bound(high=0.5), partial(q.vvv_basins, mlp=True),
    ),
    Criterion(
        "6b", "settings of Algorithm 2 with a vvv-basin, of a ResNet", "ours", "fig10",
        Bound(low=0.5), partial(q.vvv_basins, mlp=False),
    ),
)  # fmt: skip
_SURFACES = tuple(
    Criterion(
        "7", f"share of {names} surfaces that are a {kind}", "ours", "fig11", _MOST,
        q.kind_of(*ends, kind),
    )
    for names, ends, kind in (
        ("P.E. × P.E.", ("largest", "largest"), "minimum"),
        ("N.E. × N.E.", ("smallest", "smallest"), "maximum"),
        ("P.E. × N.E.", ("largest", "smallest"), "saddle"),
    )
)  # fmt: skip
_SECOND_ORDER = (
    Criterion(
        "8a", "share of local models that slope downwards towards θ", "paper", "fig14", _MOST,
        q.downward,
    ),
    Criterion(
        "8b", "largest error of a local model over the change of the loss", "ours", "fig14",
        Bound(high=0.1), q.model_error,
    ),
    Criterion(
        "9", "share of checkpoints with a positive trace", "ours", "fig13", _MOST,
        q.positive_traces,
    ),
    Criterion(
        "10", "mean change of the loss under noise of 0.01 over ½λ²σ² tr H", "ours", "fig13",
        Bound(0.9, 1.1), q.predicted_rise,
    ),
)  # fmt: skip

CLAIMS = tuple(
    Claim("xu2024", number, sentence, criteria)
    for number, sentence, criteria in (
        (
            1,
            "Gaussian directions give v-basins with about one stationary point.",
            (*_GAUSSIAN, *_NO_SKIP),
        ),
        (2, "Gaussian and descent directions are nearly orthogonal.", _ANGLES),
        (3, "Descent directions give v-sides, independent checkpoints w-basins.", _DESCENT),
        (4, "P.E. give v-basins; N.E. give w-peaks early, which shrink.", _eigenvectors()),
        (5, "Algorithm 1 mines w-peaks early in training and none at its end.", _ALGORITHM_1),
        (6, "Algorithm 2 mines vvv-basins of ResNets and none of the MLP.", _BASINS),
        (7, "Surfaces of two eigenvectors are bowls, bottoms of bottles and saddles.", _SURFACES),
        (8, "Second-order models explain GMI and MLI.", _SECOND_ORDER),
    )
)
