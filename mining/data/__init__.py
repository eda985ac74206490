"""Data sets held in memory, on the device, normalized."""

from mining.data.dataset import Dataset, Split
from mining.data.folders import image_folder
from mining.data.images import from_arrays
from mining.data.npz import arrays
from mining.data.published import torchvision_dataset
from mining.data.scikit import digits
from mining.data.shifts import Shift, in_the_form_of, shifted, with_noise

__all__ = [
    "Dataset",
    "Shift",
    "Split",
    "arrays",
    "digits",
    "from_arrays",
    "image_folder",
    "in_the_form_of",
    "shifted",
    "torchvision_dataset",
    "with_noise",
]
