"""Networks, losses and loaders for which nobody wrote a test, against plain PyTorch."""

import os
import warnings
from functools import cache

import pytest
import torch
from foreign import build
from foreign.judge import Verdict, judge

#: Seeds to judge; ``make fuzz`` takes some thousand.
NUM_CASES = int(os.environ.get("MINING_FUZZ", "0")) or 200
#: Cases of one test: a failure names seeds, and ``python tests/foreign SEED SEED+1`` judges one.
_BLOCK = 10


@cache
def judged(seed: int) -> Verdict:
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of broadcasts and old functions
        return judge(seed)


@pytest.mark.parametrize("first", range(0, NUM_CASES, _BLOCK))
def test_foreign_cases_have_the_numbers_of_plain_pytorch_or_a_reason(first):
    faulty = []
    for seed in range(first, min(first + _BLOCK, NUM_CASES)):
        faults = judged(seed).faults
        if faults:
            faulty.append("\n".join([str(build(seed)), *map(str, faults)]))
    assert not faulty, "\n\n".join(faulty)


def test_most_cases_are_judged_by_numbers():
    """A generator whose cases are refused, or excused by a warning, would show nothing."""
    outcomes = [judged(seed).outcome for seed in range(100)]
    assert outcomes.count("equal") >= 50, outcomes
    assert {"refused", "warned"} <= set(outcomes)
