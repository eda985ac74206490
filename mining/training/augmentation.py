"""Random crops and flips of a batch, on its device."""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812


def crop_and_flip(images: Tensor, generator: torch.Generator, padding: int = 4) -> Tensor:
    """Shift each image by up to ``padding`` pixels and mirror it with probability 1/2.

    What moves in from outside is zero, the mean colour of normalized images.

    Args:
        images: Shape ``(N, C, H, W)``.
        generator: Source of randomness on the device of the images.
        padding: Largest shift in pixels.

    Returns:
        Shape ``(N, C, H, W)``.
    """
    n, _, height, width = images.shape
    device = images.device
    padded = F.pad(images, (padding,) * 4)
    shifts = torch.randint(2 * padding + 1, (2, n, 1), generator=generator, device=device)
    flips = torch.randint(2, (n, 1), generator=generator, device=device, dtype=torch.bool)
    rows = shifts[0] + torch.arange(height, device=device)
    columns = torch.arange(width, device=device)
    columns = shifts[1] + torch.where(flips, width - 1 - columns, columns)
    examples = torch.arange(n, device=device)[:, None, None]
    # Advanced indices around a slice come first: (N, H, W, C).
    picked = padded[examples, :, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)  # with channels last in memory, as they were picked
