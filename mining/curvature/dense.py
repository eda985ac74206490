"""A curvature operator as a dense matrix, for small networks."""

import torch
from torch import Tensor

from mining.curvature.operators import CurvatureOperator, check_operator
from mining.curvature.symmetry import asymmetry_limit, raise_asymmetric
from mining.functional.memory import check_memory


def make_dense(operator: CurvatureOperator, block_size: int = 64) -> Tensor:
    """Compute all entries, with one matrix-vector product per column.

    Args:
        operator: Of shape ``(D, D)``.
        block_size: Columns multiplied together.

    Returns:
        Shape ``(D, D)``, exactly symmetric: the mean of the products and their transpose.

    Raises:
        InputError: If the operator is not symmetric.
        MemoryError: If three such matrices do not fit.
    """
    check_operator(operator)
    size = operator.shape[0]
    most = f"{size} x {size} entries are for small networks; take fewer parameters"
    check_memory(3 * size**2 * operator.dtype.itemsize, operator.device, "The matrix", most)
    columns = torch.arange(size, device=operator.device)
    matrix = torch.empty(size, size, dtype=operator.dtype, device=operator.device)
    for chosen in torch.split(columns, block_size):
        block = torch.zeros(size, len(chosen), dtype=operator.dtype, device=operator.device)
        block[chosen, torch.arange(len(chosen), device=operator.device)] = 1
        matrix[:, chosen] = operator @ block
    difference = float((matrix - matrix.T).abs().max())
    largest = float(matrix.abs().max())
    if difference > asymmetry_limit(operator.dtype) * largest:
        raise_asymmetric(difference, largest)
    return (matrix + matrix.T) / 2
