"""Which valleys a mined curve reaches, and what of it depends on depth, on known records."""

import numpy as np
import pytest

from analysis.archive import Record
from analysis.xu2024 import complexity as c

ALPHAS = np.linspace(-0.05, 1, 211)


def wave(valleys, low=0.1, high=2.3):
    """The template of equal valleys, the first at 0."""
    return [[i / (2 * valleys - 1), high if i % 2 else low] for i in range(2 * valleys)]


def record(hidden, valleys, reached, seed=0, error=0.0, template=None):
    """A curve that follows a template of valleys, but has only some of them."""
    template = template or wave(valleys)
    points = [*template[: 2 * reached], *([[1.0, 2.3]] if reached < valleys else [])]
    loss = np.interp(ALPHAS, *zip(*points, strict=True)) + error
    loss[ALPHAS < 0] = template[0][1] - ALPHAS[ALPHAS < 0]
    config = {
        "seed": seed,
        "pipeline": "curve",
        "model": {"hidden": list(hidden)},
        "direction": {"descent": {"epochs": 600}},
    }
    metrics = {"template": template, "num_parameters": 13_000 + len(hidden)}
    arrays = {"alphas": ALPHAS.tolist(), "loss": [loss.tolist()], "chance_loss": 2.3}
    arrays["loss_test"] = [(loss + 0.5).tolist()]
    name = f"curve/mlp-digits/{hidden}{valleys}{seed}"
    return Record(name, config, metrics, arrays, seconds=1.0, device="cpu")


def test_a_curve_on_its_template_has_all_valleys_and_no_error():
    (found,) = c.rows([record([8], 6, 6)]).itertuples()
    assert (found.valleys, found.reached, found.success) == (6, 6, True)
    assert found.rmse == pytest.approx(0, abs=0.02)  # the corners lie between the points
    assert found.rmse_held_out == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(("reached", "error"), [(3, 0.0), (4, 0.3)], ids=["valley", "distance"])
def test_a_curve_that_misses_a_valley_or_is_far_away_fails(reached, error):
    (found,) = c.rows([record([8], 4, reached, error=error)]).itertuples()
    assert not found.success
    assert found.reached == reached


def test_random_templates_have_no_number_of_valleys():
    curve = record([8], 2, 2, template=[[0.0, 0.1], [0.5, 1.0], [0.7, 0.6], [1.0, 2.0]])
    (found,) = c.rows([curve]).itertuples()
    assert (found.template, found.success) == ("random", False)
    assert np.isnan(c.rows([curve, record([8], 3, 3)]).valleys).sum() == 1


def deeper(seed, most):
    """Trainings of networks of one, two and three hidden layers that reach the numbers given."""
    return [
        record([8] * layers, valleys, min(valleys, reached), seed)
        for layers, reached in enumerate(most, start=1)
        for valleys in (3, 4, 6)
    ]


@pytest.mark.parametrize(
    ("most", "word"),
    [
        ([(3, 4, 6), (3, 4, 4), (3, 3, 6)], "holds"),
        ([(4, 4, 4), (6, 4, 3), (3, 6, 4)], "fails"),
        ([(3, 4, 6), (3, 4, 6), (6, 4, 4)], "not decided"),
        ([(3, 4, 6), (3, 4, 6)], "not decided"),
    ],
)
def test_depth_matters_if_all_trainings_say_so(most, word):
    records = [r for seed, numbers in enumerate(most) for r in deeper(seed, numbers)]
    (found,) = c.answer(c.rows(records)).to_dict("records")
    assert (found["depth"], found["n"]) == (word, len(most))
    assert found["3 hidden"] == ", ".join(str(numbers[-1]) for numbers in most)


def test_the_picture_shows_a_curve_for_each_depth():
    records = deeper(0, (3, 4, 6))
    picture = c.picture(records, c.rows(records))
    titles = [axes.get_title() for axes in picture.get_axes()]
    assert [title.split("\n")[0] for title in titles[:3]] == [
        "hidden layers 8", "hidden layers 8-8", "hidden layers 8-8-8",
    ]  # fmt: skip
