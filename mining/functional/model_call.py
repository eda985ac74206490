"""How a model is called on a batch, and what it must return."""

from collections.abc import Callable, Mapping
from inspect import Parameter, signature
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mining import InputError
from mining.functional.pytrees import map_tensors, num_examples, tensors_of

#: Maps a model and a batch to the loss, shape ``()``.
Objective = Callable[[Any, Any], Tensor]


class OutputsError(InputError):
    """The model returned something else than a tensor."""


class ModelCall:
    """Calls a model on inputs; or an objective, which calls it itself, on a batch.

    A tensor is the argument of the model. So is any other structure, except that a mapping is
    passed by names if ``forward`` has a parameter for each of its keys, and a tuple or list as
    several arguments if ``forward`` requires more than one.

    Args:
        model: The model.
        objective: Maps model and batch to the loss; ``None`` for outputs.
    """

    def __init__(self, model: nn.Module, objective: Objective | None = None) -> None:
        self.model, self.objective = model, objective
        #: Whether it works in place on its inputs, and so is given copies.
        self.changes_inputs = False
        #: Whether ``logits`` stand for outputs that are no tensor.
        self.takes_logits = False

    @property
    def name(self) -> str:
        """What is called."""
        called = self.model if self.objective is None else self.objective
        return str(getattr(called, "__name__", type(called).__name__))

    def run(self, inputs: Any) -> Tensor:
        """Call model or objective with what is in the model now.

        Raises:
            OutputsError: If the model returns anything but a tensor.
            InputError: If the objective does not return a tensor of shape ``()``.
        """
        if self.objective is not None:
            return _only_scalar(self.objective(self.model, inputs))
        outputs = call_model(self.model, inputs)
        if self.takes_logits and not isinstance(outputs, Tensor):
            outputs = getattr(outputs, "logits", outputs)
        if not isinstance(outputs, Tensor):
            raise OutputsError(
                f"The model must return a tensor, got {type(outputs).__name__}. Wrap it so that "
                "it does, give a loss_fn that takes what it returns, or give objective="
                "FUNCTION(model, batch), the loss itself."
            )
        return outputs

    def __call__(self, inputs: Any) -> Tensor:
        """Do as ``run``, and see that the inputs stay what they were.

        Raises:
            InputError: If they change, or a batch norm cannot take the batch.
        """
        if self.changes_inputs:
            inputs = copy_of(inputs)
        elif isinstance(inputs, Tensor):
            inputs = _another(inputs)
        else:
            inputs = map_tensors(_another, inputs)
        versions = versions_of(inputs)
        try:
            outputs = self.run(inputs)
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise InputError(
                "Batch norm cannot use the statistics of a batch of "
                f"{num_examples(inputs)}, which has no variance ({error}): use batches of two "
                "examples or more."
            ) from error
        if not self.changes_inputs and versions_of(inputs) != versions:
            raise InputError(
                f"{type(self.model).__name__} changed its inputs in place, which it did not do "
                "when the landscape was made: the examples are overwritten. Let it use a copy."
            )
        return outputs

    def run_on_copy(self, inputs: Any) -> tuple[Tensor, bool]:
        """Do as ``run`` on a copy, and tell whether the copy was changed."""
        given = copy_of(inputs)
        versions = versions_of(given)
        outputs = self.run(given)
        pairs = zip(tensors_of(given), tensors_of(inputs), strict=True)
        same = versions_of(given) == versions and all(torch.equal(a, b) for a, b in pairs)
        return outputs, not same


def call_model(model: nn.Module, inputs: Any) -> Any:
    """Give what a model returns for a tensor or another structure; see ``ModelCall``."""
    how = "one" if isinstance(inputs, Tensor) else _passing(model, inputs)
    if how == "named":
        return model(**inputs)
    return model(*inputs) if how == "several" else model(inputs)


def _another(inputs: Tensor) -> Tensor:
    """Give another tensor of the same content: a model may ask for derivatives by it."""
    return inputs if inputs.requires_grad else inputs.detach()


def copy_of(inputs: Any) -> Any:
    """Copy inputs; with gradients recorded, those of the copy go on to the inputs."""

    def copied(tensor: Tensor) -> Tensor:
        clone = tensor.clone()
        return clone.requires_grad_() if tensor.requires_grad else clone

    return map_tensors(copied, inputs)


def versions_of(tree: Any) -> list[int]:
    """Tell how often each tensor was changed in place."""
    if isinstance(tree, Tensor):
        return [tree._version]
    return [tensor._version for tensor in tensors_of(tree)]


def _only_scalar(loss: object) -> Tensor:
    if not isinstance(loss, Tensor):
        raise InputError(
            f"objective must return a tensor of shape (), got {type(loss).__name__}: the mean loss "
            "of the batch itself, without .item() or float()."
        )
    if loss.shape != ():
        raise InputError(
            f"objective must return the mean loss of the batch, shape (), got {tuple(loss.shape)}."
        )
    return loss


def _passing(model: nn.Module, inputs: Any) -> Literal["one", "several", "named"]:
    """Tell how a model takes a structure; see ``ModelCall``."""
    parameters = signature(model.forward).parameters.values()
    kinds = {parameter.kind for parameter in parameters}
    places = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    required = {p.name for p in parameters if p.kind in places and p.default is Parameter.empty}
    if isinstance(inputs, Mapping):
        names = {p.name for p in parameters if p.kind is not Parameter.POSITIONAL_ONLY}
        fits = Parameter.VAR_KEYWORD in kinds or names.issuperset(inputs)
        return "named" if fits and required.issubset(inputs) else "one"
    if isinstance(inputs, tuple | list):
        anything = Parameter.VAR_POSITIONAL in kinds and not required
        return "several" if len(required) > 1 or anything else "one"
    return "one"
