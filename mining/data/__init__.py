"""Data sets held in memory, on the device, normalized."""

from mining.data.dataset import Dataset, Split
from mining.data.folders import image_folder
from mining.data.images import from_arrays
from mining.data.npz import arrays
from mining.data.published import torchvision_dataset
from mining.data.scikit import digits

__all__ = [
    "Dataset",
    "Split",
    "arrays",
    "digits",
    "from_arrays",
    "image_folder",
    "torchvision_dataset",
]
