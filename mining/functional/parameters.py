"""Named parameters as one flat vector."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cached_property
from math import prod

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvTransposeNd

from mining import InputError

_NORM_LAYERS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


@dataclass(frozen=True)
class ParameterSpace:
    """The trainable parameters of a model, in flattening order.

    Tied parameters occur once, under the first of their names. Frozen parameters
    (``requires_grad=False``) are not part of the space and are never changed.
    """

    names: tuple[str, ...]
    shapes: tuple[torch.Size, ...]
    dtypes: tuple[torch.dtype, ...]
    #: The axis that indexes the filters of a parameter: 0 for linear and convolution weights,
    #: 1 for transposed convolutions, ``None`` for biases and the parameters of norm layers.
    filter_axes: tuple[int | None, ...]

    @classmethod
    def of(cls, model: nn.Module) -> "ParameterSpace":
        """Describe the trainable parameters of ``model``.

        Raises:
            InputError: If there are none, one is not real, or one is not initialized yet.
        """
        norm_parameters: set[int] = set()
        transposed: set[int] = set()
        for module in model.modules():
            if isinstance(module, _NORM_LAYERS):
                norm_parameters.update(id(p) for p in module.parameters(recurse=False))
            if isinstance(module, _ConvTransposeNd):
                transposed.add(id(module.weight))
        parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        if not parameters:
            raise InputError(f"{type(model).__name__} has no trainable parameters.")
        for name, parameter in parameters.items():
            if isinstance(parameter, nn.UninitializedParameter):
                raise InputError(f"{name} is not initialized yet: run one forward pass first.")
            if not parameter.dtype.is_floating_point:
                raise InputError(f"{name} must be real, got {parameter.dtype}.")
        return cls(
            names=tuple(parameters),
            shapes=tuple(p.shape for p in parameters.values()),
            dtypes=tuple(p.dtype for p in parameters.values()),
            filter_axes=tuple(
                None
                if p.dim() < 2 or id(p) in norm_parameters
                else (1 if id(p) in transposed else 0)
                for p in parameters.values()
            ),
        )

    @cached_property
    def sizes(self) -> list[int]:
        """The number of entries of each parameter."""
        return [prod(shape) for shape in self.shapes]

    @cached_property
    def size(self) -> int:
        """The total number D of entries."""
        return sum(self.sizes)

    @cached_property
    def dtype(self) -> torch.dtype:
        """The dtype of flat vectors, to which the dtypes of all parameters promote."""
        dtype = self.dtypes[0]
        for other in self.dtypes[1:]:
            dtype = torch.promote_types(dtype, other)
        return dtype

    def flatten(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Concatenate one tensor per parameter to a flat vector.

        Args:
            tensors: Tensors by parameter name, each of the shape of its parameter.

        Returns:
            A new vector, shape ``(D,)``, in ``dtype``.

        Raises:
            InputError: If the names or a shape differ from those of the space.
        """
        if set(tensors) != set(self.names):
            missing = [n for n in self.names if n not in tensors]
            unexpected = [n for n in tensors if n not in self.names]
            raise InputError(
                "Parameter names differ from the model's: "
                f"missing {missing[:3]}, unexpected {unexpected[:3]}."
            )
        for name, shape in zip(self.names, self.shapes, strict=True):
            if tensors[name].shape != shape:
                raise InputError(
                    f"{name} must have shape {tuple(shape)}, got {tuple(tensors[name].shape)}."
                )
        return torch.cat([tensors[name].reshape(-1).to(self.dtype) for name in self.names])

    def unflatten(self, vector: Tensor) -> dict[str, Tensor]:
        """Split a flat vector into one tensor per parameter.

        Args:
            vector: Shape ``(D,)``.

        Returns:
            Tensors by parameter name: views of ``vector``, or copies if the dtype of a parameter
            differs from that of the vector.

        Raises:
            InputError: If the vector does not have shape ``(D,)``.
        """
        self.check(vector)
        pieces = torch.split(vector, self.sizes)
        return {
            name: piece.view(shape)
            if vector.dtype == dtype
            else piece.view(shape).to(dtype)  # parameters of several dtypes share one vector
            for name, piece, shape, dtype in zip(
                self.names, pieces, self.shapes, self.dtypes, strict=True
            )
        }

    def select(self, chosen: str | Sequence[str]) -> "ParameterSpace":
        """Restrict the space to some of its parameters.

        Args:
            chosen: One or more of: the name of a parameter (``fc.bias``), the name of a module,
                which selects all its parameters (``layer1``), a pattern (``*.conv*.weight``), or
                ``weights``, which selects all parameters except biases and those of norm layers.

        Returns:
            The space of the chosen parameters, in the order of this one.

        Raises:
            InputError: If one of them matches no parameter.
        """
        kept: set[str] = set()
        for pattern in [chosen] if isinstance(chosen, str) else chosen:
            found = {
                name
                for name in self.names
                if name == pattern or name.startswith(f"{pattern}.") or fnmatchcase(name, pattern)
            }
            if not found and pattern == "weights":
                axes = zip(self.names, self.filter_axes, strict=True)
                found = {name for name, axis in axes if axis is not None}
            if not found:
                raise InputError(
                    f"No parameter matches {pattern!r}. Give a layer ({', '.join(self.layers)}), "
                    "a pattern such as '*.weight', or 'weights' for all but biases and norm layers."
                )
            kept |= found
        if not kept:
            raise InputError("parameters must name at least one layer, got none.")
        indices = [index for index, name in enumerate(self.names) if name in kept]
        return ParameterSpace(
            names=tuple(self.names[i] for i in indices),
            shapes=tuple(self.shapes[i] for i in indices),
            dtypes=tuple(self.dtypes[i] for i in indices),
            filter_axes=tuple(self.filter_axes[i] for i in indices),
        )

    def embed(self, vector: Tensor, part: "ParameterSpace") -> Tensor:
        """Extend a vector over some of the parameters with zeros.

        Args:
            vector: Shape ``(d,)``, over the space ``part`` that ``select`` returned.
            part: That space.

        Returns:
            Shape ``(D,)``.
        """
        given = part.unflatten(vector)
        return self.flatten(
            {
                name: given[name] if name in given else vector.new_zeros(shape)
                for name, shape in zip(self.names, self.shapes, strict=True)
            }
        )

    def sums(self, vector: Tensor) -> Tensor:
        """Sum the entries of each parameter.

        Args:
            vector: Shape ``(..., D)``.

        Returns:
            Shape ``(..., P)`` for P parameters, in the order of ``names``.
        """
        return torch.stack([piece.sum(-1) for piece in torch.split(vector, self.sizes, -1)], -1)

    @cached_property
    def layers(self) -> dict[str, tuple[str, ...]]:
        """The names of the parameters of each layer, in flattening order.

        A layer is a module that has parameters of its own, by its name; a parameter of the model
        itself is a layer by itself. Parts of a parametrized weight belong to the module of the
        weight.
        """
        found: dict[str, list[str]] = {}
        for name in self.names:
            owner = name.partition(".parametrizations.")[0]
            owner = owner if owner != name else name.rpartition(".")[0] or name
            found.setdefault(owner, []).append(name)
        return {layer: tuple(names) for layer, names in found.items()}

    def check(self, vector: Tensor) -> None:
        """Raise ``InputError`` unless ``vector`` has shape ``(D,)``."""
        if vector.shape != (self.size,):
            raise InputError(
                f"A flat vector must have shape ({self.size},), got {tuple(vector.shape)}."
            )
