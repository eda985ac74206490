"""Fig. 4 of Alabdulkareem (2022): images with Gaussian noise."""

from collections.abc import Sequence

import pandas as pd
import torch
from matplotlib.figure import Figure

from analysis.alabdulkareem2022.series import SWEEP
from analysis.scripts import Drawing
from mining.app.experiments import plan
from mining.data import Split, with_noise
from mining.pipelines.building import load_data
from mining.plotting import table

_NUM = 4
#: Standard deviations of the noise: those of the figure.
_NOISES = (0.0, 0.1, 0.25)


def draw(_: str, overrides: Sequence[str]) -> Drawing:
    """Draw four test images of the data set of the sweep without and with noise."""
    settings = plan([f"experiment={SWEEP}", *overrides])[0].settings
    dataset = load_data(settings)
    test = dataset.split("test")
    chosen = torch.randperm(len(test), generator=torch.Generator().manual_seed(0))[:_NUM]
    images = Split(test.inputs[chosen].cpu(), test.labels[chosen].cpu())
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (dataset.mean, dataset.std))
    picture = Figure(figsize=(1.8 * _NUM, 1.9 * len(_NOISES)), layout="constrained")
    panels = picture.subplots(len(_NOISES), _NUM)
    rows = []
    for line, noise in zip(panels, _NOISES, strict=True):
        noisy = images if noise == 0 else with_noise(images, noise)
        # Shown as pixels; what the noise carries beyond black and white is cut off.
        pixels = (noisy.inputs * std + mean).clamp(0, 1).permute(0, 2, 3, 1)
        difference = float((noisy.inputs - images.inputs).std())
        rows.append({"noise": noise, "standard deviation of the change": difference})
        for axes, image, label in zip(line, pixels, images.labels.tolist(), strict=True):
            axes.imshow(image.squeeze(-1), cmap="gray")
            axes.set_axis_off()
            name = dataset.class_names[label] if dataset.class_names else str(label)
            axes.set_title(f"{name}, σ = {noise:g}", fontsize=7)
    return Drawing(picture, table(rows), pd.DataFrame(rows))
