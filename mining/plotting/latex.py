"""Tables of labels for papers."""

import re
from collections.abc import Sequence

from mining.evaluation.curves import Curve
from mining.explain.curve_shape import classify

_ESCAPED = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    "θ": r"$\theta$",
    "λ": r"$\lambda$",
    "α": r"$\alpha$",
    "×": r"$\times$",
}
_HEADER = (
    "direction",
    "label",
    "stationary points",
    r"lowest at $\alpha$",
    r"$L(\theta)$",
    "depths",
)


def latex_table(curves: Sequence[Curve], groups: Sequence[str] = ()) -> str:
    r"""Write the labels of curves as a ``tabular`` of LaTeX, which needs no package.

    Columns are the direction, its label (with its probability if it is not certain), the number of
    stationary points, α of the lowest point, the loss of θ and the depths of the valleys in nats,
    with their standard errors if the losses were estimated.

    Args:
        curves: At least one, each with θ among its points.
        groups: Of each curve, a first column; none if it is empty.
    """
    rows = []
    for number, curve in enumerate(curves):
        shape = classify(curve)
        pairs = zip(shape.depths, shape.depth_errors, strict=True)
        depths = [f"{d:.3g}" + (f" \\pm {e:.1g}" if e else "") for d, e in pairs]
        cells = [
            escape(curve.name),
            escape(shape.description),
            str(shape.stationary_points),
            f"${_exponent(f'{shape.minimum_alpha:.3g}')}$",
            f"${_exponent(f'{float(curve.loss[curve.origin]):.4g}')}$",
            ", ".join(f"${_exponent(depth)}$" for depth in depths) or "--",
        ]
        rows.append([escape(groups[number]), *cells] if groups else cells)
    header = ["network", *_HEADER] if groups else [*_HEADER]
    lines = [" & ".join(row) + r" \\" for row in (header, *rows)]
    columns = "l" * (len(header) - 4) + "rrrl"
    body = "\n".join([lines[0], r"\hline", *lines[1:]])
    return f"\\begin{{tabular}}{{{columns}}}\n\\hline\n{body}\n\\hline\n\\end{{tabular}}\n"


def escape(text: str) -> str:
    """Write text such that LaTeX prints it."""
    return "".join(_ESCAPED.get(letter, letter) for letter in text)


def _exponent(number: str) -> str:
    return re.sub(r"e([+-])0*(\d+)", lambda m: rf" \cdot 10^{{{m[1].strip('+')}{m[2]}}}", number)
