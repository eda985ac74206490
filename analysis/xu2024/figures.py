"""What every figure of Xu et al. (2024) shows, and how it is drawn.

``python -m analysis.xu2024.fig08`` draws Fig. 8 from the runs of
``python -m mining experiment=xu2024/fig08``. The file ``fig08.py`` only names its row of the table
below: ``python -m`` needs a file of that name, and a file of three lines is plainer than an import
hook.
"""

from functools import partial

from analysis.panels import draw_panels
from analysis.scripts import Draw, run_figure
from analysis.xu2024 import (
    angles,
    complexity,
    descents,
    mined_peaks,
    overlaps,
    second_order,
    spectra,
    step_by_step,
)

#: What a figure shows and how it is drawn, by its name in ``conf/experiment/xu2024``.
FIGURES: dict[str, tuple[str, Draw]] = {
    "fig02": ("Fig. 2: curves and surfaces along Gaussian directions", draw_panels),
    "fig03": ("Fig. 3: Gaussian directions around networks without skip connections", draw_panels),
    "fig04": (
        "Fig. 4: to the negative gradient and to the last checkpoint",
        partial(draw_panels, columns=3),
    ),
    "fig05": ("Fig. 5: angles between Gaussian and descent directions", angles.draw),
    "fig06": ("Fig. 6: descent along the gradient and the best of 100 Gaussians", descents.draw),
    "fig07": ("Fig. 7: to an independently trained checkpoint", partial(draw_panels, columns=3)),
    "fig08": ("Fig. 8: along eigenvectors of the Hessian", partial(draw_panels, columns=6)),
    "fig09": (
        "Fig. 9: w-peaks mined by Algorithm 1, and their overlaps with the eigenvectors of Fig. 13",
        overlaps.draw,
    ),
    "fig10": ("Fig. 10: vvv-basins mined by Algorithm 2", partial(draw_panels, columns=3)),
    "fig11": ("Fig. 11: surfaces of two eigenvectors", draw_panels),
    "fig12": ("Fig. 12: surfaces of two different directions", draw_panels),
    "fig13": ("Fig. 13: spectral densities and loss changes under Gaussian noise", spectra.draw),
    "fig14": ("Fig. 14: second-order models along GMI and MLI curves", second_order.draw),
    "figA15": ("Fig. A.15: Gaussian curves of several checkpoints", draw_panels),
    "figB16": ("Fig. B.16: Gaussian curves in windows of several widths", draw_panels),
    "figB17": (
        "Fig. B.17: Gaussian curves under several normalizations and widths",
        partial(draw_panels, columns=3),
    ),
    # No figures of theirs: questions that they leave open.
    "multipoint": (
        "how complex a curve can be: mined ones of three to eight valleys",
        complexity.draw,
    ),
    "multipoint_middle": ("how complex a curve with θ in its middle can be", complexity.draw),
    "algorithm1": ("where Algorithm 1 finds peaks", mined_peaks.draw),
    "steps": ("peaks along N.E.1 at consecutive steps of a training", step_by_step.draw),
}


#: Draws a figure of the table, given its name.
main = partial(run_figure, "Xu et al. (2024)", "xu2024", FIGURES)
