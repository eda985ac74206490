"""Batch norm folded into the layer before it, where its statistics are fixed."""

import weakref
from collections.abc import Iterable, Iterator, Mapping
from inspect import signature
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (the name under which everybody knows it)

from mining.functional.calls import CallMode, TorchFunction
from mining.functional.substitution import Forward

_BATCH_NORM = signature(F.batch_norm)
_LAYERS = (F.conv1d, F.conv2d, F.conv3d, F.linear)
#: Ask about a tensor without reading its values.
_METADATA = (
    Tensor.dim,
    Tensor.size,
    Tensor.numel,
    *(
        vars(torch._C.TensorBase)[name].__get__
        for name in ("shape", "ndim", "dtype", "device", "requires_grad")
    ),
)


class _Norm(NamedTuple):
    """The batch norm behind a layer, by the names of its tensors."""

    mean: str
    variance: str
    weight: str | None
    bias: str | None
    eps: float


class _NotFoldableError(RuntimeError):
    """The output of a folded layer went elsewhere than to its batch norm."""

    def __init__(self, layer: int) -> None:
        super().__init__(f"layer {layer}")
        self.layer = layer


class Folding:
    """Which layers of a model are followed by a batch norm and by nothing else.

    With fixed statistics batch norm is an affine map, and that of a convolution or linear layer
    with other weights and bias: a pass over all activations is saved, and most of it in second
    derivatives. What is followed is the computation, not the modules: layers count in the order
    in which they run, a batch norm that normalizes by its batch is left alone, and a layer whose
    output turns out to be used twice is unfolded and the pass repeated. Results differ from those
    of the plain model by rounding.
    """

    def __init__(self, norms: Mapping[int, _Norm] | None = None) -> None:
        self._norms = dict(norms or {})  # by the number of the layer

    def __len__(self) -> int:
        """Return the number of folded layers."""
        return len(self._norms)

    @staticmethod
    def of(forward: Forward, inputs: Any, tensors: Mapping[str, Tensor]) -> "Folding":
        """Run a model once and see which layers can be folded.

        Args:
            forward: Runs the model, in which ``tensors`` are substituted.
            inputs: A batch of any size.
            tensors: Parameters and buffers by name.
        """
        found: dict[int, _Norm] = {}
        with _Observing(found, {id(tensor): name for name, tensor in tensors.items()}):
            forward(inputs)
        return Folding(found)

    def fold(
        self, forward: Forward, tensors: Mapping[str, Tensor], *, affine: bool = False
    ) -> Forward:
        """Give a function that computes what ``forward`` does, with folded layers.

        Args:
            forward: Runs the model, in which ``tensors`` are substituted.
            tensors: Parameters and buffers by name; folded once for all calls.
            affine: Whether the batch norms that are not folded run as a product and a sum. torch
                differentiates its own kernel twice through a formula for batch statistics; this
                takes two thirds of the time for the same Hessian.
        """
        if not self._norms and not affine:
            return forward
        cache: dict[int, tuple[Tensor, Tensor, Tensor]] = {}

        def folded(inputs: Any) -> Tensor:
            while True:
                try:
                    with _Folded(self._norms, tensors, cache, affine) as mode:
                        outputs = forward(inputs)
                    mode.finish()
                except _NotFoldableError as error:
                    del self._norms[error.layer]
                else:
                    return outputs

        return folded


class _Observing(CallMode):
    """Notes the batch norms with running statistics that take the output of a layer."""

    def __init__(self, found: dict[int, _Norm], names: Mapping[int, str]) -> None:
        super().__init__()
        self._found, self._names = found, names
        self._outputs = _Tracked()
        self._num_layers = 0

    def call(self, function: TorchFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Look at the function, and let it through."""
        outputs = function(*args, **kwargs)
        if function in _LAYERS:
            # The features of a linear layer are its last axis, those of batch norm the second.
            if function is not F.linear or outputs.dim() == 2:
                self._outputs.add(outputs, self._num_layers)
            self._num_layers += 1
        elif function is F.batch_norm:
            x, mean, variance, weight, bias, training, eps = _arguments(args, kwargs)
            layer = self._outputs.find(x)
            tensors = [mean, variance, weight, bias]
            names = [None if t is None else self._names.get(id(t), "") for t in tensors]
            if layer is not None and not training and "" not in names:
                self._found[layer] = _Norm(str(names[0]), str(names[1]), names[2], names[3], eps)
        return outputs


class _Folded(CallMode):
    """Runs folded layers, and passes their outputs through the batch norms behind them."""

    def __init__(
        self,
        norms: Mapping[int, _Norm],
        tensors: Mapping[str, Tensor],
        cache: dict[int, tuple[Tensor, Tensor, Tensor]],
        affine: bool,
    ) -> None:
        super().__init__()
        self._norms, self._tensors, self._cache, self._affine = norms, tensors, cache, affine
        self._outputs = _Tracked()
        self._open: set[int] = set()  # folded layers whose batch norm is still to come
        self._num_layers = 0

    def finish(self) -> None:
        """Raise unless every folded output was normalized."""
        for layer in self._open:
            raise _NotFoldableError(layer)

    def call(self, function: TorchFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Fold layers and batch norms, and see that nothing else takes a folded output."""
        if function is F.batch_norm:
            return self._batch_norm(args, kwargs)
        if function not in _METADATA:
            for tensor in tensors_in((*args, *kwargs.values())):
                layer = self._outputs.find(tensor)
                if layer is not None:
                    raise _NotFoldableError(layer)
        if function in _LAYERS:
            return self._layer(function, args, kwargs)
        return function(*args, **kwargs)

    def _layer(self, function: TorchFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        number = self._num_layers
        self._num_layers += 1
        if number not in self._norms:
            return function(*args, **kwargs)
        named = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
        inputs, weight, bias = named.pop("input"), named.pop("weight"), named.pop("bias", None)
        known = self._cache.get(number)
        if known is None or known[0] is not weight:
            known = (weight, *self._fold(number, weight, bias))
            self._cache[number] = known
        outputs = function(inputs, *known[1:], *args[3:], **named)
        self._outputs.add(outputs, number)
        self._open.add(number)
        return outputs

    def _fold(self, layer: int, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor]:
        tensors, norm = self._tensors, self._norms[layer]
        scale, shift = _scale_and_shift(
            tensors[norm.mean],
            tensors[norm.variance],
            None if norm.weight is None else tensors[norm.weight],
            None if norm.bias is None else tensors[norm.bias],
            norm.eps,
        )
        if len(scale) != len(weight):  # other layers ran before this one than were counted
            raise _NotFoldableError(layer)
        folded = weight * scale.view((-1,) + (1,) * (weight.dim() - 1))
        return folded, shift if bias is None else bias * scale + shift

    def _batch_norm(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        x, mean, variance, weight, bias, training, eps = _arguments(args, kwargs)
        layer = self._outputs.find(x)
        if layer is not None:
            norm = self._norms[layer]
            if training or layer not in self._open or self._tensors[norm.mean] is not mean:
                raise _NotFoldableError(layer)
            self._open.remove(layer)
            # Another tensor object: whoever still uses the first one wants the layer's output.
            return x.view(x.shape)
        if self._affine and not training:
            scale, shift = _scale_and_shift(mean, variance, weight, bias, eps)
            shape = (1, -1) + (1,) * (x.dim() - 2)
            return x * scale.view(shape) + shift.view(shape)
        return F.batch_norm(*args, **kwargs)


class _Tracked:
    """Tensors that are still alive, each with the number of the layer that it came from."""

    def __init__(self) -> None:
        self._layers: dict[int, tuple[weakref.ref[Tensor], int]] = {}

    def add(self, tensor: Tensor, layer: int) -> None:
        self._layers[id(tensor)] = (weakref.ref(tensor), layer)

    def find(self, tensor: Tensor) -> int | None:
        known = self._layers.get(id(tensor))
        return known[1] if known is not None and known[0]() is tensor else None


def _arguments(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
    """Give input, mean, variance, weight, bias, training and eps of a call of batch norm."""
    bound = _BATCH_NORM.bind(*args, **kwargs)
    bound.apply_defaults()
    *first, _, eps = bound.arguments.values()
    return (*first, eps)


def _scale_and_shift(
    mean: Tensor, variance: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor]:
    """Batch norm with fixed statistics is x · scale + shift; both of shape ``(C,)``."""
    scale = torch.rsqrt(variance + eps)
    scale = scale if weight is None else scale * weight
    return scale, -mean * scale if bias is None else bias - mean * scale


def tensors_in(values: Iterable[Any]) -> Iterator[Tensor]:
    """Go through tensors, also those in lists and tuples."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(value)
