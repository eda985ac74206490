"""Reading checkpoints of any origin: unwrapping, checking and loading them."""

import pickle
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mining import InputError

# Names under which training scripts store the parameters, beside epoch and optimizer.
_WRAPPERS = ("state_dict", "model_state_dict", "model", "net")
# Names under which they store the state of the optimizer.
_OPTIMIZERS = ("optimizer", "optimizer_state_dict", "optim")
# DataParallel and torch.compile put these before every name.
_PREFIXES = ("module.", "_orig_mod.")
# What torch.load raises for damaged or foreign files; found by trying hundreds of them.
_UNREADABLE = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    NotImplementedError,
    OverflowError,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)


def load_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Read named parameters and buffers from a file of ``torch.save``.

    The parameters may be nested under ``state_dict``, ``model_state_dict``, ``model`` or ``net``.
    The prefixes ``module.`` (DataParallel) and ``_orig_mod.`` (torch.compile) are removed if all
    names have them. Only tensors are unpickled, so a foreign file cannot run code.

    Args:
        path: The file.

    Returns:
        Tensors on the CPU by name.

    Raises:
        FileNotFoundError: If there is no such file.
        InputError: If it is damaged, not a checkpoint, or contains anything but tensors.
    """
    return _unwrap(read_tensors(path), str(path))


def read_tensors(path: str | Path) -> Any:
    """Read a file of ``torch.save``, unpickling only tensors and plain containers.

    Raises:
        FileNotFoundError: If there is no such file.
        InputError: If it is damaged or holds anything else.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"No checkpoint {path.resolve()}.")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()  # torch does not compare the checksums
            if damaged:
                raise InputError(f"the checksum of {damaged} is wrong, save it again")
        return torch.load(path, weights_only=True, map_location="cpu")
    except InputError as error:
        raise InputError(f"{path} is damaged: {error}.") from error
    except _UNREADABLE as error:
        raise InputError(f"cannot read {path} as a checkpoint: {_reason(error)}.") from error


def load_optimizer_state(path: str | Path) -> dict[str, Any]:
    """Read the state of an optimizer from a file of ``torch.save``.

    It may be the whole file, or nested under ``optimizer``, ``optimizer_state_dict`` or ``optim``.

    Args:
        path: The file.

    Returns:
        ``state`` and ``param_groups``, as ``torch.optim.Optimizer.state_dict`` has them.

    Raises:
        FileNotFoundError: If there is no such file.
        InputError: If it cannot be read, or holds no such state.
    """
    content = read_tensors(path)
    nested = content if isinstance(content, Mapping) else {}
    for found in (content, *(nested.get(key) for key in _OPTIMIZERS)):
        if isinstance(found, Mapping) and {"state", "param_groups"} <= set(found):
            return dict(found)
    raise InputError(
        f"{path} holds no state of an optimizer: save optimizer.state_dict() under 'optimizer'."
    )


def load_weights(model: nn.Module, source: str | Path | Mapping[str, Any]) -> None:
    """Load a checkpoint into ``model``; every name and every shape must match.

    The batch counters ``num_batches_tracked`` may be missing, as in checkpoints from before
    PyTorch 0.4.1; the model then keeps its own. If anything differs, nothing is loaded.

    Args:
        model: The model, changed in place.
        source: A file for ``load_state_dict``, or the content of one.

    Raises:
        FileNotFoundError: If there is no such file.
        InputError: If it cannot be read, or names or shapes differ.
    """
    model.load_state_dict(fitting_state(model, source))


def fitting_state(model: nn.Module, source: str | Path | Mapping[str, Any]) -> dict[str, Any]:
    """Return the state dict of ``model`` with the values of a checkpoint of its architecture.

    Args:
        model: The model, which is not changed.
        source: A file for ``load_state_dict``, or the content of one.

    Returns:
        Tensors by name, in the format of ``model.load_state_dict``.

    Raises:
        FileNotFoundError: If there is no such file.
        InputError: If it cannot be read, or names or shapes differ.
    """
    if isinstance(source, str | Path):
        origin, given = str(source), load_state_dict(source)
    else:
        origin, given = "the state dict", _unwrap(source, "the state dict")
    own = model.state_dict()
    shapes = [
        f"{name} {tuple(given[name].shape)} against {tuple(own[name].shape)}"
        for name in own
        if name in given and is_plain(given[name]) and given[name].shape != own[name].shape
    ]
    absent = [name for name in own if name not in given]
    kinds = [
        f"{name} ({describe_kind(given[name])})"
        for name in own
        if name in given
        and (
            not is_plain(given[name])
            or own[name].is_floating_point() > given[name].is_floating_point()
        )
    ]
    infinite = [
        name
        for name, value in given.items()
        if is_plain(value) and not torch.isfinite(value.float()).all()
    ]
    differences = {
        "missing": [name for name in absent if not name.endswith("num_batches_tracked")],
        "unexpected": [name for name in given if name not in own],
        "of another shape": shapes,
        "no plain floating-point tensors": kinds,
        "not finite": infinite,
    }
    found = [f"{what}: {_first(names)}" for what, names in differences.items() if names]
    if found:
        raise InputError(f"{origin} does not fit {type(model).__name__}; {'; '.join(found)}.")
    # The model's own mapping carries the versions of its layers, which MNASNet insists on.
    own.update(given)
    return own


def is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is dense, real and in memory, neither quantized nor without data."""
    return (
        tensor.layout == torch.strided
        and tensor.device.type != "meta"
        and not (tensor.is_complex() or tensor.is_quantized or tensor.is_nested)
    )


def describe_kind(tensor: Tensor) -> str:
    """Name layout and dtype of a tensor, for a message."""
    layout = "" if tensor.layout == torch.strided else f"{tensor.layout} ".removeprefix("torch.")
    place = " on meta" if tensor.device.type == "meta" else ""
    return f"{layout}{str(tensor.dtype).removeprefix('torch.')}{place}"


def _reason(error: Exception) -> str:
    refused = re.search(r"Unsupported \w+: GLOBAL (\S+)", str(error))
    if refused:
        return f"it holds {refused[1]}, and only tensors are read; save model.state_dict() instead"
    if isinstance(error, OSError | RuntimeError):
        # torch's messages go on with advice, some of it unsafe.
        return str(error).splitlines()[0].split(". ")[0].rstrip(".")
    return "it is not a file of torch.save, or was cut short"


def _unwrap(content: Any, origin: str) -> dict[str, Tensor]:
    while isinstance(content, Mapping):
        wrapper = next((key for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if wrapper is None:
            break
        content = content[wrapper]
    if not isinstance(content, Mapping) or not content:
        raise InputError(
            f"{origin} must hold tensors by name, got "
            f"{'an empty mapping' if isinstance(content, Mapping) else type(content).__name__}."
        )
    state = dict(content)
    others = [
        str(name)
        for name, value in state.items()
        if not isinstance(value, Tensor) or not isinstance(name, str)
    ]
    if others:
        raise InputError(f"{origin} must hold tensors by name only, but has {_first(others)}.")
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in state)), None):
        state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _first(names: list[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
