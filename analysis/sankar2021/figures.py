"""What every figure and table of Sankar et al. (2021) shows, and how it is drawn.

``python -m analysis.sankar2021.fig03`` draws Fig. 3 from the runs of
``python -m mining experiment=sankar2021/fig03``.
"""

from functools import partial

from analysis.sankar2021 import clusters, errors, evolution, kinds, methods, spectra
from analysis.scripts import Draw, run_figure

#: What a figure or table shows and how it is drawn, by its name in ``conf/experiment``.
FIGURES: dict[str, tuple[str, Draw]] = {
    "fig01": (
        "Fig. 1: eigenspectra of the layers of VGG-11",
        partial(spectra.draw_spectra, kind="vgg"),
    ),
    "fig02": (
        "Fig. 2: t-SNE of the class means of the layers of VGG-11",
        partial(clusters.draw_means, kind="vgg"),
    ),
    "fig03": (
        "Fig. 3: Wasserstein distances of the layers",
        partial(spectra.draw_distances, column="normalized_wasserstein"),
    ),
    "fig04": ("Fig. 4: λmax and trace over the epochs", evolution.draw_networks),
    "fig05": (
        "Fig. 5: trace with and without batch norm and skip connections",
        evolution.draw_pairs,
    ),
    "fig06": (
        "Fig. 6: λmax of the layers of a VGG over the epochs",
        partial(evolution.draw_layers, kind="vgg"),
    ),
    "fig07": ("Fig. 7: training accuracy and trace with the penalty", evolution.draw_penalty),
    "fig08": ("Fig. 8: frequency of the penalty", partial(errors.draw_line, option="every")),
    "fig09": (
        "Fig. 9: eigenspectra of the layers of a ResNet",
        partial(spectra.draw_spectra, kind="resnet"),
    ),
    "fig10": (
        "Fig. 10: eigenspectra of the layers of a DenseNet",
        partial(spectra.draw_spectra, kind="densenet"),
    ),
    "fig11": (
        "Fig. 11: t-SNE of the class means of the layers of a DenseNet",
        partial(clusters.draw_means, kind="densenet"),
    ),
    "fig12": (
        "Fig. 12: Jensen-Shannon divergences of the layers",
        partial(spectra.draw_distances, column="jensen_shannon"),
    ),
    "fig13": (
        "Fig. 13: λmax of the layers of a ResNet over the epochs",
        partial(evolution.draw_layers, kind="resnet"),
    ),
    "fig14": ("Fig. 14: strength of the penalty", partial(errors.draw_line, option="gamma")),
    "ablation": ("strength and frequency of the penalty together", methods.draw_grid),
    "transformer": ("spectra of a transformer by kind of layer", kinds.draw),
    "tuned": ("the penalty beside weight decay and SAM, tuned alike", methods.draw),
    "table1": ("Table 1: test error without and with the penalty", errors.draw_table),
    "table2": ("Table 2: test error, middle layers and all", errors.draw_table),
    "table3": ("Table 3: test error with L2, without and with the penalty", errors.draw_table),
}


#: Draws a figure of the table, given its name.
main = partial(run_figure, "Sankar et al. (2021)", "sankar2021", FIGURES)
