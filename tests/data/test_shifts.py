"""Shifted images against their formulas, and other data sets in the form of one."""

import numpy as np
import pytest
import torch

from mining.data import Dataset, Shift, Split, digits, from_arrays, in_the_form_of, shifted
from mining.data.shifts import AMOUNTS


def colours(num=40, size=16, *, seed=0, mean=None):
    draws = np.random.default_rng(seed)
    images = draws.integers(0, 256, (num, size, size, 3), dtype=np.uint8)
    labels = np.arange(num) % 4
    return from_arrays("colours", images, labels, images[:8], labels[:8], mean=mean, std=mean)


def pixels(dataset, split="train"):
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (dataset.mean, dataset.std))
    return dataset.split(split).inputs * std + mean


def test_a_data_set_tells_its_normalization():
    images = pixels(colours())
    assert float(images.min()) == pytest.approx(0, abs=1e-6)
    assert float(images.max()) == pytest.approx(1, abs=1e-6)
    found = digits()
    assert float(pixels(found).max()) == pytest.approx(1)
    assert found.to("cpu", torch.float64).mean == found.mean


@pytest.mark.parametrize("kind", AMOUNTS)
def test_shifts_grow_with_their_strength_and_repeat(kind):
    home = colours()
    changes = []
    for strength in range(1, 6):
        found = shifted(home, kind, strength)
        assert found.name == f"colours_{kind}{strength}"
        assert torch.equal(found.train.labels, home.train.labels)
        assert -1e-6 < float(pixels(found).min()) < float(pixels(found).max()) < 1 + 1e-6
        changes.append(float((pixels(found) - pixels(home)).square().mean()))
        again = shifted(home, kind, strength)
        assert torch.equal(again.train.inputs, found.train.inputs)
    if kind != "rotation":  # noise turned by 10° differs as much as turned by 60°
        assert changes == sorted(changes)
    assert changes[0] > 0


def test_noise_has_its_standard_deviation():
    flat = np.full((200, 16, 16), 128, dtype=np.uint8)
    home = from_arrays("flat", flat, np.arange(200) % 2, None, None, mean=0.3, std=0.2)
    found = pixels(shifted(home, "noise", 2))
    assert float(found.std()) == pytest.approx(0.08, rel=0.01)
    assert float(found.mean()) == pytest.approx(128 / 255, abs=0.001)


def test_contrast_and_grey_by_hand():
    home = colours()
    before, after = pixels(home), pixels(shifted(home, "contrast", 3))
    middle = before.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(after - middle, 0.35 * (before - middle), rtol=1e-4, atol=1e-5)
    grey = pixels(shifted(home, "grey", 5))
    bright = 0.299 * before[:, 0] + 0.587 * before[:, 1] + 0.114 * before[:, 2]
    for channel in range(3):
        torch.testing.assert_close(grey[:, channel], bright, rtol=1e-4, atol=1e-5)


def test_blur_keeps_flat_images_and_spreads_a_point():
    images = np.zeros((2, 41, 41), dtype=np.uint8)
    images[0, 20, 20] = 255
    images[1] = 100
    home = from_arrays("point", images, np.arange(2), None, None, mean=0.0, std=1.0)
    found = pixels(shifted(home, "blur", 3)).double()
    torch.testing.assert_close(found[1], torch.full_like(found[1], 100 / 255), rtol=1e-5, atol=0)
    places = torch.arange(41).double() - 20
    assert float(found[0].sum()) == pytest.approx(1, rel=1e-5)
    variance = float((found[0, 0].sum(0) * places**2).sum())
    assert variance**0.5 == pytest.approx(0.035 * 41, rel=0.02)  # cut off at three deviations


def test_rotation_turns_a_point_by_its_angle():
    images = np.zeros((20, 41, 61), dtype=np.uint8)
    images[:, 19:22, 49:52] = 255  # 20 pixels to the right of the centre
    home = from_arrays("point", images, np.arange(20), None, None, mean=0.0, std=1.0)
    found = pixels(shifted(home, "rotation", 3))[:, 0].double()
    rows = torch.arange(41).double()[:, None] - 20
    columns = torch.arange(61).double()[None] - 30
    mass = found.sum((1, 2))
    down, right = (found * rows).sum((1, 2)) / mass, (found * columns).sum((1, 2)) / mass
    angles = torch.rad2deg(torch.atan2(down, right))
    torch.testing.assert_close(angles.abs(), torch.full_like(angles, 30), rtol=0, atol=0.5)
    torch.testing.assert_close(
        torch.hypot(down, right), torch.full_like(mass, 20), rtol=0.02, atol=0
    )
    assert 0 < int((angles > 0).sum()) < 20


def test_grey_of_grey_images_and_unknown_normalizations_are_refused():
    with pytest.raises(ValueError, match="the images of digits are grey"):
        shifted(digits(num_examples=20), "grey", 1)
    bare = Dataset("bare", Split(torch.zeros(2, 1, 4, 4), torch.tensor([0, 1])), None, 2)
    with pytest.raises(ValueError, match="bare must tell its normalization"):
        shifted(bare, "noise", 1)


@pytest.mark.parametrize("text", ["noise", "noise:0", "noise:6", "nois:3", "noise:3:1", "", ":3"])
def test_shifts_of_another_form_are_refused(text):
    with pytest.raises(ValueError, match="shift must be KIND:STRENGTH"):
        Shift.parse(text)
    assert Shift.parse("blur:4") == Shift("blur", 4)


def test_another_data_set_comes_in_the_form_of_the_first():
    grey = np.random.default_rng(1).integers(0, 256, (12, 16, 16), dtype=np.uint8)
    home = from_arrays("grey", grey, np.arange(12) % 4, None, None)
    other = colours(mean=0.7)
    found = in_the_form_of(other, home)
    bright = (pixels(other) * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1)
    expected = (bright - home.mean[0]) / home.std[0]
    torch.testing.assert_close(found.train.inputs[:, 0], expected, rtol=1e-4, atol=1e-5)
    assert found.input_shape == home.input_shape
    assert (found.name, found.mean) == ("colours", home.mean)
    back = in_the_form_of(home, colours(mean=0.7))
    torch.testing.assert_close(pixels(back)[:, 1], pixels(home)[:, 0], rtol=1e-4, atol=1e-5)
    small = in_the_form_of(colours(size=32), home)
    assert small.input_shape == (1, 16, 16)


def test_data_sets_of_other_classes_are_refused():
    images = np.zeros((6, 8, 8, 3), dtype=np.uint8)
    home = colours()
    with pytest.raises(ValueError, match="must have the 4 classes of colours, got 3 of three"):
        in_the_form_of(from_arrays("three", images, np.arange(6) % 3, None, None), home)
    names = [("cat", "dog"), ("dog", "cat")]
    ordered, swapped = (
        from_arrays("pets", images, np.arange(6) % 2, None, None, class_names=n) for n in names
    )
    with pytest.raises(ValueError, match="in another order"):
        in_the_form_of(swapped, ordered)
