"""The command that makes a run again, from the configuration in its record."""

import copy
import functools
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from typing import Any, cast

from hydra import compose, initialize_config_module
from omegaconf import DictConfig, OmegaConf

from mining.app.arguments import as_typed, with_packages
from mining.app.experiments import register_resolvers
from mining.app.hydra_versions import VERSION
from mining.pipelines import PIPELINE_KEYS
from mining.reporting.records import Command, flat

#: How the results were computed, which may change them in their last digits.
_MANNER = ("num_threads", "chunk", "compile")
#: Groups that offer their options to other keys.
_GROUP_OF = {"x_direction": "direction", "y_direction": "direction", "data_shifted": "data"}
#: Words that Hydra reads as values of another type than text.
_WORDS = {"true", "false", "yes", "no", "on", "off", "null", "inf", "nan"}


def find_commands(configs: Sequence[Mapping[str, Any]]) -> list[Command]:
    """Find arguments that compose the configuration of each run.

    They are the option of each group that leaves the fewest values to be set, and those values.
    They count only if they give every value that the pipeline reads as it is recorded.

    Args:
        configs: The configurations in the records of the runs.
    """
    register_resolvers()
    with initialize_config_module("mining.conf", **VERSION):
        composed = functools.cache(lambda *options: compose("config", with_packages(options)))
        return [_Search(config, composed).command() for config in configs]


class _Search:
    """Finds the arguments of one configuration.

    Args:
        wanted: The configuration.
        composed: Composes a configuration from options of groups.
    """

    def __init__(self, wanted: Mapping[str, Any], composed: Any) -> None:
        self._wanted, self._composed = wanted, composed

    def command(self) -> Command:
        """Find the command, or say why there is none."""
        pipeline = self._wanted["pipeline"]
        if pipeline not in PIPELINE_KEYS:
            return Command(None, f"since this version has no pipeline {pipeline}")
        options = self._options()
        config = copy.deepcopy(cast(DictConfig, self._composed(*options)))
        arguments = []
        # What is set may change what refers to it: in a second round nothing is left to be set.
        for _ in range(2):
            for own, value in self._left(_plain(config)):
                name = _referent(config, own)
                arguments.append(_argument(config, name, value))
                _set(config, name, value)
        left = [name for name, _ in self._left(_plain(config))]
        if left:
            return Command(None, f"since this version cannot set {', '.join(left)}")
        typed = [as_typed(argument) for argument in (*options, *dict.fromkeys(arguments))]
        return Command(" ".join(["python -m mining", *map(shlex.quote, typed)]))

    def _options(self) -> list[str]:
        """Choose the option of each group that a pipeline reads."""
        pipeline, default = self._wanted["pipeline"], self._composed()
        found = [] if pipeline == default.pipeline else [f"pipeline={pipeline}"]
        for key in PIPELINE_KEYS[pipeline]:
            value = self._wanted.get(key)
            if isinstance(value, Mapping):
                known = _group(_GROUP_OF.get(key, key))
                own = default.get(key)
                plain = {} if own is None else cast(dict[str, Any], OmegaConf.to_container(own))
                name = _fitting(value, plain, known)
                found += [] if name is None else [f"{key}={name}"]
        return list(dict.fromkeys(found))

    def _left(self, found: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
        """Give the values that are still to be set: name and value, ``_ABSENT`` to remove it."""
        for key in dict.fromkeys((*PIPELINE_KEYS[self._wanted["pipeline"]], *_MANNER)):
            want, have = self._wanted.get(key), found.get(key)
            if want == have:
                continue
            if not (isinstance(want, Mapping) and isinstance(have, Mapping)):
                yield key, want
                continue
            wants, haves = flat(want, f"{key}."), flat(have, f"{key}.")
            for name in dict.fromkeys((*wants, *haves)):
                if name not in haves or wants.get(name, _ABSENT) != haves[name]:
                    yield name, wants.get(name, _ABSENT)


#: In place of the value of a key that is to be removed.
_ABSENT = object()


def _plain(config: DictConfig) -> dict[str, Any]:
    """Resolve a configuration; what must be given is ``???``."""
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True))


def _referent(config: DictConfig, name: str) -> str:
    """Follow what a key is a part of, ``direction.descent: ${descent}``, to where it can be set."""
    keys = name.split(".")
    for depth in range(1, len(keys)):
        *parents, key = keys[:depth]
        node = OmegaConf.select(config, ".".join(parents)) if parents else config
        if node is not None and OmegaConf.is_interpolation(node, key):
            raw = OmegaConf.to_container(node, resolve=False)
            assert isinstance(raw, dict)
            simple = re.fullmatch(r"\$\{([\w.]+)\}", str(raw[key]))
            if simple:
                return _referent(config, ".".join([simple[1], *keys[depth:]]))
    return name


def _argument(config: DictConfig, name: str, value: Any) -> str:
    if value is _ABSENT:
        return f"~{name}"
    known = OmegaConf.select(config, name, default=_ABSENT) is not _ABSENT
    return f"{'' if known else '++'}{name}={spelled(value)}"


def _set(config: DictConfig, name: str, value: Any) -> None:
    if value is not _ABSENT:
        OmegaConf.update(config, name, value, merge=False, force_add=True)
        return
    parent, _, key = name.rpartition(".")
    node = OmegaConf.select(config, parent)
    OmegaConf.set_struct(node, False)
    del node[key]


def _fitting(
    value: Mapping[str, Any], default: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]]
) -> str | None:
    """Choose the option of a group that is nearest to a value; ``None``: the default."""
    wanted = flat(value)

    def distance(content: Mapping[str, Any]) -> float:
        known = flat(content)
        names = {*wanted, *known}
        # What refers to another value may or may not be equal: half a difference.
        return sum(
            0.5 if str(known.get(name)).startswith("${") else wanted.get(name) != known.get(name)
            for name in names
        )

    fitting = {
        name: distance(content)
        for name, content in options.items()
        if content.get("_target_") == value.get("_target_")
    }
    own = distance(default) if default.get("_target_") == value.get("_target_") else None
    if not fitting:
        return "custom" if own is None and "custom" in options else None
    best = min(fitting, key=lambda name: fitting[name])
    return None if own is not None and own <= fitting[best] else best


def spelled(value: Any) -> str:
    """Write a value as Hydra reads it."""
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z_/][\w./-]*", value) and value.lower() not in _WORDS
        if plain:
            return value
        # A backslash is itself, but before a quote and at the end.
        escaped = re.sub(r"(\\*)('|$)", lambda m: m[1] * 2 + ("\\'" if m[2] else ""), value)
        return f"'{escaped}'"
    if isinstance(value, list | tuple):
        return f"[{','.join(map(spelled, value))}]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{spelled(k)}:{spelled(v)}" for k, v in value.items()) + "}"
    return json.dumps(value)


@functools.cache
def _group(name: str) -> dict[str, dict[str, Any]]:
    """Read the options of a group by name, as they are written; none if there is no group."""
    folder = files("mining.conf").joinpath(name)
    if not folder.is_dir():
        return {}
    found = {}
    for entry in folder.iterdir():
        if entry.name.endswith(".yaml"):
            content = OmegaConf.to_container(OmegaConf.create(entry.read_text(encoding="utf-8")))
            assert isinstance(content, dict)
            found[entry.name.removesuffix(".yaml")] = content.get(name, content)
    return cast(dict[str, dict[str, Any]], found)
