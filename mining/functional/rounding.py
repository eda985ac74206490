"""Whether two results are the same up to rounding."""

import torch
from torch import Tensor


def nearly_equal(found: Tensor, expected: Tensor, rounding: float) -> bool:
    """Compare two tensors of one shape, overflows and undefined values included.

    Args:
        found: What is to be checked.
        expected: What it should be.
        rounding: How far entries may differ, relative to the largest finite one of ``expected``.
    """
    scale = float(expected.nan_to_num(0, 0, 0).abs().max())
    return torch.allclose(found, expected, rtol=0, atol=rounding * scale, equal_nan=True)
