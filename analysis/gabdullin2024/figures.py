"""What every figure and table of Gabdullin (2024) shows, and how it is drawn.

``python -m analysis.gabdullin2024.fig05`` draws Fig. 5 from the runs of
``python -m mining experiment=gabdullin2024/fig05``; ``fig05.py`` only names its row of the table.
"""

from functools import partial

from analysis.gabdullin2024 import accuracies, capped, explosions, spectra
from analysis.panels import draw_panels
from analysis.scripts import Draw, run_figure

#: What a figure or table shows and how it is drawn, by its name in ``conf/experiment``.
FIGURES: dict[str, tuple[str, Draw]] = {
    "fig01": ("Fig. 1: landscapes of two networks along random axes", draw_panels),
    "fig02": (
        "Fig. 2: a residual network in several modes, on random and Hessian axes",
        draw_panels,
    ),
    "fig03": ("Fig. 3: filter-normalized landscapes that do not explode", draw_panels),
    "fig04": ("Fig. 4: landscapes that explode, with and without a cap", capped.draw),
    "fig05": ("Fig. 5: spectra of untrained networks", spectra.draw),
    "fig06": ("Fig. 6: spectra of networks trained to a high accuracy", spectra.draw),
    "fig07": ("Fig. 7: spectra of networks trained on ImageNet", spectra.draw),
    "fig08": (
        "Fig. 8: spectra of ResNet-18, untrained in train and eval mode, and trained",
        spectra.draw,
    ),
    "fig09": ("Fig. 9: spectra of ViT, untrained and trained", spectra.draw),
    **{
        f"fig{name}": (
            f"Fig. {number}: {about} of {network} over the epochs, on two data sets",
            partial(accuracies.draw_epochs, shown=shown),
        )
        for name, number, network, about, shown in (
            ("10", "10", "LeNet", "accuracy and loss", ("accuracy", "loss")),
            ("11", "11", "LeNet", "K_H05", ("k_h05_printed", "k_h05")),
            ("12", "12", "ResNet-20", "accuracy and loss", ("accuracy", "loss")),
            ("13", "13", "ResNet-20", "K_H05", ("k_h05_printed", "k_h05")),
            ("B1", "B.1", "LeNet", "K_H1 and r_e", ("k_h1", "r_e")),
            ("B2", "B.2", "LeNet", "K_H1 and r_e", ("k_h1", "r_e")),
            ("B3", "B.3", "ResNet-20", "K_H1 and r_e", ("k_h1", "r_e")),
            ("B4", "B.4", "ResNet-20", "K_H1 and r_e", ("k_h1", "r_e")),
        )
    },
    "figA1": ("Fig. A.1: surfaces of LeNet on two data sets", draw_panels),
    "figA2": ("Fig. A.2: surfaces of ResNet-20 on two data sets", draw_panels),
    "generalization": (
        "Sec. 4: criteria against accuracy on shifted versions of the test images",
        accuracies.draw,
    ),
    "generalization_cinic10": (
        "Sec. 4: criteria against accuracy on CIFAR-10 and on the ImageNet images of CINIC-10",
        accuracies.draw,
    ),
    "table1": ("Table 1: which landscapes explode", explosions.draw),
    "table2": (
        "Table 2: criteria of untrained and of trained networks, in train and in eval mode",
        spectra.draw,
    ),
    "table4": ("Table 4: criteria of trained networks beside their accuracy", spectra.draw),
}


#: Draws a figure of the table, given its name.
main = partial(run_figure, "Gabdullin (2024)", "gabdullin2024", FIGURES)
