"""Random configurations and random files: each is computed or refused in one line.

``MINING_FUZZ=5000`` takes that many instead of what fits the suite, as ``make fuzz`` does.
"""

import io
import json
import os
import random
import signal
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from cases import landscape
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf

from mining.app.experiments import register_resolvers
from mining.app.hydra_versions import VERSION
from mining.data import arrays
from mining.directions import FromFile
from mining.models import MLP
from mining.pipelines import PIPELINE_KEYS
from mining.storage.checkpoints import load_weights

CASES = int(os.environ.get("MINING_FUZZ", "0"))
SEED = int(os.environ.get("MINING_FUZZ_SEED", "0"))
LIMIT = 60  # seconds of a processor for a case; most take less than one
WAIT = 600  # seconds of a case that waits, however busy the machine is
#: Settings with which every pipeline takes a fraction of a second.
TINY = (
    *("data.num_examples=20", "train.epochs=1", "train.checkpoints=[0]", "model.hidden=[4]"),
    *("grid.num=3", "spectrum.num_eigenvalues=1", "spectrum.density_steps=3", "progress=false"),
    *("spectrum.density_probes=2", "spectrum.trace_products=6", "spectrum.trace_error=null"),
    *("expansion.num_points=2", "expansion.num_offsets=3", "perturbation.num_samples=3"),
    *("descent.epochs=1", "num_threads=1"),
)
VALUES = [
    *("null", "true", "abc", "''", "[]", "{}", "[1]", "[a]", "[[0,1],[1,2]]", "{a:1}", "{1:2,b:3}"),
    *("[null]", "???", "${seed}", "${nowhere}", "nan", "inf", "-inf", "-1", "0", "1", "2", "3"),
    *("0.5", "1.5", "1e-9", "1e30", "-0.0", "train", "both", "os.system", "x.npz", "[nan]", "é"),
    *("${oc.env:NOWHERE}", "[-1,2]", "{_target_:os.getcwd}", "{_target_:3}"),
]
#: What takes any number; of other keys a large one means long work, as asked for.
SIZES = {
    *("grid.num", "grid.y_num", "batch_size", "chunk", "num_examples", "data.num_examples"),
    *("seed", "epoch", "data.subset_seed", "batchnorm.num_examples", "spectrum.micro_batch"),
    *("num_threads", "num_directions", "direction.start", "direction.batch_size"),
    *("spectrum.num_eigenvalues", "spectrum.density_steps"),
}
OPTIONS = {
    "model": ["mlp", "cnn", "cifar_resnet8", "lenet", "vgg", "custom", "resnet50"],
    "data": ["digits", "arrays", "cifar10", "image_folder", "imagenet"],
    "direction": ["gaussian", "gradient", "checkpoint_delta", "eigenvectors", "from_file",
                  "best_of_n_gaussians", "xu2024_w_peak", "xu2024_vvv_basin", "multipoint",
                  "uniform", "adam_moments", "trajectory_pca"],
    "normalization": ["model", "layer", "filter", "weight", "none", "l2"],
    "batchnorm": ["recalibrate", "frozen", "batch", "off"],
    "view": ["gmi", "mli", "gaussian", "saddle", "bowl", "adameq", "nothing"],
    "pipeline": [*PIPELINE_KEYS, "plot"],
}  # fmt: skip
OPTIONS |= {f"{axis}_direction": OPTIONS["direction"] for axis in "xy"}


class HangError(BaseException):
    """A case that takes too long; nothing catches it by accident."""


@contextmanager
def time_limit(seconds):
    def stop(*_):
        raise HangError

    timers = {
        signal.ITIMER_PROF: (signal.SIGPROF, seconds),
        signal.ITIMER_REAL: (signal.SIGALRM, WAIT),
    }
    before = {number: signal.signal(number, stop) for number, _ in timers.values()}
    for timer, (_, allowed) in timers.items():
        signal.setitimer(timer, allowed)
    try:
        yield
    finally:
        for timer in timers:
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def leaf_keys():
    register_resolvers()
    with initialize_config_module("mining.conf", **VERSION):
        config = OmegaConf.to_container(compose("config"), resolve=True)

    def leaves(prefix, value):
        if isinstance(value, dict):
            return [prefix, *(k for n, v in value.items() for k in leaves(f"{prefix}.{n}", v))]
        return [prefix]

    found = [key for name, value in config.items() for key in leaves(name, value)]
    kept = ("outputs", "progress", "experiment", "size", "subject")
    return [key for key in found if key not in kept]


def random_arguments(draw, keys):
    """Draw a pipeline, options of groups and values of keys, most of them wrong."""
    chosen = [f"pipeline={draw.choice(list(PIPELINE_KEYS))}", f"seed={draw.randrange(2)}"]
    groups = draw.sample(list(OPTIONS), draw.choice([0, 0, 1, 1, 2]))
    chosen += [f"{group}={draw.choice(OPTIONS[group])}" for group in groups]
    for _ in range(draw.choice([0, 1, 1, 1, 2])):
        key = draw.choice([*keys, "nonsense", "picture.size", "model.width"])
        large = ["1000000000", "10000000000000000000000"]
        pipeline = next(c for c in reversed(chosen) if c.startswith("pipeline="))
        mined = pipeline in ("pipeline=angles", "pipeline=mine") and key == "num_directions"
        values = VALUES + large * 8 if key in SIZES and not mined else VALUES
        chosen.append(f"{draw.choice(['', '', '', '+', '++'])}{key}={draw.choice(values)}")
    return chosen


def empty_folders(root):
    """List folders in which a failed run left nothing but log lines, if that."""
    return [
        path
        for path in root.glob("**/")
        if path != root and {child.name for child in path.iterdir()} <= {"mining.log"}
    ]


def complaint(command, capsys, outputs, arguments):
    """Run a command and say what is wrong with how it ended; ``None``: nothing."""
    capsys.readouterr()
    code = 0
    try:
        with time_limit(LIMIT):
            directory = command(*arguments)
    except SystemExit as stop:
        code = stop.code
    except HangError:
        return "hangs"
    except BaseException as error:
        return f"raises {type(error).__name__}: {error}"
    if code == 0:
        record = (directory / "run.json").read_text()
        json.loads(record, parse_constant=pytest.fail)
    else:
        printed = capsys.readouterr()
        lines = [x for x in printed.err.splitlines() if not x.startswith("[")]
        if len(lines) != 1 or not lines[0].startswith("error: ") or printed.out or code != 1:
            return f"says {lines[-8:]}, exit code {code}"
        if "fault of the program" in lines[0] or len(lines[0]) < len("error: what is wrong"):
            return lines[0]
    if found := empty_folders(outputs):
        return f"leaves {found}"
    return None


@pytest.mark.filterwarnings("ignore")
def test_random_configurations_are_run_or_refused(command, folder, capsys):
    draw, keys = random.Random(SEED), leaf_keys()
    found = []
    for _ in range(CASES or 40):
        arguments = random_arguments(draw, keys)
        problem = complaint(command, capsys, folder / "outputs", (*TINY, *arguments))
        if problem:
            found.append(f"{' '.join(arguments)}\n    {problem}")
            with capsys.disabled():
                print(f"\n{found[-1]}")
    assert not found, "\n".join(found)


def changed(draw, tensors):
    """Change one tensor of a state dict, or the whole, in one of the ways files are wrong."""
    name = draw.choice(list(tensors))
    value = tensors[name]
    quantized = torch.quantize_per_tensor(value.float(), 0.1, 0, torch.qint8)
    ways = [
        *(value.to_sparse(), value.to_sparse_csr() if value.dim() == 2 else value.to_sparse()),
        *(value.long(), value.bool(), value.to(torch.complex64), value.half(), value.bfloat16()),
        *(value.double(), value.to("meta"), quantized, value[None], value.flatten(), value[:0]),
        *(value * torch.nan, value + torch.inf, value.expand(3, *value.shape), "text", None, 3),
        *(value.numpy().tolist(), {name: value}, torch.nested.nested_tensor([value, value])),
        *(value.to(torch.float8_e5m2), value.clone().requires_grad_(), torch.nn.Parameter(value)),
    ]
    state = {**tensors, name: draw.choice(ways)}
    return draw.choice(
        [
            *[state] * 12,
            *({"model": state}, {"state_dict": state, "epoch": 3}, {0: value}, {**state, 3: value}),
            *({"module." + key: v for key, v in state.items()}, list(state.values()), value, {}),
            *({**state, "names": 3}, {"vectors": state[name]}, {"vectors": value, "names": [1]}),
            *({"model": 3}, {"model": {}}, {(1, 2): value}, {"vectors": value, "names": name}),
        ]
    )


def damaged(draw, content):
    """Flip a bit, cut or repeat a part, as disks and connections do."""
    way, at = draw.randrange(4), draw.randrange(len(content))
    if way == 0:
        return content[:at] + bytes([content[at] ^ (1 << draw.randrange(8))]) + content[at + 1 :]
    if way == 1:
        return content[:at]
    if way == 2:
        return content[:at] + draw.randbytes(draw.randrange(1, 40)) + content[at:]
    return content[:at] + content[at + draw.randrange(1, 40) :]


def of_torch(value):
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def of_numpy(draw, given):
    """Write arrays as ``.npz``, one of them of another kind."""
    name = draw.choice(list(given))
    value = given[name]
    ways = [
        *(value, value.astype(float), value.astype(complex), value.astype(str), value[:0]),
        *(value.astype(object), value.astype(np.int64) - 1, value[None], value.astype(bool)),
        *(value.astype("M8[s]"), np.float64(3), value.astype(np.uint64) + 2**63, value.T),
        *(np.full(value.shape, np.nan), np.zeros(2, [("a", int)]), value.astype(np.float16)),
    ]
    buffer = io.BytesIO()
    keep = {key: v for key, v in given.items() if key == name or draw.random() < 0.95}
    draw.choice([np.savez, np.savez_compressed])(buffer, **{**keep, name: draw.choice(ways)})
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore")
def test_random_files_are_read_or_refused(tmp_path):
    draw = random.Random(SEED)
    torch.manual_seed(SEED)
    model = MLP((1, 8, 8), 10, hidden=[4])
    state = {name: value.detach() for name, value in model.state_dict().items()}
    small = landscape("mlp")
    per_name = small.space.unflatten(torch.randn(small.space.size, dtype=small.space.dtype))
    whole = {name: tensor.clone() for name, tensor in per_name.items()}
    images = np.arange(10 * 36, dtype=np.uint32).reshape(10, 6, 6).astype(np.uint8)
    data = {"train_images": images, "train_labels": np.arange(10), "class_names": np.arange(10)}
    found = []
    for number in range(CASES or 400):
        which = draw.randrange(4)
        suffix = ".pt" if which < 2 else ".npz"
        if which == 0:
            content = of_torch(changed(draw, dict(state)))
        elif which == 1:
            content = of_torch(changed(draw, dict(whole)))
        elif which == 2:
            content = of_numpy(draw, {n: v.numpy() for n, v in whole.items()})
        else:
            content = of_numpy(draw, data)
        if draw.random() < 0.5:
            content = damaged(draw, content)
        path = tmp_path / f"file{suffix}"
        path.write_bytes(content)
        try:
            with time_limit(LIMIT):
                if which == 0:
                    fresh = MLP((1, 8, 8), 10, hidden=[4])
                    load_weights(fresh, path)
                    for name, value in fresh.state_dict().items():
                        # Half, bfloat16 and a byte of eight bits round.
                        torch.testing.assert_close(value, state[name], rtol=0.2, atol=1e-4)
                elif which == 3:
                    assert arrays(path).split("train").inputs.isfinite().all()
                else:
                    (direction,) = FromFile(path).directions(
                        small, 1, generator=torch.Generator().manual_seed(0)
                    )
                    assert direction.vector.isfinite().all()
        except (ValueError, FileNotFoundError, MemoryError) as error:
            if type(error) is not FileNotFoundError and type(error).__name__ != "InputError":
                found.append(f"{number} {suffix}: {type(error).__name__}: {error}")
            elif "\n" in str(error):
                found.append(f"{number} {suffix}: more than a line: {error}")
        except BaseException as error:
            found.append(f"{number} {suffix}: {type(error).__name__}: {error}")
    assert not found, "\n".join(found)
