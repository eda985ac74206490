"""A training epoch beside a plain loop over a DataLoader."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.timing import alternate
from PIL import Image
from published import MEAN, STD, images, raw_images
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from mining.data import Dataset as Examples
from mining.data import Split
from mining.models import CifarResNet
from mining.training import TrainingSettings, train


class _Pictures(Dataset[Any]):
    """Images as torchvision gives them, cropped, flipped and normalized one by one."""

    def __init__(self, pixels: np.ndarray, labels: np.ndarray) -> None:
        self._pixels, self._labels = pixels, labels
        self._transform = transforms.Compose(
            [
                transforms.RandomCrop(32, padding=4),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self._transform(Image.fromarray(self._pixels[index])), int(self._labels[index])


def epochs(num_images: int, repeats: int) -> list[dict[str, Any]]:
    """Seconds of one epoch of ResNet-20 with augmentation, in images a second."""
    pictures = _Pictures(*raw_images(num_images))
    inputs, targets = images(num_images)
    names = tuple(map(str, range(10)))
    examples = Examples("cifar10", Split(inputs, targets), None, names)

    def plain(num_workers: int) -> None:
        torch.manual_seed(0)
        model = CifarResNet((3, 32, 32), 10, depth=20).train()
        optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
        for batch, labels in DataLoader(pictures, 128, shuffle=True, num_workers=num_workers):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(batch), labels)
            loss.backward()
            optimizer.step()

    def ours(bf16: bool) -> None:
        torch.manual_seed(0)
        model = CifarResNet((3, 32, 32), 10, depth=20)
        settings = TrainingSettings(epochs=1, augment=True, bf16=bf16, checkpoints=())
        with tempfile.TemporaryDirectory() as folder:
            train(model, examples, settings, Path(folder), seed=0, progress=False)

    seconds = alternate(
        {
            "DataLoader": lambda: plain(0),
            "DataLoader, 2 workers": lambda: plain(2),
            "mining": lambda: ours(False),
            "mining, bf16": lambda: ours(True),
        },
        repeats,
    )
    return [
        {
            f"training epoch, ResNet-20, {num_images} images": name,
            "seconds": value,
            "images / second": num_images / value,
            "times as fast": seconds["DataLoader"] / value,
        }
        for name, value in seconds.items()
    ]
