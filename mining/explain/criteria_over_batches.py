"""How much the criteria of a spectrum vary between batches of examples."""

import math
from collections.abc import Sequence

import torch

from mining import InputError
from mining.curvature import spectral_density
from mining.explain.measurement import Measurement
from mining.explain.spectral_criteria import SpectralCriteria, spectral_criteria
from mining.landscape import Landscape


def criteria_over_batches(
    landscapes: Sequence[Landscape],
    num_steps: int = 60,
    num_probes: int = 4,
    generator: torch.Generator | None = None,
) -> dict[str, Measurement]:
    """Average each criterion over batches; its error is the standard error of that mean.

    Gabdullin (2024), Sec. 3.4: the criteria differ more between batches than between random
    vectors. Each batch has random vectors of its own, so the error contains theirs. The mean is
    that of batches of this size. It is not the criterion of all their examples together: noise
    of the examples adds to the eigenvalues of either sign.

    Args:
        landscapes: The same model on independent batches, at least 2:
            ``[Landscape(model, loss_fn, [batch]) for batch in batches]``.
        num_steps: Lanczos steps per random vector.
        num_probes: Random vectors per batch, at least 2.
        generator: Source of the random vectors, on the CPU; ``None``: one with seed 0.

    Returns:
        The measurements of ``SpectralCriteria`` by name. One applies if it does on every batch.

    Raises:
        InputError: If there are fewer than two landscapes, or as for ``spectral_density``.
    """
    if len(landscapes) < 2:
        raise InputError(
            f"landscapes must be at least 2, one for each batch, got {len(landscapes)}."
        )
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    found = [
        spectral_criteria(spectral_density(of.hessian(), num_steps, num_probes, generator))
        for of in landscapes
    ]
    return {name: _mean(found, name) for name in found[0].measurements()}


def _mean(found: Sequence[SpectralCriteria], name: str) -> Measurement:
    of_batches = [criteria.measurements()[name] for criteria in found]
    unfit = [measured for measured in of_batches if not measured.applies]
    why = f"on {len(unfit)} of {len(found)} batches, {unfit[0].why}" if unfit else ""
    values = [measured.value for measured in of_batches if measured.value is not None]
    if len(values) < len(found):
        return Measurement(None, applies=False, why=why)
    samples = torch.tensor(values, dtype=torch.float64)
    error = float(samples.std()) / math.sqrt(len(values))
    return Measurement(float(samples.mean()), error, not unfit, why)
