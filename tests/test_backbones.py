"""The networks against parameter counts taken by hand, and the structure that importance and samplers rely on."""

import math
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lifelong.models.backbone import Backbone
from lifelong.models.cnn import CNN
from lifelong.models.mlp import MLP
from lifelong.models.resnet import ResNet18

SHAPES = [(1, 28, 28), (1, 8, 8), (3, 32, 32)]


SMALL: dict[str, Callable[..., Backbone]] = {
    "mlp": partial(MLP, widths=[16, 12], dropout=0.1),
    "cnn": partial(CNN, channels=[4, 6, 8], hidden=12, dropout=0.1),
    "resnet": partial(ResNet18, width=4),
    "resnet group": partial(ResNet18, width=6, norm="group"),
}
every_backbone = pytest.mark.parametrize("name", SMALL)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def num_parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_mlp_and_cnn_have_the_parameters_counted_by_hand() -> None:
    mlp = (784 * 1024 + 1024) + (1024 * 512 + 512) + (512 * 256 + 256) + (256 * 10 + 10)
    assert num_parameters(MLP((1, 28, 28), 10)) == mlp == 1_462_538
    assert num_parameters(MLP((1, 28, 28), 10, bias=False)) == mlp - 1024 - 512 - 256 - 10
    cnn = (32 * 1 * 9 + 32) + (64 * 32 * 9 + 64) + (64 * 7 * 7 * 128 + 128) + (128 * 10 + 10)
    assert num_parameters(CNN((1, 28, 28), 10)) == cnn == 421_642


@pytest.mark.parametrize(
    ("width", "num_classes", "known"),
    # 64: the CIFAR ResNet-18 in common use; 20 over 100 classes: the reduced network of GEM, counted below
    [(64, 10, 11_173_962), (20, 100, 1_109_240)],
)
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_resnet18_has_the_known_number_of_parameters(width: int, num_classes: int, known: int, norm: str) -> None:
    def stage(fan_in: int, fan_out: int, shortcut: bool) -> int:
        convolutions = 9 * fan_in * fan_out + 3 * 9 * fan_out * fan_out
        return convolutions + 4 * 2 * fan_out + shortcut * (fan_in * fan_out + 2 * fan_out)

    stem, head = 9 * 3 * width + 2 * width, 8 * width * num_classes + num_classes
    stages = stage(width, width, False) + sum(stage(m * width, 2 * m * width, True) for m in (1, 2, 4))
    assert num_parameters(ResNet18((3, 32, 32), num_classes, width=width, norm=norm)) == stem + stages + head == known


@every_backbone
@every_shape
def test_forward_is_the_head_of_the_features(name: str, shape: tuple[int, int, int]) -> None:
    model = SMALL[name](shape, 7).eval()
    x = torch.rand(5, *shape)
    features = model.features(x)
    assert features.shape == (5, model.head.in_features)
    assert model(x).shape == (5, 7)
    torch.testing.assert_close(model(x), features @ model.head.weight.T + model.head.bias)
    assert {n for n, _ in model.named_parameters() if n.startswith("head")} == {"head.weight", "head.bias"}


@every_backbone
@every_shape
def test_gradient_reaches_every_parameter(name: str, shape: tuple[int, int, int]) -> None:
    model = SMALL[name](shape, 7)
    model(torch.rand(16, *shape)).square().sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []


@every_backbone
def test_no_module_is_called_twice_and_none_is_idle(name: str) -> None:
    model = SMALL[name]((3, 32, 32), 7)
    calls: Counter[str] = Counter()
    leaves = [n for n, m in model.named_modules() if not any(m.children()) and not isinstance(m, nn.Sequential)]
    for leaf in leaves:
        model.get_submodule(leaf).register_forward_hook(lambda *_, leaf=leaf: calls.update([leaf]))
    model(torch.rand(2, 3, 32, 32))
    assert calls == dict.fromkeys(leaves, 1)


@every_backbone
def test_features_are_not_negative_as_they_come_out_of_a_relu(name: str) -> None:
    features = SMALL[name]((1, 8, 8), 3).features(torch.rand(9, 1, 8, 8))
    assert features.min() >= 0
    assert features.any()


def test_cnn_is_its_formula() -> None:
    model = CNN((3, 8, 8), 5, channels=[4, 6], hidden=7)
    c1, c2, hidden = (m for m in model.body if isinstance(m, nn.Conv2d | nn.Linear))
    x = torch.rand(2, 3, 8, 8)
    y = F.max_pool2d(F.conv2d(x, c1.weight, c1.bias, padding=1).relu(), 2)
    y = F.max_pool2d(F.conv2d(y, c2.weight, c2.bias, padding=1).relu(), 2)
    torch.testing.assert_close(model.features(x), F.linear(y.flatten(1), hidden.weight, hidden.bias).relu())


def test_resnet18_is_the_network_of_the_paper() -> None:
    """3×3 stem, then pairs of 3×3 convolutions that halve the image and double the channels at three stages of four."""
    model = ResNet18((3, 32, 32), 10, width=2).eval()
    x = torch.rand(2, 3, 32, 32)
    y = model.stem[1](F.conv2d(x, model.stem[0].weight, padding=1)).relu()
    for i, block in enumerate(model.stages):
        stride = 2 if i in (2, 4, 6) else 1
        conv1, norm1, _, conv2, norm2 = block.residual
        z = norm1(F.conv2d(y, conv1.weight, stride=stride, padding=1)).relu()
        z = norm2(F.conv2d(z, conv2.weight, padding=1))
        if stride == 2:
            y = block.shortcut[1](F.conv2d(y, block.shortcut[0].weight, stride=2))
        y = (y + z).relu()
    assert y.shape == (2, 16, 4, 4)
    torch.testing.assert_close(model.features(x), y.mean(dim=(2, 3)))


@pytest.mark.parametrize(("width", "groups"), [(64, [32, 32, 32, 32]), (20, [4, 8, 16, 32]), (5, [1, 2, 4, 8])])
def test_group_norm_has_as_many_groups_as_divide_32_and_the_channels(width: int, groups: list[int]) -> None:
    norms = [m for m in ResNet18((1, 8, 8), 2, width=width, norm="group").modules() if isinstance(m, nn.GroupNorm)]
    assert {m.num_channels: m.num_groups for m in norms} == dict(
        zip([width * m for m in (1, 2, 4, 8)], groups, strict=True)
    )


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (MLP, {"widths": []}, r"backbone.widths must be a non-empty list of positive integers, got \[\]"),
        (MLP, {"widths": [64, 0]}, r"backbone.widths must be .* got \[64, 0\]"),
        (MLP, {"widths": [True]}, r"backbone.widths must be .* got \[True\]"),
        (MLP, {"dropout": 1.0}, r"backbone.dropout must be a number in \[0, 1\), got 1.0"),
        (MLP, {"dropout": float("nan")}, r"backbone.dropout must be .* got nan"),
        (MLP, {"bias": "no"}, r"backbone.bias must be true or false, got 'no'"),
        (CNN, {"channels": [4] * 4}, r"backbone.channels must have at most 3 entries for 8×9 images"),
        (CNN, {"hidden": 0}, r"backbone.hidden must be a positive integer, got 0"),
        (ResNet18, {"width": 0}, r"backbone.width must be a positive integer, got 0"),
        (ResNet18, {"norm": "layer"}, r'backbone.norm must be "batch" or "group", got \'layer\''),
    ],
)
def test_bad_options_end_with_the_key_and_the_value(
    network: type[Backbone], options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        network((1, 8, 9), 3, **options)


@pytest.mark.parametrize("network", [CNN, ResNet18])
def test_network_of_images_refuses_other_inputs(network: type[Backbone]) -> None:
    with pytest.raises(ValueError, match=r"backbone must be mlp, .* got shape \[8, 8\]"):
        network((8, 8), 3)


# Initialisation ------------------------------------------------------------------------------------------------------

INITS: dict[str, tuple[Callable[[int, int], float], float, float]] = {
    "xavier": (lambda fan_in, fan_out: math.sqrt(6 / (fan_in + fan_out)), 1 / math.sqrt(3), 0.0),
    # σ of a normal that is cut at 2 σ: √(1 − 4 φ(2)/(2 Φ(2) − 1)) = 0.8796 of 0.1, that is 0.4398 of the bound
    "truncated_normal": (lambda fan_in, fan_out: 0.2, 0.4398, 0.1),
}
"""Bound of a weight, standard deviation as a share of it, and bias."""


@pytest.mark.parametrize("init", INITS)
@every_backbone
def test_initialised_weights_have_the_law_s_bound_and_spread_and_norms_are_torch_s(name: str, init: str) -> None:
    bound_of, spread, bias = INITS[init]
    model, shares = SMALL[name]((3, 32, 32), 7, init=init), []
    for layer in (m for m in model.modules() if isinstance(m, nn.Linear | nn.Conv2d)):
        w = layer.weight
        bound = bound_of(w[0].numel(), w.shape[0] * w[0, 0].numel())
        assert w.abs().max() <= bound
        shares.append(w.detach().flatten() / bound)
        assert layer.bias is None or bool((layer.bias == bias).all())
    share = torch.cat(shares)  # thousands of draws: a standard error below 0.01 for mean and spread
    torch.testing.assert_close(
        (share.mean(), share.std()), (torch.tensor(0.0), torch.tensor(spread)), rtol=0, atol=0.04
    )
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)]
    assert all(bool((m.weight == 1).all() and (m.bias == 0).all()) for m in norms)


@every_backbone
def test_torch_s_own_initialisation_is_left_as_it_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(3)
    ours = SMALL[name]((3, 32, 32), 7).state_dict()
    monkeypatch.setattr(Backbone, "initialise", lambda *_: None)
    torch.manual_seed(3)
    torch.testing.assert_close(ours, SMALL[name]((3, 32, 32), 7).state_dict(), rtol=0, atol=0)
