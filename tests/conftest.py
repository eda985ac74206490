import os

import torch
from hypothesis import settings

# The same examples in every run; HYPOTHESIS_PROFILE=search looks for new ones.
settings.register_profile("fixed", derandomize=True, deadline=None)
settings.register_profile("search", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

torch.manual_seed(0)  # of the tests' own data; the library never reads the global generator
