"""What a pipeline works on: settings, resolved into data, model, landscape and directions."""

import logging
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mining import InputError
from mining.data import Dataset, Shift, Split, in_the_form_of
from mining.directions import DirectionSource
from mining.directions.normalization import Normalization
from mining.evaluation.evaluator import Evaluator
from mining.evaluation.grid import Grid
from mining.functional.batchnorm import BatchNormPolicy, norm_layers
from mining.landscape import Landscape
from mining.pipelines.building import DTYPES, build_model, find_device, load_data
from mining.pipelines.checkpoints import Checkpoints
from mining.pipelines.settings import Settings
from mining.pipelines.targets import Target
from mining.storage.checkpoints import load_weights
from mining.storage.runs import Run

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Problem:
    """The settings of a run, resolved once: each part is made when it is first read.

    Args:
        settings: What the pipeline reads; the rest is at its defaults.
        run: Where the results go.
    """

    settings: Settings
    run: Run

    @cached_property
    def data(self) -> Dataset:
        """The data set, on its device."""
        return load_data(self.settings)

    @cached_property
    def evaluated(self) -> Dataset:
        """The data set on which the loss is evaluated: ``data`` unless it is another one."""
        other = self.settings.data_shifted
        if other is None:
            return self.data
        # Its own normalization is undone: without training images it would have none.
        plain = {k: v for k, v in {"mean": 0.0, "std": 1.0}.items() if k in other.options}
        images = other.with_options(**plain).make(Dataset)
        return in_the_form_of(images.to(*self._place), self.data)

    @cached_property
    def model(self) -> nn.Module:
        """The model at θ, in the configured precision."""
        model = build_model(self.settings, self.data)
        load_weights(model, self.checkpoints.theta())
        return model.to(DTYPES[self.settings.precision])

    @cached_property
    def checkpoints(self) -> Checkpoints:
        """Where the weights are."""
        return Checkpoints(self.settings)

    @cached_property
    def generator(self) -> torch.Generator:
        """The source of randomness of the run, on the CPU."""
        return torch.Generator().manual_seed(self.settings.seed)

    @cached_property
    def grid(self) -> Grid:
        """The points of curves and surfaces."""
        return self.settings.grid.make(Grid)

    @cached_property
    def batchnorm(self) -> BatchNormPolicy:
        """What batch norm does at each point."""
        return self.settings.batchnorm.make(BatchNormPolicy)

    @cached_property
    def landscape(self) -> Landscape:
        """The loss of the evaluated examples as a function of the parameters, at θ.

        Raises:
            InputError: If a value is out of its range, or model, weights and data do not fit.
        """
        settings, model, recalibration = self.settings, self.model, self._recalibrating
        main: Literal["train", "test"] = "test" if settings.split == "test" else "train"
        evaluated = self.examples(main)
        if recalibration is not None:
            if len(recalibration) > 2 * len(evaluated):
                log.info(
                    "Batch norm is recalibrated on %d training examples at every point, and the "
                    "loss evaluated on %d: batchnorm.num_examples=%d is faster.",
                    len(recalibration),
                    len(evaluated),
                    len(evaluated),
                )
            # Both subsets are drawn alike: equally many training examples are the same ones.
            at_home = settings.data_shifted is None and settings.shift is None
            if main == "train" and at_home and len(recalibration) == len(evaluated):
                recalibration = None
        size = settings.batch_size
        return Landscape(
            model,
            nn.CrossEntropyLoss(),
            evaluated.batches(size),
            batchnorm=self.batchnorm,
            recalibration=None if recalibration is None else recalibration.batches(size),
            autocast=torch.bfloat16 if settings.precision == "bf16" else None,
            tf32=settings.precision == "tf32",
            compile=settings.compile,
        )

    @cached_property
    def test(self) -> list[tuple[Tensor, Tensor]] | None:
        """The second split of ``split=both``, in batches."""
        if self.settings.split != "both":
            return None
        return self.examples("test").batches(self.settings.batch_size)

    def evaluator(self) -> Evaluator:
        """Make the evaluator of the landscape, which keeps a journal in the run's directory."""
        return Evaluator(
            self.landscape,
            test=self.test,
            progress=self.settings.progress,
            journal=self.run.directory / "points.csv",
            tolerance=self.settings.tolerance,
            refine=self.settings.refine,
            chunk=self.settings.chunk,
        )

    def record(self) -> dict[str, Any]:
        """Describe the landscape for the record of the run."""
        used = self._recalibrating
        return {
            "num_parameters": self.landscape.space.size,
            "num_examples": self.landscape.num_examples,
            "recalibration": used and {"split": "train", "num_examples": len(used)},
            "landscape": self.landscape.describe(),
        }

    def source(self, target: Target) -> DirectionSource:
        """Make a direction source, with the configured normalization and its checkpoints.

        Raises:
            InputError: If an option is invalid, or a normalization is given for a source that
                sets its own length.
        """
        given = self.settings.normalization
        known = {} if given is None else {"normalization": given.make(Normalization)}
        source = target.make(DirectionSource, **known)
        if given is not None and source.normalization is None:
            name = type(source).__name__
            raise InputError(f"{name} sets its own length: leave normalization out.")
        return source

    @cached_property
    def _recalibrating(self) -> Split | None:
        """The examples that re-estimate batch norm, whatever is evaluated; ``None``: none do."""
        if self.batchnorm.mode != "recalibrate" or not norm_layers(self.model):
            return None
        if self.data.train is None:
            raise InputError(
                f"{self.data.name} has no training images to recalibrate batch norm on: use "
                "batchnorm=frozen."
            )
        return _chosen(self.data.split("train"), self.batchnorm.num_examples)

    @property
    def _place(self) -> tuple[torch.device, torch.dtype]:
        return find_device(self.settings), DTYPES[self.settings.precision]

    def examples(self, split: Literal["train", "test"]) -> Split:
        """Take the examples of a split on which the loss is evaluated."""
        chosen = _chosen(self.evaluated.split(split), self.settings.num_examples)
        shift = self.settings.shift
        return chosen if shift is None else Shift.parse(shift).split(chosen, self.evaluated)


def _chosen(examples: Split, num_examples: int | None) -> Split:
    """Take ``num_examples`` of a split, the same ones in every run."""
    if num_examples is None:
        return examples
    return examples.subset(num_examples, torch.Generator().manual_seed(0))
