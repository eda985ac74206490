"""Values of the configuration against the annotations of what takes them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field
from torch import Tensor, nn

from mining import InputError
from mining.app.experiments import plan
from mining.pipelines import PIPELINE_KEYS
from mining.pipelines.settings import Picture, Settings
from mining.pipelines.targets import Target, check

FITTING = [
    (1, int), (1, float), (1.5, float), (None, int | None), ("a/b", Path), ("x", str | Path),
    ([1, 2], Sequence[float]), ([1, 2], tuple[int, ...]),
    ([[1, None]], list[tuple[float, float | None]]),
    ("a", Literal["a", "b"]), (True, bool), ({"a": 1.0}, Mapping[str, float]), ("x", Any),
    (3, "OnlyForTypeCheckers"), (2.0, float | Literal["curvature"]), (None, nn.Module | None),
    ("x.pt", str | Path | Mapping[str, Tensor] | nn.Module | None),
    (1, Annotated[int, Field(ge=1)]),
]  # fmt: skip
REFUSED = [
    (True, int, "key must be an integer, got True."),
    (1.0, int, "key must be an integer, got 1.0."),
    ("1", float, "key must be a number, got '1'."),
    (False, float, "key must be a number, got False."),
    (1, bool, "key must be true or false, got 1."),
    (2, str, "key must be text, got 2."),
    ("c", Literal["a", "b"], "key must be a or b, got 'c'."),
    (True, Literal[1, 2], "key must be a number, got True."),
    (1, Path, "key must be text, got 1."),
    ("wide", float | Literal["far"] | None, "key must be a number or far or null, got 'wide'."),
    ([1, "a"], Sequence[int], "key[1] must be an integer, got 'a'."),
    ([[1, 2], [3, "a"]], list[list[int]] | None, "key[1][1] must be an integer, got 'a'."),
    ("abc", tuple[int, ...], "key must be a list, got 'abc'."),
    ("abc", nn.Module, "key must be an object, a mapping with a _target_, got 'abc'."),
    (0, Annotated[int, Field(ge=1)] | None, "key must be at least 1, got 0."),
]


@pytest.mark.parametrize(("value", "hint"), FITTING, ids=str)
def test_what_fits(value, hint):
    found = check("key", value, hint)
    assert json.loads(json.dumps(found, default=str)) == value
    assert isinstance(found, Path) == (hint is Path)


@pytest.mark.parametrize(("value", "hint", "message"), REFUSED, ids=str)
def test_what_does_not_fit_is_said_with_what_would(value, hint, message):
    with pytest.raises(InputError) as refused:
        check("key", value, hint)
    assert str(refused.value) == message


@dataclass
class Layer:
    """A part of a model that has parts."""

    size: int
    inner: "Layer | None" = None


def test_objects_within_objects_are_made_and_checked():
    inner = {"_target_": "test_settings.Layer", "size": 2}
    target = Target.read("model", {"_target_": "test_settings.Layer", "size": 1, "inner": inner})
    assert target.make(Layer).inner.size == 2
    wrong = target.with_options(inner={**inner, "size": "two"})
    with pytest.raises(InputError, match=r"model.inner.size must be an integer, got 'two'"):
        wrong.make(Layer)


def test_settings_are_read_recorded_and_read_again():
    (run,) = plan(["pipeline=surface", "normalization=filter", "checkpoint=weights.pt"])
    record = run.settings.record()
    assert Settings.read(record) == run.settings
    assert record["normalization"]["name"] == "filter"
    assert record["picture"] == {
        "log_scale": False, "loss_cap": None, "format": "png", "dpi": 150, "width": None,
        "colormap": None, "style": None,
    }  # fmt: skip


def test_pictures_of_earlier_versions_have_the_defaults_of_what_they_do_not_record():
    assert Picture.read({"log_scale": True, "loss_cap": 3.0}) == Picture(True, 3.0)


def test_how_a_run_is_drawn_names_no_directory():
    arguments = ("format=svg", "dpi=300", "width=3.5", "colormap=cividis")
    (run,), (drawn,) = plan([]), plan([f"picture.{argument}" for argument in arguments])
    assert drawn.directory == run.directory
    assert drawn.settings.picture == Picture(False, None, "svg", 300, 3.5, "cividis")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("format=jpg", "picture.format must be png or pdf or svg, got 'jpg'"),
        ("dpi=0", "picture.dpi must be at least 10, got 0"),
        ("dpi=72.5", "picture.dpi must be an integer, got 72.5"),
        ("width=0", "picture.width must be at least 1.0 or one_column or two_columns, got 0"),
        ("colormap=viridjs", r"got 'viridjs' \(did you mean viridis\?\)"),
        ("width=three_columns", "picture.width must be .*one_column.*, got 'three_columns'"),
        ("style=papr", r"got 'papr' \(did you mean paper\?\)"),
        ("style=gone.mplstyle", "a file ending in .mplstyle, or null, got 'gone.mplstyle'"),
        ("colormap=1", "picture.colormap must be text or null, got 1"),
    ],
)
def test_pictures_that_cannot_be_drawn_are_refused_before_anything_is_computed(argument, message):
    with pytest.raises(InputError, match=message):
        plan([f"picture.{argument}"])


@pytest.mark.parametrize("pipeline", PIPELINE_KEYS)
def test_what_a_pipeline_does_not_read_changes_nothing(pipeline):
    changes = {
        "epoch": 1, "split": "test", "num_examples": 9, "tolerance": 0.1, "refine": 0.1,
        "precision": "fp64", "freeze": "conv1",
    }  # fmt: skip
    (run,) = plan([f"pipeline={pipeline}"])
    for key, value in changes.items():
        (changed,) = plan([f"pipeline={pipeline}", f"{key}={value}"])
        read = key in PIPELINE_KEYS[pipeline]
        assert (changed.settings.as_read() != run.settings.as_read()) == read
        assert (changed.directory != run.directory) == read
