"""The first layer of a network, computed for many points of a plane at once.

Its pre-activations are affine in the parameters: (W + Σ c_k E_k) x = W x + Σ c_k E_k x. However
many points θ + Σ c_k ε_k there are, the inputs are multiplied by 1 + K matrices. In a
multi-layer perceptron on images that is nearly all the work.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (the name under which everybody knows it)

from mining.functional.calls import CallMode, TorchFunction
from mining.functional.fuse_batchnorm import tensors_in
from mining.functional.substitution import Forward


@dataclass(frozen=True)
class FirstLayer:
    """A linear layer that takes the inputs themselves, flattened or not.

    Args:
        weight: Name of its weight, shape ``(H, F)``.
        bias: Name of its bias, shape ``(H,)``.
    """

    weight: str
    bias: str | None

    @staticmethod
    def of(
        forward: Forward, inputs: Tensor, parameters: Mapping[str, Tensor]
    ) -> "FirstLayer | None":
        """Run a model once and see whether it begins with such a layer.

        Args:
            forward: Runs the model, in which ``parameters`` are substituted.
            inputs: A batch of any size.
            parameters: By name.

        Returns:
            The layer; ``None`` if there is none or its parameters are used again.
        """
        with _Observing(inputs, {id(p): name for name, p in parameters.items()}) as observed:
            forward(inputs)
        return observed.found if observed.used_once else None

    def products(
        self, theta: Mapping[str, Tensor], vectors: Sequence[Mapping[str, Tensor]]
    ) -> Callable[[Tensor], Sequence[Tensor]]:
        """Give the function from inputs to W x + b and every E_k x + e_k, each ``(B, H)``."""
        points = [theta, *vectors]
        weight = torch.cat([point[self.weight] for point in points])
        bias = None if self.bias is None else torch.cat([point[self.bias] for point in points])

        def multiply(inputs: Tensor) -> Sequence[Tensor]:
            return F.linear(inputs.flatten(1), weight, bias).chunk(len(points), dim=1)

        return multiply

    def without(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Put tensors without values in the place of the layer's: nothing else can use them."""
        own = (self.weight, self.bias)
        return {n: t.to("meta") if n in own else t for n, t in tensors.items()}

    def fill_in(
        self, forward: Forward, tensors: Mapping[str, Tensor]
    ) -> Callable[[Tensor, Tensor], Tensor]:
        """Give a function of inputs and pre-activations that computes the rest of the model.

        Args:
            forward: Runs the model, in which ``tensors`` are substituted.
            tensors: What ``without`` returned.
        """
        weight = tensors[self.weight]

        def rest(inputs: Tensor, pre_activations: Tensor) -> Tensor:
            with _Filling(weight, pre_activations):
                return forward(inputs)

        return rest


class _Observing(CallMode):
    """Looks for a linear layer on the inputs, and counts what uses its parameters."""

    def __init__(self, inputs: Tensor, names: Mapping[int, str]) -> None:
        super().__init__()
        self.found: FirstLayer | None = None
        self._inputs, self._names = inputs, names
        self._uses: Counter[str] = Counter()
        self._version = inputs._version

    @property
    def used_once(self) -> bool:
        """Whether nothing but the layer uses its parameters."""
        layer = self.found
        return layer is not None and all(
            self._uses[name] == 1 for name in (layer.weight, layer.bias) if name is not None
        )

    def call(self, function: TorchFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Look at the function, and let it through."""
        if function is F.linear and self.found is None:
            named = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
            x, weight, bias = named["input"], named["weight"], named.get("bias")
            if (
                x.dim() == 2
                and len(x) == len(self._inputs)
                and x.data_ptr() == self._inputs.data_ptr()
                and x.numel() == self._inputs.numel()
                and self._inputs._version == self._version  # changed in place, they are no inputs
                and x.is_contiguous()
                and self._inputs.is_contiguous()
                and id(weight) in self._names
                and (bias is None or id(bias) in self._names)
            ):
                name = None if bias is None else self._names[id(bias)]
                self.found = FirstLayer(self._names[id(weight)], name)
        for argument in tensors_in((*args, *kwargs.values())):
            if id(argument) in self._names:
                self._uses[self._names[id(argument)]] += 1
        return function(*args, **kwargs)


class _Filling(CallMode):
    """Gives pre-activations where the layer would compute them."""

    def __init__(self, weight: Tensor, pre_activations: Tensor) -> None:
        super().__init__()
        self._weight, self._pre_activations = weight, pre_activations

    def call(self, function: TorchFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Fill in, or let the function through."""
        if function is F.linear:
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            if weight is self._weight:
                return self._pre_activations
        return function(*args, **kwargs)
