import pytest
import torch

from mining import Curve, Surface


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"accuracy must have shape \(5,\), got \(3,\)"):
        Curve(torch.arange(5.0), torch.zeros(5), accuracy=torch.zeros(3))
    with pytest.raises(ValueError, match=r"loss must have shape \(2, 3\)"):
        Surface(torch.arange(2.0), torch.arange(3.0), torch.zeros(3, 2))
    with pytest.raises(ValueError, match="must contain 0"):
        _ = Curve(torch.tensor([1.0, 2.0]), torch.zeros(2)).origin
