"""The text of ``--help``, made from the configuration files."""

import json
import textwrap
from importlib.resources import files
from typing import Any, cast

from omegaconf import OmegaConf


def help_text() -> str:
    """List every group with its options, each with the first line of its file."""
    lines = [
        "See, mine and explain the loss landscape of deep networks.",
        "",
        "  python -m mining                                 one Gaussian curve of an MLP on digits",
        "  python -m mining pipeline=train model=cnn        train, keep checkpoints",
        "  python -m mining -m direction=gaussian,gradient  a sweep",
        "  python -m mining experiment=quickstart           every kind of curve, in a minute",
        "  python -m mining runs                            what is done, running, interrupted",
        "  python -m mining report                          finished runs as one HTML page",
        "  python -m mining explore RUN                     draw lines on a surface, in a browser",
        "  python -m mining export RUN FILE                 a surface as a mesh, labels for LaTeX",
        "",
        "A run leaves record, arrays and picture in outputs/<pipeline>/<model>-<data>/<digest>,",
        "and prints that path last. A finished run is skipped, an interrupted one goes on.",
        "",
        "Groups (GROUP=OPTION) and their options:",
    ]
    root = files("mining.conf")
    for group in sorted(entry.name for entry in root.iterdir() if entry.is_dir()):
        if group.startswith("_"):
            continue
        lines += ["", f"{group}:"]
        if group == "direction":
            lines.append("  x_direction and y_direction, the axes of pipeline=surface, take these")
        if group == "data":
            lines.append(
                "  data_shifted, on which the loss is evaluated instead of data, takes these"
            )
        for name, about in options_in(root.joinpath(group)):
            lines.append(f"  {name:<18} {about}")
            if group in ("model", "data", "direction"):
                keys = _keys(root.joinpath(group, f"{name}.yaml").read_text(), group)
                indent = " " * 21
                lines += textwrap.wrap(
                    ", ".join(keys), 100, initial_indent=indent, subsequent_indent=indent
                )
    lines += ["", "Keys (KEY=VALUE), with their defaults:", ""]
    text = root.joinpath("config.yaml").read_text()
    lines += text[text.index("\ncheckpoint:") + 1 : text.index("\nhydra:")].splitlines()
    lines += ["", "-m sweeps over comma-separated values; --cfg job shows the configuration."]
    return "\n".join(lines).replace("$", "$$")


def _keys(text: str, group: str) -> list[str]:
    """List the keys of an option, ``direction.basins=null`` for instance, from its file."""
    content = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.create(text)))
    found = []
    elsewhere = {name: part for name, part in content.items() if group in content and name != group}
    for section, options in elsewhere.items():
        found += [f"{section}.{key}={json.dumps(value)}" for key, value in options.items()]
    for key, value in content.get(group, content).items():
        if key not in ("name", "_target_", "defaults"):
            default = value if isinstance(value, str) else json.dumps(value)
            without = isinstance(value, dict) or default.startswith(("${", "?"))
            found.append(f"{group}.{key}" if without else f"{group}.{key}={default}")
    return found


def options_in(folder: Any, prefix: str = "") -> list[tuple[str, str]]:
    """List the options in the folder of a group, each with the first line of its file."""
    found = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            found += options_in(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith(".yaml"):
            lines = entry.read_text().splitlines()
            about = next(line for line in lines if not line.startswith("# @")).removeprefix("# ")
            found.append((prefix + entry.name.removesuffix(".yaml"), about))
    return found
