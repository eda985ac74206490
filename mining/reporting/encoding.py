"""Numbers on their way into a page: exact, and as JSON has them."""

import base64
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from mining.storage.files import finite


def encode(values: Tensor | npt.ArrayLike | None) -> dict[str, Any] | None:
    """Encode an array as its shape and its float64 values, little-endian, in base64.

    Nothing is rounded, and values that are not finite stay what they are.
    """
    if values is None:
        return None
    given = values.numpy() if isinstance(values, Tensor) else values
    array = np.ascontiguousarray(given, dtype="<f8")
    return {"shape": list(array.shape), "f64": base64.b64encode(array.tobytes()).decode("ascii")}


def as_json(content: Mapping[str, Any]) -> str:
    """Write content as JSON that a ``script`` element of HTML may hold."""
    text = json.dumps(finite(content), allow_nan=False, separators=(",", ":"), ensure_ascii=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
