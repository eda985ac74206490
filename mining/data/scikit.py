"""The digits that come with scikit-learn: data without a download."""

import numpy as np

from mining.data.dataset import Dataset
from mining.data.images import Channels, from_arrays


def digits(
    *,
    num_examples: int | None = None,
    mean: Channels | None = None,
    std: Channels | None = None,
    subset_seed: int = 0,
) -> Dataset:
    """Load scikit-learn's 1,797 grey images of 8×8 pixels in 10 classes.

    The stratified split into 1,437 training and 360 test images is always the same.
    Alpaydin and Kaynak (1998), Optical Recognition of Handwritten Digits, UCI.

    Args:
        num_examples: Examples kept per split, a class-balanced random subset; None = all.
        mean: Subtracted, pixels in [0, 1]; None = the mean of the training images.
        std: Divisor, pixels in [0, 1]; None = the standard deviation of the training images.
        subset_seed: Seed of the random subset.

    Returns:
        The data set, inputs ``(N, 1, 8, 8)``.

    Raises:
        InputError: If an argument is out of range.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    train_images, test_images, train_labels, test_labels = train_test_split(
        images.astype(np.uint8).reshape(-1, 8, 8),
        labels,
        test_size=360,
        stratify=labels,
        random_state=0,
    )
    return from_arrays(
        "digits",
        train_images,
        train_labels,
        test_images,
        test_labels,
        num_examples=num_examples,
        mean=mean,
        std=std,
        subset_seed=subset_seed,
        class_names=tuple("0123456789"),
        scale=16,  # the pixels are whole numbers 0..16
    )
