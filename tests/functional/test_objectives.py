"""Losses that a model or a function computes itself, against plain PyTorch in float64."""

import math

import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F  # noqa: N812  (the name under which everybody knows it)

from mining import Direction, Evaluator, InputError, Landscape, eigenpairs, make_dense, trace
from mining.functional.execution_plan import ExecutionPlan

transformers = pytest.importorskip("transformers")

EXACT = {"rtol": 1e-10, "atol": 1e-12}
# transformers computes the loss of a language model in float32, whatever the model is.
FLOAT32 = {"rtol": 1e-5, "atol": 1e-6}


def bert() -> tuple[nn.Module, list]:
    config = transformers.BertConfig(
        vocab_size=11,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=8,
        num_labels=3,
        pad_token_id=None,  # whose gradient plain PyTorch drops
    )
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(config).double()
    batches = []
    for size in (5, 5, 2):
        mask = torch.ones(size, 6).long()
        mask[0, 4:] = 0
        batch = {
            "input_ids": torch.randint(11, (size, 6)),
            "attention_mask": mask,
            "labels": torch.randint(3, (size,)),
        }
        batches.append(transformers.BatchEncoding(batch))
    return model, batches


def llama() -> tuple[nn.Module, list]:
    config = transformers.LlamaConfig(
        vocab_size=11,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=8,
        max_position_embeddings=8,
        tie_word_embeddings=True,
    )
    torch.manual_seed(1)
    model = transformers.LlamaForCausalLM(config).double()
    batches = []
    for size in (4, 3):
        tokens = torch.randint(11, (size, 6))
        labels = tokens.clone()
        labels[0, 3:] = -100  # so that batches have unequal shares of tokens
        batches.append({"input_ids": tokens, "labels": labels})
    return model, batches


def own_loss(model: nn.Module, batch: dict) -> Tensor:
    return model(**batch).loss


def num_tokens(batch: dict) -> Tensor:
    return (batch["labels"][:, 1:] != -100).sum()


def pinn() -> tuple[nn.Module, list]:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Linear(1, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    # Points inside and, fewer of them, at the boundary: examples cannot be told apart.
    inside = torch.linspace(-1, 1, 9).double()[:, None]
    return model, [(inside, torch.tensor([[-1.0], [1.0]]).double())]


def poisson(model: nn.Module, batch: tuple) -> Tensor:
    """u'' = sin(x) with u = 0 at the ends."""
    inside, ends = batch
    x = inside.clone().requires_grad_()
    u = model(x)
    (slope,) = torch.autograd.grad(u.sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x, create_graph=True)
    return (curvature - x.sin()).square().mean() + model(ends).square().mean()


def autoencoder() -> tuple[nn.Module, list]:
    torch.manual_seed(3)
    model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 4)).double()
    return model, [torch.randn(7, 4).double(), torch.randn(5, 4).double()]


def reconstruction(model: nn.Module, batch: Tensor) -> Tensor:
    return F.mse_loss(model(batch), batch)


CASES = {
    "BERT": (bert, own_loss, None),
    "Llama": (llama, own_loss, num_tokens),
    "PINN": (pinn, poisson, None),
    "autoencoder": (autoencoder, reconstruction, None),
}


@pytest.fixture(params=CASES)
def case(request):
    make, objective, weight = CASES[request.param]
    model, batches = make()
    return request.param, model, objective, batches, weight


def plain(model, objective, batches, weight):
    """The loss as a function of the flat parameters, by functional_call."""
    model.eval()
    names = [name for name, _ in model.named_parameters()]
    shapes = [p.shape for _, p in model.named_parameters()]
    if weight is None:
        first = [
            b if isinstance(b, Tensor) else b["labels"] if hasattr(b, "keys") else b[0]
            for b in batches
        ]
        weights = [float(len(tensor)) for tensor in first]
    else:
        weights = [float(weight(batch)) for batch in batches]

    class Call(nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, batch):
            return objective(self.model, batch)

    call = Call()

    def loss(theta: Tensor) -> Tensor:
        pieces = torch.split(theta, [math.prod(shape) for shape in shapes])
        values = {f"model.{n}": p.view(s) for n, p, s in zip(names, pieces, shapes, strict=True)}
        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            losses = [functional_call(call, values, (batch,)) for batch in batches]
        return sum(w * x for w, x in zip(weights, losses, strict=True)) / sum(weights)

    return loss


def make(case) -> tuple[Landscape, object]:
    _, model, objective, batches, weight = case
    of = Landscape(model, objective=objective, batches=batches, weight=weight)
    return of, plain(model, objective, batches, weight)


def directions(of: Landscape) -> list[Direction]:
    generator = torch.Generator().manual_seed(0)
    return [
        Direction(torch.randn(of.space.size, generator=generator).double() / 10, name)
        for name in "xy"
    ]


def test_curve_and_surface(case):
    of, loss = make(case)
    tolerance = FLOAT32 if case[0] == "Llama" else EXACT
    assert not of.scores_classes
    x, y = directions(of)
    curve = Evaluator(of, progress=False).curve(x, torch.linspace(-1, 1, 3))
    expected = [loss(of.theta + a * x.vector).item() for a in curve.alphas.tolist()]
    torch.testing.assert_close(curve.loss, torch.tensor(expected, dtype=torch.float64), **tolerance)
    assert curve.accuracy is None
    axis = torch.linspace(-1, 1, 3)
    surface = Evaluator(of, progress=False).surface(x, y, axis, axis)
    corner = float(loss(of.theta - x.vector + y.vector))
    assert float(surface.loss[0, 2]) == pytest.approx(corner, rel=tolerance["rtol"])


def test_gradient_and_products_with_the_hessian(case):
    of, loss = make(case)
    theta = of.theta.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(theta), theta, create_graph=True)
    torch.testing.assert_close(of.gradient(), gradient.detach(), rtol=1e-8, atol=1e-11)
    x, _ = directions(of)
    (product,) = torch.autograd.grad(gradient @ x.vector, theta)
    torch.testing.assert_close(of.hessian() @ x.vector, product, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("name", ["PINN", "autoencoder"])
def test_eigenpairs_and_trace_are_those_of_the_dense_hessian(name):
    make_case, objective, weight = CASES[name]
    of, loss = make((name, *(lambda m: (m[0], objective, m[1]))(make_case()), weight))
    dense = torch.autograd.functional.hessian(loss, of.theta)
    torch.testing.assert_close(make_dense(of.hessian()), dense, rtol=1e-9, atol=1e-10)
    expected = torch.linalg.eigvalsh(dense).flip(0)[:2]
    found = eigenpairs(of.hessian(), 2, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found.values, expected, rtol=1e-5, atol=1e-8)
    estimate = trace(of.hessian(), generator=torch.Generator().manual_seed(0))
    error = max(4 * estimate.standard_error, 1e-8)
    assert estimate.mean == pytest.approx(float(dense.trace()), abs=error)


@pytest.mark.parametrize(
    ("name", "block"), [("BERT", "classifier.weight"), ("Llama", "model.norm.weight")]
)
def test_eigenpairs_and_trace_of_transformers(name, block):
    make_case, objective, weight = CASES[name]
    model, batches = make_case()
    of, loss = make((name, model, objective, batches, weight))
    theta = of.theta.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(theta), theta, create_graph=True)

    def multiply(vector: np.ndarray) -> np.ndarray:
        along = torch.from_numpy(vector.ravel().copy())
        return torch.autograd.grad(gradient @ along, theta, retain_graph=True)[0].numpy()

    plain_hessian = LinearOperator((len(theta),) * 2, matvec=multiply, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(len(theta))
    expected = np.sort(eigsh(plain_hessian, 2, which="LA", tol=1e-6, v0=start)[0])[::-1]
    found = eigenpairs(of.hessian(), 2, generator=torch.Generator().manual_seed(0))
    # The error of an eigenvalue is the square of its vector's, which is 1e-3 at most.
    np.testing.assert_allclose(found.values, expected, rtol=1e-5)
    chosen = torch.zeros_like(of.theta)
    of.space.unflatten(chosen)[block].fill_(1)
    slopes = [gradient[i] for i in chosen.nonzero().flatten().tolist()]
    rows = [torch.autograd.grad(slope, theta, retain_graph=True)[0] for slope in slopes]
    exact = sum(float(row[i]) for row, i in zip(rows, chosen.nonzero().flatten(), strict=True))
    operator = of.hessian(parameters=block)
    num = 3 * len(slopes) + 6  # with a sketch of the whole block the trace is exact
    estimate = trace(operator, "hutch++", num_products=num)
    assert estimate.mean == pytest.approx(exact, rel=1e-6, abs=1e-10)


def test_what_needs_outputs_is_refused_with_a_reason(case):
    of, _ = make(case)
    with pytest.raises(InputError, match="needs outputs"):
        of.gauss_newton()
    with pytest.raises(InputError, match="single examples"):
        Evaluator(of, tolerance=0.1)
    assert of.describe()["plan"]["why_not_faster"]
    assert "examples" in str(of)
    assert of.fingerprint() == make(case)[0].fingerprint()


def test_micro_batches_samples_and_mini_batches(case):
    name = case[0]
    of, _ = make(case)
    rel = 1e-6 if name == "Llama" else 1e-10
    if name == "PINN":
        for refused in (
            lambda: of.sample(2, torch.Generator()),
            lambda: of.mini_batches(2),
            lambda: of.hessian(micro_batch=2),
        ):
            with pytest.raises(InputError, match="told apart"):
                refused()
        return
    x, _ = directions(of)
    torch.testing.assert_close(
        of.hessian(micro_batch=2) @ x.vector, of.hessian() @ x.vector, rtol=1e-8, atol=1e-10
    )
    everything = of.sample(of.num_examples, torch.Generator().manual_seed(0))
    expected = float(of.loss(of.theta))
    assert float(of.evaluate(of.theta, everything).loss) == pytest.approx(expected, rel=rel)
    cut = Landscape(
        case[1], objective=case[2], batches=case[3], weight=case[4], plan=ExecutionPlan(2)
    )
    assert float(cut.loss(cut.theta)) == pytest.approx(expected, rel=rel)
    batches = of.mini_batches(of.num_examples)
    (on_all,) = batches.shuffled(torch.Generator().manual_seed(0))
    value, gradient = on_all(of.theta)
    assert float(value) == pytest.approx(expected, rel=rel)
    torch.testing.assert_close(gradient, of.gradient(), rtol=1e-8, atol=1e-10)


def test_tokens_that_are_no_examples_are_warned_of(caplog):
    model, batches = llama()
    of = Landscape(model, objective=own_loss, batches=batches)
    assert of.averaging is not None
    assert "weight=" in caplog.text
    assert (
        Landscape(model, objective=own_loss, batches=batches, weight=num_tokens).averaging is None
    )


@pytest.mark.parametrize("policy", ["recalibrate", "frozen", "batch"])
def test_batch_norm_under_an_objective_is_that_of_a_loss_function(policy):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 3)).double()
    pairs = [(torch.randn(n, 4).double(), torch.randint(3, (n,))) for n in (12, 12, 7)]
    expected = Landscape(model, nn.CrossEntropyLoss(), pairs, batchnorm=policy)
    found = Landscape(
        model,
        objective=lambda model, batch: F.cross_entropy(model(batch["x"]), batch["y"]),
        batches=[{"x": x, "y": y} for x, y in pairs],
        batchnorm=policy,
    )
    point = expected.theta + 0.1
    assert float(found.loss(point)) == pytest.approx(float(expected.loss(point)), rel=1e-12)
    torch.testing.assert_close(found.gradient(point), expected.gradient(point), **EXACT)
    before = {n: b.clone() for n, b in model.named_buffers()}
    found.loss(point)
    assert all(torch.equal(b, before[n]) for n, b in model.named_buffers())


def test_a_stochastic_objective_repeats():
    model, batches = autoencoder()

    def noisy(model: nn.Module, batch: Tensor) -> Tensor:
        return F.mse_loss(model(batch + torch.randn_like(batch)), batch)

    of = Landscape(model, objective=noisy, batches=batches)
    assert torch.equal(of.loss(of.theta), of.loss(of.theta))
    with pytest.raises(InputError, match="stochastic"):
        of.hessian()


def test_a_policy_gradient():
    torch.manual_seed(0)
    policy = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 2)).double()
    batch = {
        "states": torch.randn(8, 3).double(),
        "actions": torch.randint(2, (8,)),
        "returns": torch.randn(8).double(),
        "discount": 0.9,
    }

    def reinforce(model: nn.Module, batch: dict) -> Tensor:
        chosen = model(batch["states"]).log_softmax(1).gather(1, batch["actions"][:, None])[:, 0]
        return -(batch["discount"] * batch["returns"] * chosen).mean()

    of = Landscape(policy, objective=reinforce, batches=[batch])
    assert float(of.loss(of.theta)) == pytest.approx(float(reinforce(policy, batch)), rel=1e-12)
    torch.testing.assert_close(
        of.gradient(),
        torch.cat(
            [
                g.flatten()
                for g in torch.autograd.grad(reinforce(policy, batch), list(policy.parameters()))
            ]
        ),
        **EXACT,
    )


def test_a_second_set_and_a_journal(tmp_path):
    model, batches = bert()
    x, _ = directions(Landscape(model, objective=own_loss, batches=batches))
    of = Landscape(model, objective=own_loss, batches=batches[:2])
    evaluator = Evaluator(of, test=batches[2:], journal=tmp_path / "curve", progress=False)
    curve = evaluator.curve(x, torch.linspace(-1, 1, 3))
    last = plain(model, own_loss, batches[2:], None)
    assert float(curve.loss_test[0]) == pytest.approx(float(last(of.theta - x.vector)), rel=1e-10)
    again = evaluator.curve(x, torch.linspace(-1, 1, 3))
    assert torch.equal(again.loss, curve.loss)
    assert torch.equal(again.loss_test, curve.loss_test)


def test_bad_calls_are_named():
    model, batches = autoencoder()
    with pytest.raises(InputError, match="either loss_fn and loader"):
        Landscape(model, nn.MSELoss())
    with pytest.raises(InputError, match="either loss_fn and loader"):
        Landscape(model, nn.MSELoss(), batches, objective=reconstruction, batches=batches)
    with pytest.raises(InputError, match="objective must return a tensor"):
        Landscape(model, objective=lambda m, b: 1.0, batches=batches)
    with pytest.raises(InputError, match=r"shape \(\), got \(7, 4\)"):
        Landscape(model, objective=lambda m, b: m(b), batches=batches)
    with pytest.raises(InputError, match="compile=true"):
        Landscape(model, objective=reconstruction, batches=batches, compile=True)
    with pytest.raises(InputError, match="at least one tensor"):
        Landscape(model, objective=reconstruction, batches=[{"x": 1.0}])
