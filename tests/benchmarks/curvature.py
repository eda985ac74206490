"""Curvature beside PyHessian and curvlinops: answers, products and seconds."""

from dataclasses import replace
from typing import Any

import torch
from benchmarks.peers import Curvlinops, PyHessian
from benchmarks.timing import alternate, timed
from published import images, resnet20_landscape
from torch import nn

from mining import Landscape, eigenpairs, spectral_density, trace
from mining.models import CifarResNet

Row = dict[str, Any]
TOL = 1e-3


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def product_costs(num_images: int, repeats: int) -> list[Row]:
    """Seconds of one Hessian-vector product in plain gradients of the same examples."""
    landscape = resnet20_landscape(num_images)
    inputs, targets = images(num_images)
    model = landscape.model
    hessian, rebuilt = landscape.hessian(), landscape.hessian(memory=0)
    gauss_newton = landscape.gauss_newton()
    vector = torch.randn(landscape.space.size, generator=generator())
    block = torch.randn(landscape.space.size, 8, generator=generator())
    peers = [PyHessian(model, inputs, targets), Curvlinops(model, inputs, targets)]

    def gradient(size: int = num_images) -> None:
        for x, y in zip(inputs.split(size), targets.split(size), strict=True):
            model.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()

    seconds = alternate(
        {
            "plain eager gradient": gradient,
            "the same in batches of 128": lambda: gradient(128),
            "mining, Hessian": lambda: hessian @ vector,
            "mining, Hessian, nothing kept": lambda: rebuilt @ vector,
            "mining, Hessian, one of a block of 8, nothing kept": lambda: rebuilt @ block,
            "mining, Gauss-Newton": lambda: gauss_newton @ vector,
            **{f"{peer.name}, Hessian": lambda peer=peer: peer.product(vector) for peer in peers},
        },
        repeats,
    )
    seconds["mining, Hessian, one of a block of 8, nothing kept"] /= 8
    unit = seconds["plain eager gradient"]
    exact = hessian @ vector
    errors = {f"{p.name}, Hessian": _difference(p.product(vector), exact) for p in peers}
    peers[0].release()
    return [
        {
            "product": name,
            "seconds": value,
            "gradients": value / unit,
            "differs by": errors.get(name),
        }
        for name, value in seconds.items()
    ]


def blocks(num_images: int, depth: int, repeats: int) -> list[Row]:
    """Seconds of a product of every layer's block: on one graph, on its own, or built anew."""
    torch.manual_seed(0)
    model = CifarResNet((3, 32, 32), 10, depth=depth)
    pair = (torch.randn(num_images, 3, 32, 32), torch.randint(10, (num_images,)))
    landscape = Landscape(model, nn.CrossEntropyLoss(), [pair], batchnorm="frozen")
    layers = landscape.space.layers.values()
    rows = []
    for kind in ("hessian", "gauss_newton"):
        operator = getattr(landscape, kind)()
        shared = [operator.block(names) for names in layers]
        anew = getattr(landscape, kind)(memory=0)
        built = [anew.block(names) for names in layers]

        def multiply(operators: list[Any]) -> None:
            for block in operators:
                block @ torch.ones(block.shape[0])

        seconds = alternate(
            {
                "whole": lambda operator=operator: multiply([operator]),
                "blocks of one graph": lambda shared=shared: multiply(shared),
                "whole, graph built anew": lambda anew=anew: multiply([anew]),
                "blocks, graphs built anew": lambda built=built: multiply(built),
            },
            repeats,
        )
        alone = 0.0
        for names in layers:  # one after the other: the graphs of all would not fit
            block = getattr(landscape, kind)(parameters=names)
            alone += alternate({"": lambda block=block: multiply([block])}, repeats)[""]
        seconds["blocks one at a time"] = alone
        rows += [
            {
                f"ResNet-{depth}, {num_images} images, {len(shared)} layers": f"{kind}, {name}",
                "seconds": value,
                "products of the whole, for each layer": value
                / seconds["whole, graph built anew" if name.endswith("anew") else "whole"]
                / len(shared),
            }
            for name, value in seconds.items()
            if not name.startswith("whole")
        ]
    return rows


def largest_eigenpairs(num_images: int, k: int) -> list[Row]:
    """The k largest eigenpairs; residuals are measured anew with the same operator."""
    landscape = resnet20_landscape(num_images)
    inputs, targets = images(num_images)
    operator = landscape.hessian()
    ours, seconds = timed(lambda: eigenpairs(operator, k, tol=TOL, generator=generator()))
    pyhessian = PyHessian(landscape.model, inputs, targets)
    curvlinops = Curvlinops(landscape.model, inputs, targets)
    scipy, scipy_seconds = timed(
        lambda: eigenpairs(operator, k, method="eigsh", tol=TOL, generator=generator())
    )
    # Less those that check symmetry and residuals, which lanczos does not need.
    scipy = replace(scipy, products=scipy.products - 2 - len(scipy))
    found = {
        "mining, lanczos": (ours, seconds),
        "mining, eigsh of SciPy": (scipy, scipy_seconds),
        "PyHessian, its own tolerance": timed(lambda: pyhessian.largest(k)),
        "curvlinops, eigsh of SciPy": timed(lambda: curvlinops.largest(k, TOL)),
    }
    pyhessian.release()
    rows = []
    for name, (pairs, taken) in found.items():
        values, vectors = pairs.values.float(), pairs.vectors.float()
        residuals = (operator @ vectors - vectors * values).norm(dim=0)
        rows.append(
            {
                "largest eigenpairs": name,
                "values": " ".join(f"{value:.3f}" for value in values.tolist()),
                "residual / largest": float(residuals.max() / ours.values[0]),
                "products": pairs.products,
                "seconds": taken,
            }
        )
    return rows


def both_ends(num_images: int, k: int) -> list[Row]:
    """k pairs on both ends at residual 1e-3 of each eigenvalue, beside SciPy's eigsh."""
    landscape = resnet20_landscape(num_images)
    operator = landscape.hessian()
    rows = []
    for method in ("lanczos", "eigsh"):
        found, seconds = timed(
            lambda method=method: eigenpairs(
                operator, k, "both", method, TOL, generator=generator(), max_products=1000
            )
        )
        rows.append(
            {
                f"{k} pairs on both ends": method,
                "largest": float(found.values[0]),
                "most negative": float(found.values[k]),
                "residual / |eigenvalue|": float((found.residuals / found.values.abs()).max()),
                # Less those that check symmetry and residuals, which lanczos does not need.
                "products": found.products - (2 + len(found)) * (method == "eigsh"),
                "seconds": seconds,
            }
        )
    return rows


def traces(num_images: int, relative_error: float) -> list[Row]:
    """The trace to a relative error, and what others give."""
    landscape = resnet20_landscape(num_images)
    inputs, targets = images(num_images)
    operator = landscape.hessian()
    rows: list[Row] = []
    for method in ("xtrace", "hutch++", "hutchinson"):
        found, seconds = timed(
            lambda method=method: trace(
                operator,
                method,
                generator=generator(),
                relative_error=relative_error,
                num_products=100 if method == "hutchinson" else 400,
            )
        )
        rows.append(_trace_row(f"mining, {method}", found.mean, found.standard_error, seconds))
        rows[-1]["products"] = found.products
    pyhessian = PyHessian(landscape.model, inputs, targets)
    samples, seconds = timed(pyhessian.trace)
    pyhessian.release()
    rows.append(_trace_row("PyHessian, its own rule", float(samples.mean()), None, seconds))
    rows[-1]["products"] = len(samples)
    num = min(40, rows[0]["products"])  # each takes many times as long
    value, seconds = timed(lambda: Curvlinops(landscape.model, inputs, targets).trace(num))
    rows.append(_trace_row("curvlinops, xtrace", value, None, seconds))
    rows[-1]["products"] = num
    return rows


def densities(num_images: int, steps: int, probes: int) -> list[Row]:
    """Traces of H and of its square from spectral densities."""
    landscape = resnet20_landscape(num_images)
    inputs, targets = images(num_images)
    found, seconds = timed(
        lambda: spectral_density(landscape.hessian(), steps, probes, generator=generator())
    )
    first, second = found.moment(1), found.moment(2)
    rows = [
        {
            "density": "mining",
            "trace": first.mean,
            "± ": first.standard_error,
            "trace of square": second.mean,
            "±": second.standard_error,
            "products": found.products,
            "seconds": seconds,
        }
    ]
    pyhessian = PyHessian(landscape.model, inputs, targets)
    curvlinops = Curvlinops(landscape.model, inputs, targets)
    for name, workload in (
        ("PyHessian", lambda: pyhessian.density(steps, probes)),
        ("curvlinops", lambda: curvlinops.density(steps, probes)),
    ):
        moments, seconds = timed(workload)
        if name == "PyHessian":
            pyhessian.release()
        rows.append(
            {
                "density": name,
                "trace": moments.first,
                "trace of square": moments.second,
                "products": moments.products,
                "seconds": seconds,
            }
        )
    return rows


def _trace_row(name: str, mean: float, error: float | None, seconds: float) -> Row:
    return {"trace": name, "mean": mean, "standard error": error, "seconds": seconds}


def _difference(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).norm() / exact.norm())
