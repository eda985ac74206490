"""What differs between the versions of Hydra and OmegaConf that this package works with."""

from collections.abc import Callable
from typing import Any

import hydra
import omegaconf
from omegaconf import OmegaConf

#: For ``hydra.main`` and ``initialize_config_module``: Hydra 1.3 asks which behaviour is meant,
#: and 1.4 deprecates the argument.
VERSION: dict[str, Any] = {"version_base": "1.3"} if hydra.__version__.startswith("1.3") else {}


def register_resolver(name: str, resolver: Callable[..., Any]) -> None:
    """Make ``${NAME:…}`` known to OmegaConf, in place of what was known by this name.

    Args:
        name: Of the resolver.
        resolver: Takes the arguments in the configuration, and returns a value.
    """
    old = omegaconf.__version__.startswith("2.3")  # whose register_resolver is another one
    register = "register_new_resolver" if old else "register_resolver"
    getattr(OmegaConf, register)(name, resolver, replace=True)
