"""The claims of Xu et al. (2024) that are checked here."""

from functools import partial

from analysis.findings import Claim
from analysis.xu2024.claims_curvature import eigenvector_curves, second_order, surfaces
from analysis.xu2024.claims_curves import angles, gaussian_conditions, gaussian_curves, labelled
from analysis.xu2024.claims_mined import mined_basins, mined_overlaps, mined_peaks

CLAIMS = (
    Claim(
        "xu2024",
        1,
        "Gaussian directions give v-basins with about one stationary point.",
        ("fig02", "fig03", "figA15", "figB16", "figB17"),
        (
            gaussian_curves,
            partial(gaussian_conditions, "fig03", "Fig. 3"),
            partial(gaussian_conditions, "figA15", "Fig. A.15"),
            partial(gaussian_conditions, "figB16", "Fig. B.16"),
            partial(gaussian_conditions, "figB17", "Fig. B.17"),
        ),
    ),
    Claim(
        "xu2024",
        2,
        "Gaussian directions and descent directions enclose angles of about [89.75°, 90.25°].",
        ("fig05",),
        (angles,),
    ),
    Claim(
        "xu2024",
        3,
        "The negative gradient and the way to a subsequent checkpoint give v-sides, the way to an "
        "independently trained checkpoint w-basins.",
        ("fig04", "fig07"),
        (
            partial(
                labelled, "fig04", "Negative gradient and later checkpoint give v-sides", "v-side"
            ),
            partial(
                labelled,
                "fig07",
                "Independent checkpoints give w-basins, also between epochs",
                "w-basin",
            ),
        ),
    ),
    Claim(
        "xu2024",
        4,
        "Eigenvectors of positive eigenvalues (P.E.) give v-basins, those of negative ones (N.E.) "
        "w-peaks early in training, whose height falls as the model converges.",
        ("fig08",),
        (eigenvector_curves,),
    ),
    Claim(
        "xu2024",
        5,
        "Algorithm 1 mines w-peaks early in training; its directions overlap N.E. slightly more "
        "than P.E., and are no single eigenvector.",
        ("fig09", "fig13"),
        (mined_peaks, mined_overlaps),
    ),
    Claim(
        "xu2024",
        6,
        "Algorithm 2 mines vvv-basins of ResNets under suitable α and γ, and none of the MLP.",
        ("fig10",),
        (mined_basins,),
    ),
    Claim(
        "xu2024",
        7,
        "P.E. × P.E. is a bowl, N.E. × N.E. the bottom of a bottle, P.E. × N.E. a saddle.",
        ("fig11",),
        (surfaces,),
    ),
    Claim(
        "xu2024",
        8,
        "GMI and MLI curves follow their second-order models.",
        ("fig14",),
        (second_order,),
    ),
)
