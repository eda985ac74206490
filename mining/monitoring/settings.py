"""How a training of the command line is monitored."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mining import InputError
from mining.data import Split
from mining.monitoring.monitor import Monitor


@dataclass(frozen=True)
class MonitorSettings:
    """The options of a ``Monitor`` that a configuration can give.

    Args:
        every: Epochs between two measurements; ``None``: as ``budget`` allows.
        num_examples: Examples measured, a number or a fraction of those of the training; ``None``:
            as ``budget`` allows.
        budget: Largest share of the time of the training that measuring takes.
        method: ``lanczos`` or ``power``.
        probes: Random vectors of the trace.
        layers: Whether the largest eigenvalue of every layer is measured, too.

    Raises:
        InputError: If a fraction is not between 0 and 1.
    """

    every: int | None = None
    num_examples: int | float | None = None
    budget: float = 0.03
    method: str = "lanczos"
    probes: int = 10
    layers: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.num_examples, float) and not 0 < self.num_examples < 1:
            raise InputError(
                "monitor.num_examples must be a whole number or a fraction between 0 and 1, got "
                f"{self.num_examples}."
            )

    def monitor(self, model: nn.Module, examples: Split, batch_size: int, path: Path) -> Monitor:
        """Make the monitor of a training with cross-entropy.

        Args:
            model: The model that is trained.
            examples: Those of the training.
            batch_size: That of the training.
            path: File of the table.
        """
        num = self.num_examples
        if isinstance(num, float):
            num = max(4, round(num * len(examples)))
        return Monitor(
            model,
            nn.CrossEntropyLoss(),
            DataLoader(TensorDataset(examples.inputs, examples.labels), batch_size=batch_size),
            every=self.every,
            num_examples=num,
            budget=self.budget,
            method=self.method,
            probes=self.probes,
            layers=self.layers,
            path=path,
        )
