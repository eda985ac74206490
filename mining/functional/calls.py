"""Calls of torch functions, watched or replaced."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

from torch.overrides import TorchFunctionMode

TorchFunction = Callable[..., Any]


class CallMode(TorchFunctionMode, ABC):
    """Watches or replaces the torch functions that are called in its context."""

    def __torch_function__(
        self,
        function: TorchFunction,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Let ``call`` decide."""
        return self.call(function, args, kwargs or {})

    @abstractmethod
    def call(self, function: TorchFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Return ``function(*args, **kwargs)``, or what takes its place."""
