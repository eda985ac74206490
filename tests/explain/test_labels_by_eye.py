"""How often the classifier gives a label that the eye accepts."""

import pytest
from curves_by_eye import agreement, drawn, measured

from mining import Curve, classify


def test_every_curve_has_one_or_two_labels():
    for examples, number in ((drawn(), 300), (measured(), 60)):
        assert len(examples) == number
        assert sum(e.held_out for e in examples) == number / 2
        assert all(1 <= len(e.labels) <= 2 and e.labels[0] for e in examples)


@pytest.mark.parametrize(
    ("read", "held_out", "least"),
    # Reached: 148 and 146 of 150 drawn curves, all 30 and 30 measured ones.
    [(drawn, False, 0.98), (drawn, True, 0.97), (measured, False, 1.0), (measured, True, 1.0)],
)
def test_classifier_agrees_with_the_eye(read, held_out, least):
    assert agreement([e for e in read() if e.held_out == held_out]) >= least


def measured_curve(source):
    return next(e.curve for e in measured() if e.source == source)


@pytest.mark.parametrize("reach", [0.25, 0.5, 0.75, 1.0])
def test_gradient_at_the_initialization_is_a_side_in_every_window(reach):
    """A ResNet-20, above log C everywhere: the loss falls from 6.14 to 5.41, or rises to 28.5."""
    curve = measured_curve("fig04: cifar_resnet20-cifar100, E=0, negative gradient")
    inside = curve.alphas.abs() <= reach + 1e-9
    cut = Curve(curve.alphas[inside], curve.loss[inside], chance_loss=curve.chance_loss)
    assert classify(cut).label == "v-side"


def test_a_shallow_valley_of_a_smooth_curve_counts():
    """Fig. 10 of Xu et al. (2024), α = 0.1, γ = 0.9: 0.14 of 4.6 nats deep."""
    mined = "mined vvv-basin (λ=½±0.1, γ=0.9)"
    curve = measured_curve(f"fig10: cifar_resnet20-cifar100, E=200, {mined}")
    shape = classify(curve)
    assert shape.label == "vvv-basin"
    assert [alpha for alpha, _ in shape.valleys] == pytest.approx([0, 0.45, 1])
    assert shape.depths[1] == pytest.approx(0.953409 - 0.812437)
