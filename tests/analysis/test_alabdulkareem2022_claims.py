"""Regressions, change-points and quantities of Alabdulkareem (2022), by hand."""

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t as student

from analysis.alabdulkareem2022 import claims
from analysis.alabdulkareem2022.curvatures import sizes_of
from analysis.alabdulkareem2022.drops import coincide, find_drop, find_plateau, shuffled_share
from analysis.alabdulkareem2022.regressions import MODELS, regress, with_covariates
from analysis.alabdulkareem2022.series import changes, epochs_of
from analysis.archive import Record

pytest.importorskip("statsmodels")
pytest.importorskip("ruptures")


def record(lambda_max, *, seed=0, number=0, lr=0.01, batch_size=32, optimizer="sgd", **columns):
    """A training with one λmax per epoch; other columns are as given, or zero."""
    epochs = list(range(1, len(lambda_max) + 1))
    given = {"trace": lambda_max, **columns}
    zeros = [0.0] * len(epochs)
    files = {
        "history": ["train_loss"],
        "curvature": ["trace", "trace_standard_error"],
        "held_out": ["validation_accuracy", "test_accuracy", "noisy_accuracy"],
    }
    arrays = {f"{stem}.epoch": epochs for stem in files}
    arrays |= {
        f"{stem}.{name}": given.get(name, zeros) for stem, names in files.items() for name in names
    }
    recipe = {"optimizer": optimizer, "lr": lr, "batch_size": batch_size, "weight_decay": 0.0}
    return Record(
        directory=f"train/cnn-cifar10/{number}",
        config={"seed": seed, "train": recipe, "monitor": {"probes": 10}},
        metrics={},
        arrays={**arrays, "curvature.lambda_max": list(lambda_max)},
        seconds=1.0,
        device="cpu",
    )


def test_changes_are_from_epoch_to_epoch_of_one_training():
    first = record([1, 3, math.nan, 7, 8], test_accuracy=[0.1, 0.3, 0.3, 0.5, 0.4])
    epochs = epochs_of([first, record([5, 4], number=1)])
    assert list(epochs.epoch) == [1, 2, 4, 5, 1, 2]  # without the one that was not measured
    found = changes(epochs)
    assert list(zip(found.run, found.epoch, found.lambda_max, strict=True)) == [
        (0, 2, 2), (0, 5, 1), (1, 2, -1),
    ]  # fmt: skip
    assert found.test.tolist() == pytest.approx([20, -10, 0])  # percentage points


def test_regression_gives_the_numbers_worked_out_by_hand():
    """Sxy = 5.5, Sxx = 5; residuals -0.1, 0.8, -1.3, 0.6, whose squares add up to 2.7."""
    table = pd.DataFrame({"x": [0, 1, 2, 3], "y": [1, 3, 2, 5], "run": [0, 0, 1, 1]})
    found = regress(table, "y", ["x"])
    slope, constant = found.terms["x"], found.terms["const"]
    assert (slope.coefficient, constant.coefficient) == (pytest.approx(1.1), pytest.approx(1.1))
    assert slope.standard_error == pytest.approx(math.sqrt(1.35 / 5))
    assert constant.standard_error == pytest.approx(math.sqrt(1.35 * (1 / 4 + 1.5**2 / 5)))
    assert found.f == pytest.approx(1.1**2 * 5 / 1.35)
    assert found.aic == pytest.approx(4 * (math.log(2 * math.pi * 2.7 / 4) + 1) + 2 * 2)
    assert (found.n, found.clusters) == (4, 2)
    # Σ (x - 1.5) e over each training is -0.25 twice; times 2/1 · 3/2 for few clusters.
    assert slope.clustered_error == pytest.approx(math.sqrt(3 * 2 * 0.25**2) / 5)
    # Student's t with 4 - 2 and with 2 - 1 degrees of freedom.
    assert slope.p == pytest.approx(2 * student.sf(1.1 / slope.standard_error, 2))
    assert slope.clustered_p == pytest.approx(2 * student.sf(1.1 / slope.clustered_error, 1))


def test_a_single_training_has_no_clustered_errors():
    table = pd.DataFrame({"x": [0, 1, 2, 3], "y": [1, 3, 2, 5], "run": 0})
    assert math.isnan(regress(table, "y", ["x"]).terms["x"].clustered_error)


def test_a_variable_that_does_not_vary_is_left_out():
    table = pd.DataFrame({"x": [0, 1, 2, 3], "z": 1.0, "y": [1, 3, 2, 5], "run": 0})
    assert list(regress(table, "y", ["x", "z"]).terms) == ["const", "x"]
    with pytest.raises(ValueError, match="needs more than 2 changes"):
        regress(table[:2], "y", ["x"])


def synthetic(num_runs=40, epochs=30, seed=0):
    """Changes of known coefficients, with a shift for each training that clusters the errors."""
    random = np.random.default_rng(seed)
    parts = []
    for run in range(num_runs):
        lr = 0.01 if run % 2 else 0.05
        d_lambda = random.normal(0, 3, epochs) + random.normal(0, 2)
        d_validation = random.normal(0, 2, epochs) - 0.3 * d_lambda
        noise = random.normal(0, 0.5, epochs) + random.normal(0, 0.5)
        noisy = 0.1 - 0.05 * d_lambda + 0.7 * d_validation + 0.4 * math.log10(lr) + noise
        table = {"lambda_max": d_lambda, "validation": d_validation, "noisy": noisy}
        parts.append(pd.DataFrame({**table, "run": run, "lr": lr, "optimizer": "sgd"}))
    return with_covariates(pd.concat(parts, ignore_index=True))


def test_known_coefficients_are_found_within_their_clustered_errors():
    found = regress(synthetic(), "noisy", ["lambda_max", "validation", "log10_lr", "adam"])
    for name, known in {"lambda_max": -0.05, "validation": 0.7, "log10_lr": 0.4}.items():
        term = found.terms[name]
        assert abs(term.coefficient - known) < 4 * term.clustered_error, name
    # Errors that a training shares make those of what is constant in it larger.
    assert found.terms["log10_lr"].clustered_error > 2 * found.terms["log10_lr"].standard_error


def test_clustered_intervals_contain_the_coefficient_as_often_as_they_say():
    """Of 200 tables 95 % are 190; fewer than 177 are four standard deviations away."""
    inside = {"clustered": 0, "plain": 0}
    for seed in range(200):
        table = synthetic(30, 8, seed)
        term = regress(table, "noisy", ["lambda_max", "validation", "log10_lr"]).terms["log10_lr"]
        miss = abs(term.coefficient - 0.4)
        inside["clustered"] += miss < 2.045 * term.clustered_error  # 29 degrees of freedom
        inside["plain"] += miss < 1.97 * term.standard_error
    assert inside["clustered"] >= 177
    assert inside["plain"] < 160


STEP = np.array([1.0, 5, 9, 9.5, 10, 9, 2, 1.5, 1, 1.2, 1, 1])


def test_the_drop_is_where_the_trace_falls_most():
    drop = find_drop(STEP)
    assert drop is not None
    assert drop.place == 6
    assert drop.sharp
    assert drop.after == pytest.approx(STEP[6:].mean())


def test_a_rising_trace_has_no_drop_and_a_small_one_is_not_sharp():
    assert find_drop(np.linspace(1, 20, 20)) is None
    assert find_drop(np.array([1.0, 2])) is None
    small = find_drop(np.repeat([10.0, 8.0], 6))
    assert small is not None
    assert not small.sharp


def test_the_plateau_begins_within_a_point_of_the_maximum():
    rising = np.array([10.0] * 3 + [50.0] * 9)
    # The mean of five epochs is 50 from the sixth on: two before it still reach back.
    assert find_plateau(rising) == 5
    assert find_plateau(np.linspace(0, 100, 20)) is None  # it still rises at the end
    assert find_plateau(np.linspace(0, 100, 6)) is None


def test_epochs_coincide_within_a_tenth():
    assert coincide(5, 8, 30)
    assert not coincide(5, 9, 30)
    assert coincide(1, 2, 4)


def test_a_trace_in_random_order_drops_anywhere():
    """Its change-points lie within two epochs of the middle one in about five of nineteen cases."""
    trace = np.random.default_rng(1).normal(10, 1, 20)
    share = shuffled_share(trace, 10, num=400, generator=np.random.default_rng(0))
    assert 0.05 < share < 0.5


def with_drop(place, plateau, number):
    accuracy = [0.1 + 0.4 * min(1, epoch / plateau) for epoch in range(30)]
    trace = [10.0] * place + [1.0] * (30 - place)
    return record([1.0] * 30, trace=trace, validation_accuracy=accuracy, number=number)


def test_drops_at_the_plateau_are_counted_against_chance():
    own = [with_drop(5, 4, 0), with_drop(20, 19, 1)]
    assert claims.dropping(own) == 1
    assert claims.beyond_others(own) == 1
    assert claims.beyond_shuffled(own) > 0.5
    crossed = [with_drop(5, 19, 0), with_drop(20, 4, 1)]
    assert claims.beyond_others(crossed) == -1
    assert claims.beyond_shuffled(crossed) < 0
    flat = [record([1.0] * 30)]
    assert claims.dropping(flat) == 0
    assert claims.beyond_shuffled(flat) is None
    assert claims.beyond_others(own[:1]) is None


def test_ratios_compare_trainings_that_are_equal_otherwise():
    slow, fast = record([100.0, 10, 10]), record([10.0, 10, 1], lr=0.05, number=1)
    adam = record([1e-9] * 3, lr=0.05, optimizer="adam", number=2)
    options = {"key": "lr", "values": (0.01, 0.05)}
    first = claims.ratio([slow, fast, adam], moment=claims.at_first_epoch, **options)
    assert first == pytest.approx(-1)
    last = claims.ratio([slow, fast, adam], moment=claims.at_last_epochs, **options)
    assert last == pytest.approx(-1)
    assert claims.ratio([slow], moment=claims.at_first_epoch, **options) is None


def test_trainings_are_compared_at_equal_loss():
    slow = record([100.0, 10, 10], train_loss=[2.0, 1.6, 1.4])
    fast = record([10.0, 1, 1], lr=0.05, train_loss=[1.2, 1.0, 0.5], number=1)
    found = claims.ratio([slow, fast], "lr", (0.01, 0.05), claims.at_equal_loss)
    assert found == pytest.approx(0)
    never = record([1.0, 1, 1], lr=0.05, train_loss=[2.0, 2.0, 2.0], number=1)
    assert claims.ratio([slow, never], "lr", (0.01, 0.05), claims.at_equal_loss) is None


def test_slopes_of_a_seed_are_those_of_its_changes():
    random = np.random.default_rng(0)
    trainings = []
    for number in range(4):
        largest, validation = random.uniform(1, 20, 12), random.uniform(0.2, 0.5, 12)
        columns = {
            "validation_accuracy": validation.tolist(),
            "test_accuracy": validation.tolist(),
            "noisy_accuracy": (0.5 * validation - 0.01 * largest).tolist(),
        }
        lr = 0.01 if number % 2 else 0.05
        trainings.append(record(largest.tolist(), number=number, lr=lr, **columns))
    model = "out of distribution, λmax and validation"
    assert claims.slope(trainings, model) == pytest.approx(-1)  # a per cent per unit
    assert claims.slope(trainings, model, claims.COVARIATES) == pytest.approx(-1)
    assert claims.excess_slope(trainings) == pytest.approx(-1)
    assert claims.slope([record([1.0, 2])], model) is None
    assert claims.slope([record([1.0, 2, 4, 8, 16])], model) is None  # the accuracy is constant
    assert set(MODELS) >= {model, "in distribution, λmax and validation"}


def test_sizes_of_the_epochs_are_those_of_their_samples():
    """Ten vectors with a standard error of 1: σ² = 10; an error of 10 % of 40 is 4."""
    epochs = epochs_of([record([40.0, 1], trace_standard_error=[1.0, 1.0])])
    found = sizes_of(epochs, 0.1, 0.95)
    assert found.chebyshev.tolist() == [
        13,
        200,
    ]  # 10 / (0.05 · 16) and, with the error 1, 10 / 0.05
    assert found.alabdulkareem2022.tolist() == [4, 15]
