"""The state of Adam and AdamW, matched to the parameters of a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mining import InputError
from mining.landscape import Landscape
from mining.storage.checkpoints import load_optimizer_state

#: What a user can give: a file, the content of one, or the optimizer itself.
Given = str | Path | Mapping[str, Any] | torch.optim.Optimizer
_PREFIXES = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class StepSettings:
    """By what a step of Adam moves one parameter; the names are those of ``torch.optim.Adam``."""

    lr: float  # learning rate
    eps: float  # added to the root of the second moment
    first_correction: float  # 1 - β₁ᵗ after t steps, by which the first moment is divided
    second_correction: float  # 1 - β₂ᵗ, by which the second moment is divided
    decay: float  # decoupled weight decay, that of AdamW


#: Of a parameter that the optimizer never moved.
UNMOVED = StepSettings(lr=0.0, eps=1.0, first_correction=1.0, second_correction=1.0, decay=0.0)


@dataclass(frozen=True, eq=False)
class AdamState:
    """The moments of an Adam or AdamW optimizer over the parameters of a landscape.

    Parameters that the optimizer never moved, for want of a gradient, have moments of zero. The
    second moment of AMSGrad is its running maximum, by which it divides.
    """

    first: Tensor  # (D,) exp_avg
    second: Tensor  # (D,) exp_avg_sq, not negative
    steps: int  # taken by the parameter that was moved most often
    states: tuple[Mapping[str, Any] | None, ...]  # of each parameter, None if it was never moved
    groups: tuple[Mapping[str, Any], ...]  # the parameter group of each parameter

    @classmethod
    def read(cls, given: Given | None, landscape: Landscape) -> "AdamState":
        """Match the state of an optimizer to the parameters of a landscape.

        Parameters are matched by ``param_names``, which an optimizer of
        ``model.named_parameters()`` keeps. Without names they are matched by the order of
        ``model.parameters()``, with or without the frozen ones, which one parameter group has. The
        parameters of an optimizer object are matched by identity if they are those of the model.

        Raises:
            FileNotFoundError: If there is no such file.
            InputError: If it holds no moments, or its parameters do not fit those of the model.
        """
        if given is None:
            raise InputError(
                "direction.state must be given: a file with the state of Adam or AdamW, the "
                "content of one, or the optimizer."
            )
        content = _content(given)
        entries = _match(content, _own_names(given, landscape), landscape)
        space, theta = landscape.space, landscape.theta
        states = tuple(entries[name][0] if name in entries else None for name in space.names)
        _check_kind(content["param_groups"], states)
        for name, shape, state in zip(space.names, space.shapes, states, strict=True):
            if state is not None and state["exp_avg"].shape != shape:
                raise InputError(
                    f"The moments of {name} must have shape {tuple(shape)}, got "
                    f"{tuple(state['exp_avg'].shape)}: they are of another model, or its "
                    "parameters were given to the optimizer in another order. An optimizer of "
                    "model.named_parameters() keeps their names."
                )

        def vector(*keys: str) -> Tensor:
            pieces = {
                name: torch.zeros(shape, dtype=theta.dtype, device=theta.device)
                if state is None
                else next(state[key] for key in keys if key in state).detach().to(theta)
                for name, shape, state in zip(space.names, space.shapes, states, strict=True)
            }
            return space.flatten(pieces)

        empty: Mapping[str, Any] = {}
        return cls(
            first=vector("exp_avg"),
            second=vector("max_exp_avg_sq", "exp_avg_sq"),
            steps=max(int(state["step"]) for state in states if state is not None),
            states=states,
            groups=tuple(entries[n][1] if n in entries else empty for n in space.names),
        )

    def step_settings(self) -> tuple[StepSettings, ...]:
        """Return by what a step moves each parameter, in flattening order.

        Raises:
            InputError: If the optimizer is neither Adam nor AdamW, or its state does not say
                whether its weight decay is decoupled.
        """
        return tuple(
            UNMOVED if state is None else _settings(state, group)
            for state, group in zip(self.states, self.groups, strict=True)
        )


def _check_kind(
    groups: Sequence[Mapping[str, Any]], states: Sequence[Mapping[str, Any] | None]
) -> None:
    """Raise ``InputError`` unless states are of an Adam or AdamW that has taken a step."""
    known = {str(key) for part in (*groups, *states) for key in (part or {})} - {"params"}
    moments = {"exp_avg", "exp_avg_sq", "step"}
    if "betas" not in known or not all(s is None or moments <= set(s) for s in states):
        raise InputError(
            "adam_moments needs the state of Adam or AdamW, with betas, exp_avg and exp_avg_sq, "
            f"got one with {', '.join(sorted(known))}: train with train.optimizer=adam or adamw."
        )
    if not any(states):
        raise InputError(
            "The optimizer has not taken a step, so it has no moments: take a later epoch."
        )


def _settings(state: Mapping[str, Any], group: Mapping[str, Any]) -> StepSettings:
    # NAdam and RAdam have the same moments and other rules; neither knows AMSGrad.
    if not {"lr", "betas", "eps", "amsgrad", "weight_decay"} <= set(group):
        raise InputError(
            "adameq needs the parameter groups of Adam or AdamW, with lr, betas, eps, amsgrad and "
            f"weight_decay, got {', '.join(map(str, group))}."
        )
    decay, decoupled = float(group["weight_decay"]), group.get("decoupled_weight_decay")
    if decay and decoupled is None:
        raise InputError(
            "adameq: the state does not say whether its weight decay is decoupled, as that of "
            "AdamW: set decoupled_weight_decay to true or false in its param_groups."
        )
    step = int(state["step"])
    first, second = (1 - float(beta) ** step for beta in group["betas"])
    return StepSettings(
        float(group["lr"]), float(group["eps"]), first, second, decay if decoupled else 0.0
    )


def _content(given: Given) -> Mapping[str, Any]:
    """Return ``state`` and ``param_groups``."""
    if isinstance(given, torch.optim.Optimizer):
        return given.state_dict()
    if isinstance(given, Mapping):
        if not {"state", "param_groups"} <= set(given):
            raise InputError(
                "direction.state must be what optimizer.state_dict() returns, got a mapping with "
                f"{', '.join(map(str, list(given)[:3]))}."
            )
        return given
    return load_optimizer_state(given)


def _own_names(given: Given, landscape: Landscape) -> list[str] | None:
    """Name the parameters of an optimizer object that are those of the model, in its order."""
    if not isinstance(given, torch.optim.Optimizer):
        return None
    names = {id(p): name for name, p in landscape.model.named_parameters()}
    own = [names.get(id(p)) for group in given.param_groups for p in group["params"]]
    found = [name for name in own if name is not None]
    return found if len(found) == len(own) else None


def _match(
    content: Mapping[str, Any], own: Sequence[str] | None, landscape: Landscape
) -> dict[str, tuple[Mapping[str, Any] | None, Mapping[str, Any]]]:
    """Give the state and the group of each parameter by its name; no state if it has none."""
    groups: Sequence[Mapping[str, Any]] = content["param_groups"]
    of_each = [(number, group) for group in groups for number in group["params"]]
    names = own or _names(groups, len(of_each), landscape)
    known = [name for name, _ in landscape.model.named_parameters()]
    foreign = [name for name in names if name not in known]
    if foreign:
        raise InputError(
            f"The optimizer is of other parameters: {', '.join(foreign[:3])} …; the model has "
            f"{', '.join(known[:3])} …"
        )
    states = content["state"]
    return {
        name: (states.get(number) or None, group)
        for name, (number, group) in zip(names, of_each, strict=True)
    }


def _names(groups: Sequence[Mapping[str, Any]], num: int, landscape: Landscape) -> list[str]:
    """Name the parameters of a state, by the names in it or by their order."""
    if all("param_names" in group for group in groups):
        names = [str(name) for group in groups for name in group["param_names"]]
        for prefix in _PREFIXES:
            if all(name.startswith(prefix) for name in names):
                names = [name.removeprefix(prefix) for name in names]
        return names
    if len(groups) > 1:
        raise InputError(
            f"The state has {len(groups)} parameter groups and no names, so the order of its "
            "parameters is not that of the model: make the optimizer of "
            "model.named_parameters(), whose state keeps the names."
        )
    known = [name for name, _ in landscape.model.named_parameters()]
    trainable = list(landscape.space.names)
    for names in (known, trainable):
        if len(names) == num:
            return names
    raise InputError(
        f"The optimizer is of {num} parameters; the model has {len(known)}, of which "
        f"{len(trainable)} are trainable."
    )
