import hashlib
import inspect
import logging
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.utils import get_method
from omegaconf import OmegaConf
from PIL import Image
from scipy.io import savemat

from mining.data import (
    Dataset,
    Split,
    arrays,
    digits,
    from_arrays,
    image_folder,
    torchvision_dataset,
)

CONF = Path(__file__).parent.parent.parent / "conf" / "data"


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def random_arrays(num_train=40, num_test=20, shape=(5, 6, 3), num_classes=4, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "train_images": rng.integers(0, 256, (num_train, *shape), dtype=np.uint8),
        "train_labels": np.arange(num_train) % num_classes,
        "test_images": rng.integers(0, 256, (num_test, *shape), dtype=np.uint8),
        "test_labels": np.arange(num_test) % num_classes,
    }


def save(path, **content):
    np.savez(path, **content)
    return path


def split_of(labels):
    labels = torch.as_tensor(labels)
    return Split(torch.arange(len(labels)).float().view(-1, 1, 1, 1), labels)


# Split


@pytest.mark.parametrize(("num_examples", "batch_size"), [(10, 3), (9, 4), (4, 4), (3, 10), (7, 1)])
def test_batches_cover_every_example_once_in_nearly_equal_views(num_examples, batch_size):
    split = split_of(torch.arange(num_examples))
    batches = split.batches(batch_size)
    sizes = [len(labels) for _, labels in batches]
    assert len(batches) == -(-num_examples // batch_size)
    assert max(sizes) <= batch_size
    assert max(sizes) - min(sizes) <= 1
    assert torch.equal(torch.cat([labels for _, labels in batches]), split.labels)
    assert torch.equal(torch.cat([inputs for inputs, _ in batches]), split.inputs)
    storage = split.inputs.untyped_storage().data_ptr()
    assert all(inputs.untyped_storage().data_ptr() == storage for inputs, _ in batches)


def test_subset_is_balanced_ordered_and_repeatable():
    labels = torch.randint(0, 7, (500,), generator=seeded(0))
    split = split_of(labels)
    subset = split.subset(100, seeded(1))
    counts = subset.labels.bincount(minlength=7)
    assert len(subset) == 100
    assert counts.max() - counts.min() <= 1
    chosen = subset.inputs.flatten().long()
    assert torch.equal(chosen, chosen.unique())  # increasing, no example twice
    assert torch.equal(labels[chosen], subset.labels)
    assert torch.equal(subset.inputs, split.subset(100, seeded(1)).inputs)
    assert not torch.equal(subset.inputs, split.subset(100, seeded(2)).inputs)


def test_subset_takes_all_of_a_scarce_class_and_shares_the_rest():
    split = split_of([0] * 50 + [1] * 3 + [3] * 50)
    assert split.subset(33, seeded(0)).labels.bincount().tolist() == [15, 3, 0, 15]


def test_remainder_of_a_subset_falls_on_random_classes():
    split = split_of(torch.arange(20) % 10)
    chosen = {tuple(split.subset(3, seeded(seed)).labels.tolist()) for seed in range(20)}
    assert len(chosen) > 10


def test_subset_as_large_as_the_split_is_everything():
    split = split_of([2, 0, 1, 0])
    assert torch.equal(split.subset(9, seeded(0)).inputs, split.inputs)


def test_split_refuses_bad_arguments():
    split = split_of([0, 1])
    with pytest.raises(ValueError, match="batch_size must be positive, got 0"):
        split.batches(0)
    with pytest.raises(ValueError, match="num_examples must be positive or null"):
        split.subset(0, seeded(0))
    with pytest.raises(ValueError, match=r"labels must have shape \(2,\).*got \(1,\)"):
        Split(split.inputs, split.labels[:1])


# Dataset


def test_dataset_knows_its_splits_and_shape():
    split = split_of([0, 1])
    data = Dataset("tiny", None, split, 2)
    assert data.split("test") is split
    assert data.input_shape == (1, 1, 1)
    assert data.to("cpu", torch.float64).split("test").inputs.dtype == torch.float64
    assert data.to("cpu", torch.float64).split("test").labels.dtype == torch.int64
    with pytest.raises(ValueError, match=r"tiny has no train split.*split=test"):
        data.split("train")
    with pytest.raises(ValueError, match="split must be train or test, got 'valid'"):
        data.split("valid")
    with pytest.raises(ValueError, match="must have a train or a test split"):
        Dataset("tiny", None, None, 2)


# from_arrays


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 1), (5, 6, 3)])
def test_images_get_mean_0_and_deviation_1(shape):
    data = from_arrays("random", **random_arrays(shape=shape))
    channels = 3 if shape[-1] == 3 else 1
    assert data.input_shape == (channels, 5, 6)
    assert data.num_classes == 4
    inputs = data.train.inputs.double()
    # Each value carries a float32 rounding error of about 1e-7.
    assert inputs.mean((0, 2, 3)).abs().max() < 1e-6
    torch.testing.assert_close(
        inputs.std((0, 2, 3), correction=0), torch.ones(channels).double(), rtol=0, atol=1e-6
    )


def test_given_statistics_are_applied_per_channel_on_the_unit_scale():
    content = random_arrays()
    data = from_arrays("random", **content, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    expected = (content["test_images"] / 255 - (0.1, 0.2, 0.3)) / (0.5, 0.6, 0.7)
    np.testing.assert_allclose(data.test.inputs.permute(0, 2, 3, 1), expected, atol=1e-6)
    same = from_arrays("random", **content, mean=0.5, std=[0.5])
    np.testing.assert_allclose(
        same.test.inputs.permute(0, 2, 3, 1), content["test_images"] / 127.5 - 1, atol=1e-6
    )


def test_statistics_are_those_of_all_images_before_the_subset():
    content = random_arrays()
    whole = from_arrays("random", **content)
    part = from_arrays("random", **content, num_examples=6, subset_seed=3)
    for split in ("train", "test"):
        expected = whole.split(split).subset(6, seeded(3))
        assert torch.equal(part.split(split).inputs, expected.inputs)
        assert torch.equal(part.split(split).labels, expected.labels)


def test_constant_channel_becomes_zero():
    content = random_arrays()
    content["train_images"][..., 1] = 77
    data = from_arrays("random", **content)
    # 77 / 255 is rounded to float32 on both sides of the subtraction.
    assert data.train.inputs[:, 1].abs().max() < 1e-7


def changed(**changes):
    return {**random_arrays(), **changes}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            changed(train_images=np.zeros((40, 5, 6, 3))),
            "train_images must have dtype uint8, got f",
        ),
        (
            changed(train_images=np.zeros((40, 3, 5, 6), np.uint8)),
            r"train_images must have shape .*got \(40, 3, 5, 6\)",
        ),
        (changed(train_images=np.zeros((40, 5), np.uint8)), r"must have shape .*got \(40, 5\)"),
        (
            changed(train_images=np.zeros((40, 9, 9, 3), np.uint8)),
            r"must agree in \(H, W, C\), got \(9, 9, 3\) and \(5, 6, 3\)",
        ),
        (changed(test_labels=np.arange(3)), r"test_labels must have shape \(20,\).*got \(3,\)"),
        (changed(test_labels=np.zeros(20)), "test_labels must be integers, got dtype float64"),
        (changed(train_labels=np.full(40, -1)), r"labels must lie in 0\.\.3 for 4 classes, got -1"),
        (changed(class_names=("a", "b")), r"labels must lie in 0\.\.1 for 2 classes, got 0\.\.3"),
        (changed(test_labels=None), "must be given together; test_labels is missing"),
        (changed(num_examples=0), "num_examples must be positive or null"),
        (changed(mean=(0.1, 0.2)), r"mean must be 1 or 3 finite numbers on \[0, 1\], got \[0.1"),
        (changed(mean="half"), "mean must be 1 or 3 finite numbers.*got 'half'"),
        (changed(std=float("nan")), "std must be 1 or 3 finite numbers"),
        (changed(std=(0.1, 0, 0.1)), "std must be positive in every channel"),
        (changed(train_images=None, train_labels=None), r"data.mean=\[...\] data.std=\[...\]"),
        (
            dict.fromkeys(random_arrays()),
            "random must have a train or a test split, got neither",
        ),
    ],
)
def test_from_arrays_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        from_arrays("random", **arguments)


# digits


def test_digits_are_all_of_scikit_learns_in_a_stratified_split():
    from sklearn.datasets import load_digits

    data = digits(mean=0, std=1)
    assert (len(data.train), len(data.test), data.num_classes) == (1437, 360, 10)
    assert data.input_shape == (1, 8, 8)
    both = torch.cat([data.train.inputs, data.test.inputs]).flatten(1) * 16
    ours = sorted(map(tuple, both.tolist()))
    assert ours == sorted(map(tuple, load_digits().data.tolist()))
    shares = [split.labels.bincount() / len(split) for split in (data.train, data.test)]
    # Stratified: a class's share differs by less than one of 360 examples.
    torch.testing.assert_close(shares[0], shares[1], rtol=0, atol=1 / 360)
    assert torch.equal(data.test.inputs, digits(mean=0, std=1, subset_seed=1).test.inputs)


# arrays


def test_arrays_reads_what_numpy_saved(tmp_path):
    content = random_arrays()
    names = np.array(["ant", "bee", "cat", "dog", "eel"])
    data = arrays(save(tmp_path / "pets.npz", **content, class_names=names, extra=np.ones(3)))
    assert (data.name, data.num_classes) == ("pets", 5)
    assert data.class_names == ("ant", "bee", "cat", "dog", "eel")
    assert torch.equal(data.train.inputs, from_arrays("pets", **content).train.inputs)


def test_arrays_may_lack_either_split(tmp_path):
    content = random_arrays()
    test = {key: value for key, value in content.items() if key.startswith("test")}
    train = {key: value for key, value in content.items() if key.startswith("train")}
    data = arrays(save(tmp_path / "test.npz", **test), mean=0.5, std=0.2)
    assert data.train is None
    assert len(data.test) == 20
    assert arrays(save(tmp_path / "train.npz", **train)).test is None
    with pytest.raises(
        ValueError, match="test has no training images to compute mean and std from"
    ):
        arrays(tmp_path / "test.npz")


def test_arrays_refuses_files_that_are_something_else(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No file .*absent.npz.*data.path="):
        arrays(tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("not an archive")
    whole = save(tmp_path / "whole.npz", **random_arrays()).read_bytes()
    (tmp_path / "half.npz").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.npz").write_bytes(b"")
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 255
    (tmp_path / "flipped.npz").write_bytes(flipped)
    np.save(tmp_path / "one.npy", np.ones(3))
    save(tmp_path / "objects.npz", **changed(test_labels=np.array([{}] * 20)))
    for name in ("text.npz", "half.npz", "empty.npz", "flipped.npz", "one.npy", "objects.npz"):
        with pytest.raises(ValueError, match=f"cannot read .*{name} as an .npz file") as caught:
            arrays(tmp_path / name)
        assert "\n" not in str(caught.value)
    save(tmp_path / "other.npz", x=np.ones(3), train_images=np.ones(3))
    with pytest.raises(ValueError, match=r"must hold train_images.*got train_images, x"):
        arrays(tmp_path / "other.npz")
    save(tmp_path / "names.npz", **random_arrays(), class_names=np.array("abcd"))
    with pytest.raises(ValueError, match=r"class_names must be a list, got shape \(\)"):
        arrays(tmp_path / "names.npz")


# torchvision_dataset


def write_mnist(root, content):
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split, prefix in (("train", "train"), ("test", "t10k")):
        images, labels = content[f"{split}_images"], content[f"{split}_labels"].astype(np.uint8)
        for array, name in ((images, "images-idx3-ubyte"), (labels, "labels-idx1-ubyte")):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes()
            (raw / f"{prefix}-{name}").write_bytes(header + array.tobytes())


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_mnist_is_read_as_published(tmp_path):
    content = random_arrays(shape=(28, 28), num_classes=10)
    write_mnist(tmp_path, content)
    data = torchvision_dataset("mnist", tmp_path)
    assert torch.equal(data.train.inputs, from_arrays("mnist", **content).train.inputs)
    assert data.test.labels.tolist() == content["test_labels"].tolist()
    assert (data.num_classes, data.input_shape) == (10, (1, 28, 28))


def test_cifar10_is_read_as_published(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    content = random_arrays(shape=(32, 32, 3), num_classes=10)
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()
    (folder / "meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    monkeypatch.setattr(
        CIFAR10, "meta", {"filename": "meta", "key": "label_names", "md5": md5(folder / "meta")}
    )
    for split in ("train", "test"):
        rows = content[f"{split}_images"].transpose(0, 3, 1, 2).reshape(-1, 3072)
        labels = content[f"{split}_labels"].tolist()
        (folder / split).write_bytes(pickle.dumps({"data": rows, "labels": labels}))
        monkeypatch.setattr(CIFAR10, f"{split}_list", [[split, md5(folder / split)]])
    data = torchvision_dataset("cifar10", tmp_path)
    assert torch.equal(data.test.inputs, from_arrays("cifar10", **content).test.inputs)
    assert data.class_names == tuple("abcdefghij")


def test_svhn_is_read_as_published(tmp_path, monkeypatch):
    from torchvision.datasets import SVHN

    content = random_arrays(shape=(32, 32, 3), num_classes=10)
    files = {}
    for split in ("train", "test"):
        path = tmp_path / f"{split}.mat"
        labels = content[f"{split}_labels"]
        published = np.where(labels == 0, 10, labels)[:, None]  # SVHN files a zero under 10
        savemat(path, {"X": content[f"{split}_images"].transpose(1, 2, 3, 0), "y": published})
        files[split] = ["", path.name, md5(path)]
    monkeypatch.setattr(SVHN, "split_list", files)
    data = torchvision_dataset("svhn", tmp_path)
    assert torch.equal(data.train.inputs, from_arrays("svhn", **content).train.inputs)
    assert data.train.labels.tolist() == content["train_labels"].tolist()


def test_absent_data_set_names_the_remedy(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No cifar100 in .*data.download=true") as caught:
        torchvision_dataset("cifar100", tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"name must be one of mnist, .*got 'imagenet'"):
        torchvision_dataset("imagenet", tmp_path)


def test_download_is_announced(tmp_path, monkeypatch, caplog):
    from torchvision.datasets import MNIST

    content = random_arrays(shape=(28, 28), num_classes=10)
    monkeypatch.setattr(MNIST, "download", lambda self: write_mnist(Path(self.root), content))
    with caplog.at_level(logging.INFO):
        data = torchvision_dataset("mnist", tmp_path, download=True)
    assert len(data.train) == 40
    assert caplog.messages == [f"Downloading mnist to {tmp_path}"]


def test_failed_download_is_one_line(tmp_path, monkeypatch):
    from torchvision.datasets import MNIST

    def fail(self):
        raise RuntimeError("Error downloading train-images:\nTried two mirrors")

    monkeypatch.setattr(MNIST, "download", fail)
    with pytest.raises(ConnectionError, match=r"cannot download mnist .*: Tried two mirrors"):
        torchvision_dataset("mnist", tmp_path, download=True)


# image_folder


def write_image(path, seed, size=(13, 9)):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).save(path)


def write_classes(root, splits, classes=("bee", "ant"), each=3):
    for number, split in enumerate(splits):
        for index, name in enumerate(classes):
            for image in range(each):
                seed = 100 * number + 10 * index + image
                write_image(root / split / name / f"{image}.PNG", seed, (9 + image, 12))
    return root


def write_cub(root):
    rows = [("1", "2.bee/x.png", 2, 1), ("2", "1.ant/y.png", 1, 0), ("3", "2.bee/z.png", 2, 0)]
    for seed, (_, file, _, _) in enumerate(rows):
        write_image(root / "images" / file, seed)
    columns = {
        "images.txt": [f"{key} {file}" for key, file, _, _ in rows],
        "image_class_labels.txt": [f"{key} {label}" for key, _, label, _ in rows],
        "train_test_split.txt": [f"{key} {train}" for key, _, _, train in rows],
        "classes.txt": ["1 1.ant", "2 2.bee"],
    }
    for name, lines in columns.items():
        (root / name).write_text("\n".join(lines) + "\n")
    return root


def read_folder(root, **options):
    options = {"size": 6, "cache": None, "mean": 0, "std": 1, **options}
    return image_folder(root, **options)


def torchvisions(path, size=6):
    from torchvision.transforms import CenterCrop, Compose, Resize, ToTensor

    return Compose([Resize(size), CenterCrop(size), ToTensor()])(Image.open(path).convert("RGB"))


def test_imagenet_layout_is_resized_and_cropped_as_torchvision_does(tmp_path):
    data = read_folder(write_classes(tmp_path / "inet", ["train", "val"]))
    assert (data.name, data.class_names) == ("inet", ("ant", "bee"))
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    for index in range(3):
        expected = torchvisions(tmp_path / "inet" / "train" / "bee" / f"{index}.PNG")
        torch.testing.assert_close(data.train.inputs[3 + index], expected)
        expected = torchvisions(tmp_path / "inet" / "val" / "ant" / f"{index}.PNG")
        torch.testing.assert_close(data.test.inputs[index], expected)


def test_unlabelled_test_directory_of_imagenet_is_passed_over(tmp_path):
    write_classes(tmp_path, ["train", "val"])
    write_image(tmp_path / "test" / "0.png", 0)
    expected = torchvisions(tmp_path / "val" / "ant" / "0.PNG")
    torch.testing.assert_close(read_folder(tmp_path).test.inputs[0], expected)


def test_cinic10_layout_ignores_valid(tmp_path):
    data = read_folder(write_classes(tmp_path, ["train", "valid", "test"]))
    expected = torchvisions(tmp_path / "test" / "ant" / "0.PNG")
    torch.testing.assert_close(data.test.inputs[0], expected)
    assert (len(data.train), len(data.test)) == (6, 6)


def test_cub_layout_follows_its_tables(tmp_path):
    data = read_folder(write_cub(tmp_path))
    assert data.class_names == ("1.ant", "2.bee")
    assert (data.train.labels.tolist(), data.test.labels.tolist()) == ([1], [0, 1])
    torch.testing.assert_close(
        data.test.inputs[1], torchvisions(tmp_path / "images" / "2.bee" / "z.png")
    )


def test_second_reading_comes_from_the_cache_until_a_file_changes(tmp_path, monkeypatch):
    root, cache = write_classes(tmp_path / "root", ["train", "test"]), tmp_path / "cache"
    first = read_folder(root, cache=cache)
    with monkeypatch.context() as patch:
        patch.setattr(Image, "open", lambda path: pytest.fail(f"{path} was decoded again"))
        assert torch.equal(read_folder(root, cache=cache).train.inputs, first.train.inputs)
    write_image(root / "train" / "ant" / "0.PNG", 999, (20, 20))
    second = read_folder(root, cache=cache)
    assert not torch.equal(second.train.inputs[0], first.train.inputs[0])
    assert torch.equal(second.train.inputs[1:], first.train.inputs[1:])
    assert len(list(cache.iterdir())) == 2


def test_given_statistics_spare_decoding_what_is_not_chosen(tmp_path, monkeypatch):
    root = write_classes(tmp_path, ["train", "test"])
    whole = read_folder(root)
    opened = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda path: opened.append(path) or real(path))
    part = read_folder(root, num_examples=2, subset_seed=5)
    assert len(opened) == 4
    for split in ("train", "test"):
        expected = whole.split(split).subset(2, seeded(5))
        assert torch.equal(part.split(split).inputs, expected.inputs)


def test_statistics_of_a_folder_are_those_of_all_its_images(tmp_path):
    root = write_classes(tmp_path, ["train", "test"])
    whole = read_folder(root, mean=None, std=None)
    part = read_folder(root, mean=None, std=None, num_examples=2, subset_seed=5)
    assert torch.equal(part.train.inputs, whole.train.subset(2, seeded(5)).inputs)


def test_image_folder_refuses(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No directory .*absent.*data.root="):
        read_folder(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"must hold images.txt .*got nothing"):
        read_folder(tmp_path / "empty")
    root = write_classes(tmp_path / "root", ["train", "test"])
    with pytest.raises(ValueError, match="size must be positive, got 0"):
        read_folder(root, size=0)
    with pytest.raises(ValueError, match="num_workers must be positive, got 0"):
        read_folder(root, num_workers=0)
    write_image(root / "train" / "cat" / "0.png", 0)
    with pytest.raises(ValueError, match="the same classes, but only one of the two has cat"):
        read_folder(root)


def test_corrupt_image_is_named(tmp_path):
    root = write_classes(tmp_path / "root", ["train", "test"])
    broken = root / "train" / "bee" / "1.PNG"
    broken.write_bytes(broken.read_bytes()[:80])
    with pytest.raises(ValueError, match=r"cannot decode .*train/bee/1\.PNG"):
        read_folder(root, cache=tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_damaged_tables_of_cub_are_named(tmp_path):
    write_cub(tmp_path)
    (tmp_path / "classes.txt").write_text("1 1.ant\n")
    with pytest.raises(ValueError, match="must agree, but one of them lacks the number '2'"):
        read_folder(tmp_path)
    (tmp_path / "classes.txt").write_text("1\n")
    with pytest.raises(
        ValueError, match=r"classes.txt: lines must be a number and a value, got '1'"
    ):
        read_folder(tmp_path)
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"classes\.txt"):
        read_folder(tmp_path)


def test_test_images_alone_need_statistics_before_anything_is_decoded(tmp_path):
    root = write_classes(tmp_path / "root", ["val"])
    (root / "val" / "ant" / "0.PNG").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no training images.*data.mean="):
        read_folder(root, mean=None)


# Options


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_option_has_a_first_line_and_only_keys_of_its_target(path):
    first, *rest = path.read_text().splitlines()
    assert first.startswith("# ")
    option = OmegaConf.load(path)
    parameters = inspect.signature(get_method(option["_target_"])).parameters
    keys = set(option) - {"_target_"}
    assert keys <= set(parameters)
    assert {"num_examples", "mean", "std", "subset_seed"} <= keys
    assert all("  # " in line for line in rest if not line.startswith(("_target_", "name")))
    for key in keys - OmegaConf.missing_keys(option):
        if parameters[key].default is not inspect.Parameter.empty:
            assert option[key] == parameters[key].default, f"{key} differs from its default"
