"""Loss, gradient and Hessian in plain PyTorch: parameters copied into the model, plain loops."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.instancenorm import _InstanceNorm

from foreign import Case
from foreign.loaders import Pair


class Reference:
    """The truth about a case, which must be a copy that nothing else uses.

    The loss is that of all outputs at once: of torch's own losses this is the mean over the
    examples whatever the class weights, of weight decay it is counted once.

    Args:
        case: The case.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.parameters = [p for p in case.model.parameters() if p.requires_grad]
        self.names = [n for n, p in case.model.named_parameters() if p.requires_grad]
        self.theta = torch.cat([p.detach().reshape(-1) for p in self.parameters])
        self._buffers = {name: b.clone() for name, b in case.model.named_buffers()}
        self._constants = [p.detach().clone() for p in case.model.parameters()]
        for module in case.model.modules():
            if isinstance(module, nn.Embedding):
                module.padding_idx = None  # which leaves a term of the gradient out
            if isinstance(module, _InstanceNorm):
                # Of a single example, torch's gradient is wrong for one with channels last.
                module.register_forward_hook(
                    lambda module, inputs, output: _Contiguous.apply(output)
                )
        self.pairs: list[Pair] = [(x.detach().clone(), y.clone()) for x, y in case.data.pairs]
        self._arrange()

    @classmethod
    def in_double_precision(cls, case: Case) -> "Reference":
        """Make the reference of a case in single precision that computes in double precision."""
        case.model.double()
        if isinstance(case.loss_fn, nn.Module):
            case.loss_fn.double()
        made = cls(case)
        made.pairs = [
            (x.double() if x.is_floating_point() else x, y.double() if y.is_floating_point() else y)
            for x, y in made.pairs
        ]
        made.recalibration = [
            x.double() if x.is_floating_point() else x for x in made.recalibration
        ]
        return made

    def _arrange(self) -> None:
        """Arrange batches as the documentation says."""
        pairs = self.pairs
        if len(pairs) > 1 and len(pairs[-1][0]) == 1:
            last = [pairs.pop(-2), pairs.pop()]
            pairs.append(tuple(torch.cat(parts) for parts in zip(*last, strict=True)))
        sizes = [len(x) for x, _ in pairs]
        inputs, targets = (torch.cat(parts) for parts in zip(*pairs, strict=True))
        order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
        if self.mixes_examples:
            self.pairs = [(inputs[chosen], targets[chosen]) for chosen in order.split(sizes)]
            inputs = inputs[order]  # for recalibration they are dealt out anew
        largest = max(32, min(125, max(sizes)))
        self.recalibration = [
            inputs[chosen] for chosen in order.tensor_split(-(-len(inputs) // largest))
        ]

    @property
    def mixes_examples(self) -> bool:
        """Whether examples are normalized by their batch."""
        layers = [m for m in self.case.model.modules() if isinstance(m, _BatchNorm)]
        batch = self.case.batchnorm == "batch"
        return any(batch or layer.running_mean is None for layer in layers)

    def loss(self, theta: Tensor, statistics_at: Tensor | None = None) -> Tensor:
        """The loss at a point, with a graph to ``parameters``, shape ``()``.

        Args:
            theta: The point, shape ``(D,)``.
            statistics_at: Where running statistics are estimated, by default there.
        """
        found = self._outputs(theta, theta if statistics_at is None else statistics_at)
        outputs, targets = zip(*found, strict=True)
        return self.case.loss_fn(torch.cat(outputs), torch.cat(targets))

    def mean_of_batches(self, theta: Tensor) -> Tensor:
        """The losses of the batches, weighted by the number of their examples."""
        found = [
            (self.case.loss_fn(outputs, targets).double(), len(targets))
            for outputs, targets in self._outputs(theta, theta)
        ]
        return sum(loss * num for loss, num in found) / sum(num for _, num in found)

    def gradient(self, theta: Tensor, statistics_at: Tensor | None = None) -> Tensor:
        """Shape ``(D,)``."""
        loss = self.loss(theta, statistics_at)
        return _flat(_derivatives(loss, self.parameters)).detach()

    def differences(self, theta: Tensor, vectors: Tensor, step: float = 1e-6) -> Tensor:
        """Products of the Hessian by central differences of the gradient, shape ``(D, K)``."""
        columns = [
            self.gradient(theta + step * v, theta) - self.gradient(theta - step * v, theta)
            for v in vectors.T
        ]
        return torch.stack(columns, 1) / (2 * step)

    def products(self, theta: Tensor, vectors: Tensor) -> Tensor:
        """Products of the Hessian with the columns of ``vectors``, shape ``(D, K)``."""
        with sdpa_kernel(SDPBackend.MATH):
            loss = self.loss(theta)
            slope = _flat(_derivatives(loss, self.parameters, create_graph=True))
        columns = [
            _flat(_derivatives(slope @ vector.to(slope), self.parameters, retain_graph=True))
            for vector in vectors.T
        ]
        return torch.stack(columns, 1).detach()

    def _outputs(self, theta: Tensor, statistics_at: Tensor) -> list[Pair]:
        model = self.case.model
        model.eval()
        self._set(statistics_at)
        if self.case.batchnorm == "recalibrate":
            self._recalibrate()
            estimated = [(n.running_mean.clone(), n.running_var.clone()) for n in _norms(model)]
            self._set(theta)  # with the buffers of the beginning: a pass may write to them
            for layer, (mean, variance) in zip(_norms(model), estimated, strict=True):
                layer.running_mean.copy_(mean)
                layer.running_var.copy_(variance)
        else:
            self._set(theta)
        for layer in _norms(model) if self.case.batchnorm == "batch" else []:
            layer.train()
        return [(model(x.clone()), y.clone()) for x, y in self.pairs]

    @torch.no_grad()
    def _set(self, theta: Tensor) -> None:
        """Put parameters into the model, and the buffers that it had."""
        model = self.case.model
        for parameter, value in zip(model.parameters(), self._constants, strict=True):
            parameter.copy_(value)
        pieces = theta.split([p.numel() for p in self.parameters])
        for parameter, piece in zip(self.parameters, pieces, strict=True):
            parameter.copy_(piece.view_as(parameter))
        for name, buffer in model.named_buffers():
            buffer.copy_(self._buffers[name])

    @torch.no_grad()
    def _recalibrate(self) -> None:
        """Set running statistics to the mean of those of the batches, weighted by their size."""
        layers = _norms(self.case.model)
        seen: dict[nn.Module, list[tuple[int, Tensor, Tensor]]] = {layer: [] for layer in layers}

        def note(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
            (x,) = args
            if isinstance(layer, _BatchNorm):
                rows = x.transpose(0, 1).flatten(1)  # (C, …)
                mean, variance = rows.mean(1), rows.var(1)
            else:  # of every instance its own
                rows = x.flatten(2)
                mean, variance = rows.mean(2).mean(0), rows.var(2).mean(0)
            seen[layer].append((len(x), mean, variance))

        hooks = [layer.register_forward_pre_hook(note) for layer in layers]
        for layer in layers:
            layer.train()
        for x in self.recalibration:
            self.case.model(x.clone())
        for hook in hooks:
            hook.remove()
        for layer, found in seen.items():
            layer.eval()
            total = sum(num for num, *_ in found)
            if total:
                layer.running_mean.copy_(sum(n * mean for n, mean, _ in found) / total)
                layer.running_var.copy_(sum(n * var for n, _, var in found) / total)


class _Contiguous(Function):
    """The identity, whose gradient is contiguous."""

    @staticmethod
    def forward(ctx: Any, output: Tensor) -> Tensor:
        return output.clone()

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> Tensor:
        return cotangent.contiguous()


def _norms(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if isinstance(m, _NormBase) and m.running_mean is not None]


def _derivatives(value: Tensor, parameters: Sequence[Tensor], **options: Any) -> list[Tensor]:
    if not value.requires_grad:
        return [torch.zeros_like(p) for p in parameters]
    found = torch.autograd.grad(value, parameters, allow_unused=True, **options)
    return [
        torch.zeros_like(p) if g is None else g.to_dense() if g.is_sparse else g
        for p, g in zip(parameters, found, strict=True)
    ]


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.reshape(-1) for tensor in tensors])
