"""Other tensors in place of a model's own, for the time of some forward passes."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from operator import is_
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from mining import InputError

#: Runs a model with what is in it on a batch of inputs.
Forward = Callable[[Any], Tensor]


@dataclass(frozen=True)
class _Slot:
    """One place in which a module keeps a tensor."""

    store: dict[str, Tensor | None]  # the module's parameters or buffers
    key: str
    name: str  # of the tensor: the first of the names under which it is reachable


class Substitution:
    """Puts given tensors into a model and takes them out again.

    Tensors go by the first of the names under which the model reaches them. A tensor that several
    modules share, or a module that occurs twice, is substituted everywhere and restored
    everywhere; ``torch.func.functional_call`` leaves a model with a repeated module displaced.
    What a forward pass writes to attributes of modules is taken out too: the weight that
    ``weight_norm`` computes, counters, kept activations.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model, self._modules = model, list(model.modules())
        self._slots: list[_Slot] = []
        self._stores: list[dict[str, Any]] = []  # of each module
        first_names: dict[int, str] = {}
        for prefix, module in model.named_modules():
            self._stores += [vars(module), module._parameters, module._buffers]
            for store in (module._parameters, module._buffers):
                for key, tensor in store.items():
                    if tensor is not None:
                        name = f"{prefix}.{key}" if prefix else key
                        name = first_names.setdefault(id(tensor), name)
                        self._slots.append(_Slot(store, key, name))

    @contextmanager
    def __call__(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """Use ``tensors`` instead of the model's own of the same names.

        The model's own are back on leaving, also after an exception.

        Raises:
            InputError: If some of the model's parameters would not be substituted.
        """
        self._check()
        own = [dict(store) for store in self._stores]
        try:
            for slot in self._slots:
                if slot.name in tensors:
                    slot.store[slot.key] = tensors[slot.name]
            yield
        finally:
            for store, content in zip(self._stores, own, strict=True):
                if store.keys() != content.keys():
                    store.clear()
                store.update(content)

    def _check(self) -> None:
        if parametrize._cache_enabled:
            raise InputError(
                "Inside torch.nn.utils.parametrize.cached() a model uses the cached weights of "
                "theta at every point: use the landscape outside of cached()."
            )
        modules = list(self._model.modules())
        same = len(modules) == len(self._modules) and all(map(is_, modules, self._modules))
        known = {(id(slot.store), slot.key) for slot in self._slots}
        if not same or any(
            (id(module._parameters), key) not in known
            for module in modules
            for key, parameter in module._parameters.items()
            if parameter is not None
        ):
            raise InputError(
                f"Modules or parameters of {type(self._model).__name__} were replaced after its "
                "landscape was made: make a new Landscape."
            )
