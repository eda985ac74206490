"""What the tests of commands share."""

import json

#: A training of a second or so.
QUICK = ("data.num_examples=100", "train.epochs=3", "train.checkpoints=[0,1]", "progress=false")


def record(directory):
    return json.loads((directory / "run.json").read_text())
