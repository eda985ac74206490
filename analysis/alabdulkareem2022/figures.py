"""What every figure and table of Alabdulkareem (2022) shows, and how it is drawn.

``python -m analysis.alabdulkareem2022.fig05`` draws Fig. 5 from the runs of
``python -m mining experiment=alabdulkareem2022/fig05``, which are those of the sweep.
"""

from functools import partial

from analysis.alabdulkareem2022 import convergence, curvatures, images, table
from analysis.scripts import Draw, run_figure

#: What a figure or table shows and how it is drawn, by its name in ``conf/experiment``.
FIGURES: dict[str, tuple[str, Draw]] = {
    "fig01": ("Fig. 1: λmax by learning rate and by batch size", curvatures.draw_groups),
    "fig02": ("Fig. 2: random vectors that the trace needs", curvatures.draw_sizes),
    "fig03": ("Fig. 3: convergence of power iteration", convergence.draw),
    "fig04": ("Fig. 4: test images with Gaussian noise", images.draw),
    "fig05": ("Fig. 5: changes of λmax and of the accuracy under noise", table.draw_line),
    "fig06": ("Fig. 6: drop of the trace and plateau of the accuracy", curvatures.draw_drops),
    "table1": ("Table 1: regressions on changes per epoch", table.draw_table),
}


#: Draws a figure of the table, given its name.
main = partial(run_figure, "Alabdulkareem (2022)", "alabdulkareem2022", FIGURES)
