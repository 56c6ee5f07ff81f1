"""The gradient of each sample with respect to one layer's own parameters, for the layers that have a closed form.

Every rule takes the layer, its input `a` (b, ...) and the gradient `g` (b, ...) at its output, and returns the
gradients of the b samples, {"weight": (b, *weight.shape), "bias": (b, *bias.shape)}. That is what autograd sums over
the batch before anybody can square it. Rules hold for the exact type only: a subclass may compute something else.
"""

from collections.abc import Callable
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Rule = Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]]


def linear(layer: nn.Linear, a: Tensor, g: Tensor) -> dict[str, Tensor]:
    """a: (b, ..., in), g: (b, ..., out): the positions between share the weights, so they are summed per sample."""
    a, g = a.flatten(1, -2), g.flatten(1, -2)
    return {"weight": torch.bmm(g.transpose(1, 2), a), "bias": g.sum(1)}


def convolution(layer: nn.Conv1d | nn.Conv2d | nn.Conv3d, a: Tensor, g: Tensor) -> dict[str, Tensor]:
    """a: (b, C, *size), g: (b, O, *size_out). The windows that the kernel sees, times g, summed over positions."""
    pads = layer._reversed_padding_repeated_twice
    if any(pads):
        a = F.pad(a, pads, mode="constant" if layer.padding_mode == "zeros" else layer.padding_mode)
    positions = a.stride()[2:]
    windows = a.as_strided(
        (*a.shape[:2], *layer.kernel_size, *g.shape[2:]),
        (
            *a.stride()[:2],
            *(step * dilation for step, dilation in zip(positions, layer.dilation, strict=True)),
            *(step * stride for step, stride in zip(positions, layer.stride, strict=True)),
        ),
    )
    b, groups = len(a), layer.groups
    columns = windows.reshape(b * groups, layer.weight[0].numel(), -1)
    rows = g.reshape(b * groups, layer.out_channels // groups, -1)
    weight = torch.bmm(rows, columns.transpose(1, 2)).view(b, *layer.weight.shape)
    return {"weight": weight, "bias": g.flatten(2).sum(2)}


def batch_norm(layer: nn.BatchNorm2d, a: Tensor, g: Tensor) -> dict[str, Tensor]:
    """a, g: (b, C, ...), normalised by the running statistics, as in eval mode."""
    mean, variance = (layer.get_buffer(name).to(a.dtype) for name in ("running_mean", "running_var"))
    return _channel_affine(F.batch_norm(a, mean, variance, eps=layer.eps), g)


def group_norm(layer: nn.GroupNorm, a: Tensor, g: Tensor) -> dict[str, Tensor]:
    """a, g: (b, C, ...)."""
    return _channel_affine(F.group_norm(a, layer.num_groups, eps=layer.eps), g)


def _channel_affine(normal: Tensor, g: Tensor) -> dict[str, Tensor]:
    normal, g = normal.reshape(*normal.shape[:2], -1), g.reshape(*g.shape[:2], -1)
    return {"weight": (normal * g).sum(2), "bias": g.sum(2)}


def layer_norm(layer: nn.LayerNorm, a: Tensor, g: Tensor) -> dict[str, Tensor]:
    """a, g: (b, ..., *normalized_shape); the positions between are summed."""
    normal = F.layer_norm(a, layer.normalized_shape, eps=layer.eps)
    shape = (len(a), -1, *layer.normalized_shape)
    return {"weight": (normal * g).view(shape).sum(1), "bias": g.reshape(shape).sum(1)}


RULES: dict[type[nn.Module], Rule] = {
    nn.Linear: linear,  # type: ignore[dict-item]
    nn.Conv1d: convolution,  # type: ignore[dict-item]
    nn.Conv2d: convolution,  # type: ignore[dict-item]
    nn.Conv3d: convolution,  # type: ignore[dict-item]
    nn.BatchNorm1d: batch_norm,  # type: ignore[dict-item]
    nn.BatchNorm2d: batch_norm,  # type: ignore[dict-item]
    nn.BatchNorm3d: batch_norm,  # type: ignore[dict-item]
    nn.GroupNorm: group_norm,  # type: ignore[dict-item]
    nn.LayerNorm: layer_norm,  # type: ignore[dict-item]
}


def has_rule(layer: nn.Module) -> bool:
    """Whether a closed form holds; batch norm without running statistics mixes the samples of a batch."""
    return type(layer) in RULES and getattr(layer, "track_running_stats", True)


def elements_per_sample(layer: nn.Module, a: Tensor) -> int:
    """Numbers that a rule holds at once for one sample of `a`: its gradient and what it is made from."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    kernel = prod(weight.shape[2:]) if weight.dim() > 2 else 1
    return weight.numel() + kernel * a[0].numel()
