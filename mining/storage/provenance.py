"""What code made a run: versions of packages, and the commit of the checkout."""

import logging
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("mining", "torch", "torchvision", "numpy", "scipy", "hydra-core")
log = logging.getLogger(__name__)


def versions() -> dict[str, str]:
    """Give the versions of Python and of the packages that decide results."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # a checkout put on the path without installing it
            log.debug("%s is not an installed distribution", package)
    return found


def git_state() -> dict[str, Any]:
    """Commit and dirty flag of the checkout that holds this file; both null outside one."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, env=environment, check=False
            )
        except FileNotFoundError:  # no git on this machine
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # Installed into a virtual environment inside another project's checkout is not ours.
    tracked = git("ls-files", "--error-unmatch", Path(__file__).name)
    commit = git("rev-parse", "HEAD") if tracked else None
    status = git("status", "--porcelain") if commit else None
    return {"commit": commit, "dirty": None if status is None else bool(status)}
