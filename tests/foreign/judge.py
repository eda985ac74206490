"""What a landscape says about a case, against the truth."""

import math
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from foreign import build
from foreign.reference import Reference
from foreign.watching import collect_warnings, same, state
from mining import Direction, Evaluator, InputError, Landscape, trace

#: Relative errors of loss, gradient, products of the Hessian, of those by central differences, and
#: of those that nothing can be said of. A float64 network of this size rounds at 1e-14; folding,
#: other kernels and sums in another order cost a few digits, and every derivative some more.
#: float32 has nine digits less, and bfloat16 two digits in all.
TOLERANCES = {
    torch.float64: (1e-10, 1e-8, 1e-7, 1e-4, math.inf),
    torch.float32: (2e-4, 2e-3, 2e-2, math.inf, math.inf),
    torch.bfloat16: (0.1, math.inf, math.inf, math.inf, math.inf),
}

#: What a warning must speak of to excuse that a number is not that of plain PyTorch.
EXCUSES = {
    "no mean": r"\bmean\b",
    "stochastic": r"random|stochastic",
}

#: What may be refused, and what the refusal must speak of.
REFUSALS = {
    "in place on inputs": r"in place|something else",
    "shape": r"loss",
    "reduction": r"reduction|mean",
    "types": r"does not take|does not fit|dtype|float|labels|must",
    "stochastic": r"stochastic|random",
    "no derivative": r"derivative|depend|graph|gradient|constant",
    "in place on targets": r"in place|target",
    "in place on outputs": r"in place",
    "no mean": r"mean|examples|batch|not finite|nan",
    "changes parameters": r"in place",
    "ignored targets": r"ignored",
    "class weights": r"class weights",
    "reads the model": r"model|parameters",
    "keeps parameters": r"model|parameters",
}

#: Entries of the parameters up to which the whole Hessian is compared, in every fourth case.
_DENSE = 24


class Fault(NamedTuple):
    """A number or a behaviour that is wrong."""

    kind: str
    detail: str


class Verdict(NamedTuple):
    """What came of a case."""

    outcome: str  # "equal", "refused", "warned"
    faults: list[Fault]
    note: str = ""  # the refusal, or the warning


def judge(seed: int) -> Verdict:
    """Compare what a landscape says about the case of a seed with plain PyTorch."""
    return _Judgement(seed).run()


class _Judgement:
    def __init__(self, seed: int) -> None:
        self.case = build(seed)
        self.reference = Reference(build(seed))
        self.faults: list[Fault] = []
        self.refusals: list[str] = []
        self.excused: list[str] = []
        self.warnings: list[str] = []
        theta = self.reference.theta
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(len(theta), 3, generator=generator, dtype=torch.float64)
        scale = theta.double().norm() / math.sqrt(len(theta)) + 0.05
        self.vectors = (0.5 * scale * noise).to(theta)

    def run(self) -> Verdict:
        with collect_warnings() as self.warnings:
            self._guard("state", lambda: self._unchanged(self._compare))
        if self.faults:
            return Verdict("fault", self.faults)
        if self.refusals:
            return Verdict("refused", [], "; ".join(self.refusals))
        if self.excused:
            return Verdict("warned", [], "; ".join(self.excused))
        return Verdict("equal", [])

    def _fault(self, kind: str, detail: str) -> None:
        self.faults.append(Fault(kind, detail))

    def _guard(self, kind: str, action: Callable[[], Any]) -> Any:
        """Run the library; an InputError is a refusal and any other exception a fault."""
        try:
            return action()
        except InputError as error:
            self._refused(kind, error)
        except Exception as error:
            if f"{type(error).__name__}: {error}".partition("\n")[0] == self.failure:
                self.refusals.append(f"{kind}: {self.failure}")  # as plain PyTorch refuses it
                return None
            if type(error) is ArithmeticError:  # documented, of products that are not finite
                self._refused(kind, error)
                return None
            self._fault(f"{kind}: {type(error).__name__}", str(error).partition("\n")[0])
        return None

    def _refused(self, kind: str, error: Exception) -> None:
        message = str(error)
        allowed = [p for trait, p in REFUSALS.items() if trait in self.case.traits]
        if self.truth_failed or self.undefined or any(re.search(p, message) for p in allowed):
            self.refusals.append(f"{kind}: {message}")
        else:
            self._fault(f"{kind} refused", message)

    def _true(self, what: Callable[[], Tensor]) -> Tensor | None:
        """The truth, ``None`` where plain PyTorch has none."""
        try:
            with torch.random.fork_rng():
                torch.manual_seed(0)
                return what()
        except Exception as error:
            self.failure = f"{type(error).__name__}: {error}".partition("\n")[0]
            return None

    truth_failed, undefined, failure = False, False, ""

    def _compare(self) -> None:
        case, reference = self.case, self.reference
        theta = reference.theta
        points = [theta, theta + 0.2 * self.vectors[:, 0], theta + self.vectors[:, 1]]
        truths = [self._true(lambda p=p: _number(reference.loss(p))) for p in points]
        self.truth_failed = any(truth is None for truth in truths)
        self.undefined = not all(truth is None or truth.isfinite() for truth in truths)
        made: Landscape | None = self._guard(
            "landscape",
            lambda: Landscape(case.model, case.loss_fn, case.data.loader, batchnorm=case.batchnorm),
        )
        if made is None:
            return
        if "shape" in case.traits:
            self._fault("a loss of wrong shape is taken", case.text)
            return
        if self.truth_failed:
            losses = [self._guard("loss", lambda p=point: made.loss(p)) for point in points]
            if not self.faults and any(loss is not None for loss in losses):
                self._fault("a number where plain PyTorch fails", self.failure)
            return
        if list(made.space.names) != reference.names:
            self._fault("names", f"{made.space.names} for {reference.names}")
            return
        for number, (point, truth) in enumerate(zip(points, truths, strict=True)):
            loss = self._guard("loss", lambda p=point: made.loss(p))
            self._equal(f"loss at point {number}", loss, truth, 0)
        self._derivatives(made, points[1])
        self._curve(made)

    def _derivatives(self, made: Landscape, point: Tensor) -> None:
        reference = self.reference
        truth = self._true(lambda: reference.gradient(point))
        if truth is not None:
            gradient = self._guard("gradient", lambda: made.gradient(point))
            self._equal("gradient", gradient, truth, 4 if self._kinked(point, truth) else 1)
        dense = len(point) <= _DENSE and self.case.seed % 4 == 0
        vectors = torch.eye(len(point)).to(point) if dense else self.vectors[:, :2]
        truth = self._true(lambda: reference.products(point, vectors))
        if self.case.dtype is torch.bfloat16:
            truth = None
        if truth is None or not truth.isfinite().all():
            return
        with torch.random.fork_rng():
            truth, order = self._checked(point, vectors, truth)
        operator = self._guard("hessian", lambda: made.hessian(point))
        if operator is None:
            return
        self._equal("hessian", self._guard("hessian", lambda: operator @ vectors), truth, order)
        if dense:
            # With a sketch of all D dimensions the trace is exact.
            num = 3 * len(point) + 6
            found = self._guard(
                "trace", lambda: torch.tensor(trace(operator, "hutch++", num_products=num).mean)
            )
            expected = truth.diagonal().sum()
            scale = truth.diagonal().abs().sum()
            self._equal("trace", found, expected, order, float(scale))

    def _kinked(self, point: Tensor, gradient: Tensor) -> bool:
        """Whether the gradient is another one next to the point, at which rounding decides."""
        if self.case.dtype is not torch.float64:
            return False
        step = 1e-12 * self.vectors[:, 0]
        beside = self._true(lambda: self.reference.gradient(point + step))
        return beside is not None and not torch.allclose(beside, gradient, rtol=1e-4, atol=1e-4)

    def _checked(self, point: Tensor, vectors: Tensor, truth: Tensor) -> tuple[Tensor, int]:
        """Take central differences of the gradient where torch's second derivatives are wrong.

        Those of weight norm are. Differences are those of double precision, which the gradients of
        single precision are too coarse for. Where a kink of the loss is near they say too little:
        those of two steps differ then.

        Returns:
            The products, and which of the tolerances is theirs.
        """
        reference = self.reference
        unknown = 3 if "weight norm" in self.case.traits else 2
        if self.case.dtype is not torch.float64:
            reference = Reference.in_double_precision(build(self.case.seed))
        generator = torch.Generator().manual_seed(self.case.seed)
        mixed = torch.randn(vectors.shape[1], 2, generator=generator, dtype=torch.float64)
        at, along = point.double(), vectors.double()
        found = [
            self._true(lambda h=h: reference.differences(at, along @ mixed, h))
            for h in (1e-6, 1e-7)
        ]
        if found[0] is None or found[1] is None:
            return truth, unknown
        size = found[1].norm().clamp(min=1e-3)
        rounding = 1e-3 if self.case.dtype is torch.float64 else 1e-2
        if (found[1] - truth.double() @ mixed).norm() < rounding * size:
            return truth, 2
        if (found[0] - found[1]).norm() < 1e-3 * size:
            order = 3 if self.case.dtype is torch.float64 else 2
            return reference.differences(at, along), order
        return truth, 4

    def _curve(self, made: Landscape) -> None:
        """Evaluate along a direction in different ways."""
        case, reference = self.case, self.reference
        direction = Direction(self.vectors[:, 2].contiguous(), "test")
        alphas = torch.tensor([-0.5, 0.0, 0.5, 1.0], dtype=torch.float64)
        points = [reference.theta + a * direction.vector for a in alphas.tolist()]
        truths = [self._true(lambda p=p: _number(reference.loss(p))) for p in points]
        if any(truth is None for truth in truths):
            return
        truth = torch.stack([truth for truth in truths if truth is not None])
        rounding = TOLERANCES[case.dtype][0]
        options: dict[str, Any] = {"chunk": [None, 1, 3][case.seed % 3], "progress": False}
        kind = "curve"
        if case.seed % 5 == 0 and not reference.mixes_examples:
            options["tolerance"], kind = 0.2, "curve to a tolerance"
        with tempfile.TemporaryDirectory() as folder:
            journal = Path(folder) / "points.csv"

            def evaluate() -> Any:
                return Evaluator(made, journal=journal, **options).curve(direction, alphas)

            curve = self._guard(kind, evaluate)
            if curve is None:
                return
            if curve.loss_error is None or not curve.loss_error.any():
                self._equal(kind, curve.loss, truth, 0)
            elif ((curve.loss - truth).abs() > 6 * curve.loss_error + rounding * truth.abs()).any():
                self._fault(kind, f"{curve.loss} ± {curve.loss_error}, {truth} expected")
            lines = journal.read_text().splitlines(keepends=True)
            journal.write_text("".join(lines[: 1 + len(lines) // 2]) + "3,")
            again = self._guard(f"resumed {kind}", evaluate)
            if again is not None:
                # The same numbers to the last digit but for points evaluated together.
                self._equal(f"resumed {kind}", again.loss, curve.loss, 0)

    def _equal(
        self, kind: str, found: Tensor | None, truth: Tensor | None, order: int, scale: float = 0.0
    ) -> None:
        if found is None or truth is None:
            return
        rounding = TOLERANCES[self.case.dtype][order]
        if self.case.dtype is torch.float32 and "no mean" in self.case.traits:
            rounding *= 10  # gaps between batches that rounding could explain are not seen
        found, truth = found.detach().double(), truth.detach().double()
        scale = max(scale, float(truth.nan_to_num(0, 0, 0).abs().max()), 1e-3)
        if found.shape == truth.shape and torch.allclose(
            found, truth, rtol=0, atol=min(rounding * scale, 1e300), equal_nan=True
        ):
            return
        for trait, pattern in EXCUSES.items():
            named = [message for message in self.warnings if re.search(pattern, message)]
            if trait in self.case.traits and named:
                self.excused.append(f"{kind}: {named[0]}")
                return
        if found.dim() < 2 and found.numel() < 5:
            detail = f"{found.tolist()}, {truth.tolist()} expected"
        else:
            error = (found - truth).norm() / truth.norm().clamp(min=1e-300)
            detail = f"relative error {float(error):.3g}"
        self._fault(kind, detail)

    def _unchanged(self, action: Callable[[], None]) -> None:
        """Run, and see that model, tensors of the user and random state are as they were."""
        case = self.case
        watched = state(case)
        random_state = torch.get_rng_state()
        action()
        if not torch.equal(torch.get_rng_state(), random_state):
            self._fault("global random state", "changed")
            torch.set_rng_state(random_state)
        after = state(case)
        for key, value in watched.items():
            if key not in after or not same(value, after[key]):
                self._fault(f"{key.partition(':')[0]} changed", key)
        for key in after.keys() - watched.keys():
            self._fault(f"{key.partition(':')[0]} appeared", key)


def _number(value: Any) -> Tensor:
    """A loss as a float64 scalar.

    Raises:
        TypeError: If it is none.
    """
    if not isinstance(value, Tensor) or value.shape != () or not value.is_floating_point():
        raise TypeError(f"No loss: {value}")
    return value.detach().double()
