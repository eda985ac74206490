"""How often the classifier gives the label that a person gives."""

from curves_by_eye import drawn, measured


def test_every_curve_has_one_or_two_labels():
    for examples, number in ((drawn(), 300), (measured(), 60)):
        assert len(examples) == number
        assert sum(e.held_out for e in examples) == number / 2
        assert all(1 <= len(e.labels) <= 2 and e.labels[0] for e in examples)
