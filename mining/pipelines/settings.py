"""What is asked for: the configuration as typed values. This module imports nothing heavy."""

import math
import os
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import Field

from mining import InputError
from mining.pipelines import OPTIONAL_KEYS, PIPELINE_KEYS
from mining.pipelines.targets import Target, check
from mining.storage.identity import Inputs
from mining.storage.spelling import suggest

Count = Annotated[int, Field(ge=1)]
#: Every generator takes these, with room for those derived from them.
Seed = Annotated[int, Field(ge=0, le=2**62)]


@dataclass(frozen=True)
class Picture:
    """How a run is drawn; see ``picture`` in ``conf/config.yaml``.

    Runs of earlier versions record fewer keys: those that are missing have their default.

    Raises:
        InputError: If matplotlib has no such colormap, or there is no such style.
    """

    log_scale: bool = False
    loss_cap: Annotated[float, Field(gt=0)] | None = None
    format: Literal["png", "pdf", "svg"] = "png"
    dpi: Annotated[int, Field(ge=10, le=1200)] = 150
    width: Annotated[float, Field(ge=1, le=40)] | Literal["one_column", "two_columns"] | None = None
    colormap: str | None = None
    style: str | None = None

    def __post_init__(self) -> None:
        if self.style is not None:
            from mining.plotting.styles import find_style  # matplotlib, as below

            find_style(self.style)
        if self.colormap is None:
            return
        from matplotlib import colormaps  # takes longer to import than a finished run to skip

        if self.colormap not in colormaps:
            raise InputError(
                "picture.colormap must be the name of a colormap of matplotlib or null, got "
                f"{self.colormap!r}{suggest(self.colormap, colormaps)}."
            )

    @classmethod
    def read(cls, given: Any) -> "Picture":
        """Take the values of a mapping.

        Raises:
            InputError: If it is none, or has an unknown key or a value out of its range.
        """
        known = get_type_hints(cls, include_extras=True)
        if not isinstance(given, Mapping) or not set(given) <= set(known):
            raise InputError(f"picture has the keys {', '.join(known)}, got {given}.")
        return cls(**{key: check(f"picture.{key}", given[key], known[key]) for key in given})

    @property
    def of_losses(self) -> dict[str, Any]:
        """What ``draw_curves`` and ``draw_surface`` take of it."""
        return {key: getattr(self, key) for key in ("log_scale", "loss_cap", "colormap")}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The configuration of one run; every key is described in ``conf/config.yaml``.

    Groups are named, and made when a pipeline reads them. Keys with a default are those of the
    point and its loss, which some pipelines do not read.

    Raises:
        InputError: If values are out of range or do not go together.
    """

    pipeline: str
    model: Target
    data: Target
    direction: Target
    x_direction: Target
    y_direction: Target
    batchnorm: Target
    grid: Target
    train: Target
    descent: Target
    spectrum: Target
    expansion: Target
    perturbation: Target
    power: Target
    assess: Target
    num_directions: Count
    orthogonalize: bool
    seed: Seed
    size: Literal["smoke", "cpu", "paper"]
    batch_size: Count
    device: Literal["auto", "cpu", "cuda"]
    num_threads: Count | None
    compile: bool
    chunk: Count | None
    outputs: str
    progress: bool
    picture: Picture
    checkpoint: str | list[str] | None = None
    epoch: int | None = None
    step: Count | None = None
    split: Literal["train", "test", "both"] = "train"
    num_examples: Count | None = None
    normalization: Target | None = None
    monitor: Target | None = None
    held_out: Target | None = None
    regularizer: Target | None = None
    layers: Target | None = None
    tolerance: float | None = None
    refine: float | None = None
    freeze: str | list[str] | None = None
    update: Literal["adameq"] | None = None
    data_shifted: Target | None = None
    shift: str | None = None
    precision: Literal["fp32", "bf16", "fp64", "tf32"] = "fp32"

    def __post_init__(self) -> None:
        if self.pipeline not in PIPELINE_KEYS:
            raise InputError(
                f"pipeline must be one of {', '.join(PIPELINE_KEYS)}, got {self.pipeline!r}."
            )
        name = self.model.options.get("name")
        if not isinstance(name, str) or not name.strip("."):
            raise InputError(f"model.name must be a name for the folder of its runs, got {name!r}.")
        given = self.checkpoint
        if isinstance(given, list) and (self.pipeline != "assess" or len(given) != 2):
            raise InputError(
                "checkpoint must be one file or null; pipeline=assess compares two, "
                f"checkpoint=[FIRST,SECOND]: got {given} for pipeline={self.pipeline}."
            )
        if not self.outputs:
            raise InputError("outputs must be the name of a folder, got nothing.")
        processors = os.cpu_count() or 1
        if (self.num_threads or 1) > max(64, processors):
            raise InputError(
                f"num_threads must be at most {max(64, processors)} with {processors} processors, "
                f"got {self.num_threads}."
            )
        check("data.subset_seed", self.data.options.get("subset_seed", 0), Seed)

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> "Settings":
        """Take the values of a resolved configuration.

        Everything is checked that can be without building anything. This is the one place where
        an untyped mapping is read.

        Raises:
            InputError: If a value has the wrong type, is out of its range, or cannot be recorded.
        """
        hints = get_type_hints(cls, include_extras=True)
        values: dict[str, Any] = {}
        for key, hint in hints.items():
            given = config.get(key)
            _check_recordable(key, given)
            if hint is Target or (hint == Target | None and given is not None):
                values[key] = Target.read(key, given)
            elif hint is not Picture:
                values[key] = check(key, given, hint)
        values["picture"] = Picture.read(config.get("picture"))
        return cls(**values)

    def as_read(self) -> "Settings":
        """Return the settings with the default in place of what the pipeline does not read."""
        read = PIPELINE_KEYS[self.pipeline]
        defaults: dict[str, Any] = {
            field.name: field.default
            for field in fields(self)
            if field.default is not MISSING and field.name not in read
        }
        return replace(self, **defaults)

    def record(self) -> dict[str, Any]:
        """Return all values as JSON has them, in the form in which ``read`` takes them."""
        record = {field.name: getattr(self, field.name) for field in fields(self)}
        groups = {k: value.record() for k, value in record.items() if isinstance(value, Target)}
        return record | groups | {"picture": asdict(self.picture)}

    def inputs(self) -> Inputs:
        """Return what a run with these settings depends on: it names the directory of the run."""
        record = self.record()
        keys = [
            key
            for key in PIPELINE_KEYS[self.pipeline]
            if key not in OPTIONAL_KEYS or record[key] is not None
        ]
        return Inputs(
            pipeline=self.pipeline,
            model=self.model.options["name"],
            data=self.data.record(),
            values={key: record[key] for key in keys},
            outputs=self.outputs,
        )


def _check_recordable(key: str, value: Any) -> None:
    """Refuse what the record of a run, which is JSON, has no word for."""
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{key} must be finite, got {value}.")
    if isinstance(value, list):
        for index, item in enumerate(value):
            _check_recordable(f"{key}[{index}]", item)
    elif isinstance(value, Mapping):
        for name, item in value.items():
            if not isinstance(name, str):
                raise InputError(f"{key} must have text as its keys, got {name!r}.")
            _check_recordable(f"{key}.{name}", item)
    elif not isinstance(value, str | int | float | None):
        raise InputError(f"{key} must be a number, text, a list or a mapping, got {value!r}.")
