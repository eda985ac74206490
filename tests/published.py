"""The published ResNet-20 for CIFAR-10 and some of its training images, where they are at hand."""

import os
import runpy
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from mining import Landscape
from mining.models import CifarResNet
from mining.storage.checkpoints import load_weights

SHARED = Path(
    os.environ.get("MINING_SHARED", Path(__file__).parent.parent.parent / "shared")
).resolve()
WEIGHTS = SHARED / "weights" / "resnet20_cifar10.pt"
IMAGES = SHARED / "data" / "cifar10" / "train_0.webp"
AVAILABLE = WEIGHTS.exists() and IMAGES.exists()
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def resnet20() -> nn.Module:
    model = CifarResNet((3, 32, 32), 10, depth=20)
    load_weights(model, WEIGHTS)
    return model.eval()


def raw_images(num: int, split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """The first ``num`` of the 10,000 images in one packed file, uint8, and their labels."""
    tiles = runpy.run_path(str(SHARED / "tools" / "unpack_data.py"))["tiles"]
    images = tiles(np.asarray(Image.open(IMAGES.with_name(f"{split}_0.webp"))), 32, 32)[:num]
    labels = np.load(IMAGES.with_name(f"{split}_labels.npy"))[:num]
    return images, labels.astype(np.int64)


def images(num: int, split: str = "train") -> tuple[Tensor, Tensor]:
    """The same, normalized as published."""
    images, labels = raw_images(num, split)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return (pixels - mean) / std, torch.from_numpy(labels)


def resnet20_landscape(num: int, batchnorm: str = "frozen") -> Landscape:
    return Landscape(resnet20(), nn.CrossEntropyLoss(), [images(num)], batchnorm=batchnorm)
