import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from mining.app.command_line import main

# The same examples in every run; HYPOTHESIS_PROFILE=search looks for new ones.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("search", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

torch.manual_seed(0)  # of the tests' own data; the library never reads the global generator


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One working directory for all, so that trainings are shared as in a user's."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture
def command(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    torch.set_num_threads(1)

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["mining", *arguments])
        main()
        return Path(capsys.readouterr().out.splitlines()[-1])

    return call
