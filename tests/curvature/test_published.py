"""Curvature of the published ResNet-20 on CIFAR-10 training images."""

import pytest
import torch
from published import AVAILABLE, resnet20_landscape

from mining import eigenpairs

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="needs shared/weights and shared/data")


def test_five_largest_eigenpairs_take_at_most_25_products():
    operator = resnet20_landscape(256).hessian()
    found = eigenpairs(operator, 5, generator=torch.Generator().manual_seed(0))
    assert found.products <= 25
    # Not the solver's word for it: a product for each pair.
    errors = operator @ found.vectors - found.vectors * found.values.float()
    assert (errors.norm(dim=0) <= 1e-3 * found.values[0]).all()
    # Those of scipy's eigsh at tolerance 1e-3, by another path of products.
    expected = torch.tensor([55.1649, 39.5002, 28.9412, 28.1442, 18.0211])
    torch.testing.assert_close(found.values.float(), expected, rtol=1e-3, atol=0)
