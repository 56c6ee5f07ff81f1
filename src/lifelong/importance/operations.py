"""Operations with a closed form: where their parameters come in, and the gradient of each sample with respect to them.

A reader takes the arguments of one call, as torch has them, and returns its `Operands`, or None for what it does not
cover. A rule takes the input `a` (b, ...) of the operation and R gradients (b, ...) at its output and returns those of
each of the b samples with respect to one parameter, (b, R, *parameter.shape), in contiguous memory of its own. That is
what autograd sums over the batch before anybody can square it.
"""

from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Rule = Callable[[Tensor, Sequence[Tensor]], Tensor]
Maybe = Tensor | None
Sizes = Sequence[int]


class Operands(NamedTuple):
    """One call's input, None if no rule asks for it, and the rule of each tensor that may be a parameter."""

    a: Maybe
    rules: list[tuple[Maybe, Rule]]
    last_dim: int = 0
    """The last of the leading dimensions in which the samples may lie."""
    window: int = 1
    """Copies of `a` that a rule holds at once."""
    prepare: Callable[[Tensor], Tensor] = torch.Tensor.detach
    """What the rules take in the place of `a`."""


# Linear maps -------------------------------------------------------------------------------------------------------


def of_linear(input: Tensor, weight: Tensor, bias: Maybe = None) -> Operands:
    return Operands(input, [(weight, linear_weight), (bias, linear_bias)], last_dim=input.dim() - 2)


def of_matmul(input: Tensor, other: Tensor) -> Operands | None:
    if other.dim() != 2:
        return None
    return Operands(input, [(other, lambda a, gs: linear_weight(a, gs).mT.contiguous())], last_dim=input.dim() - 2)


def linear_weight(a: Tensor, gs: Sequence[Tensor]) -> Tensor:
    """a: (b, ..., in), each of gs: (b, ..., out): positions share the weights, so they are summed per sample.

    One product (R·out × positions) (positions × in) per sample: R small ones take up to twice the time.
    """
    g = stacked([positions(g) for g in gs], 2)
    return torch.bmm(g.flatten(2).mT, positions(a)).view(len(a), *g.shape[2:], a.shape[-1])


def linear_bias(a: Tensor, gs: Sequence[Tensor]) -> Tensor:
    return torch.stack([positions(g).sum(1) for g in gs], 1)


def positions(t: Tensor) -> Tensor:
    """(b, ..., features) → (b, number of positions, features)."""
    return t.flatten(1, -2) if t.dim() > 2 else t.unsqueeze(1)


def of_convolution(
    input: Tensor, weight: Tensor, bias: Maybe = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Operands:  # fmt: skip
    kernel = weight.shape[2:]
    strides, dilations = (_per_dimension(value, len(kernel)) for value in (stride, dilation))
    if padding == "same":
        reach = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
        pads = [pad for n in reversed(reach) for pad in (n // 2, n - n // 2)]
    else:
        sizes = _per_dimension(0 if padding == "valid" else padding, len(kernel))
        pads = [pad for n in reversed(sizes) for pad in (n, n)]
    rule = partial(convolution_weight, weight.shape, pads, strides, dilations, groups)
    return Operands(input, [(weight, rule), shift(bias, channels(input, len(weight)))], window=prod(kernel))


def convolution_weight(
    shape: torch.Size, pads: Sizes, strides: Sizes, dilations: Sizes, groups: int, a: Tensor, gs: Sequence[Tensor]
) -> Tensor:
    """a: (b, C, *size), each of gs: (b, O, *size_out). The windows that the kernel sees, times g."""
    a = F.pad(a, list(pads)) if any(pads) else a
    steps = a.stride()[2:]
    within = (step * d for step, d in zip(steps, dilations, strict=True))
    between = (step * s for step, s in zip(steps, strides, strict=True))
    windows = a.as_strided((*a.shape[:2], *shape[2:], *gs[0].shape[2:]), (*a.stride()[:2], *within, *between))
    columns = windows.reshape(len(a) * groups, shape[1:].numel(), -1)
    rows = stacked([g.reshape(len(a) * groups, shape[0] // groups, -1) for g in gs], 1).flatten(1, 2)
    each = torch.bmm(rows, columns.mT).view(len(a), groups, len(gs), -1)
    return each.transpose(1, 2).reshape(len(a), len(gs), *shape)


def stacked(gs: Sequence[Tensor], dim: int) -> Tensor:
    """torch.stack, but no copy of one alone."""
    return gs[0].unsqueeze(dim) if len(gs) == 1 else torch.stack(list(gs), dim)


def _per_dimension(value: int | Sizes, num: int) -> tuple[int, ...]:
    return (value,) * num if isinstance(value, int) else tuple(value) * (num if len(value) == 1 else 1)


# Element by element -------------------------------------------------------------------------------------------------


def scale(parameter: Maybe, like: Sizes) -> tuple[Maybe, Rule]:
    """Of a ∘ parameter, where the parameter has the shape `like` when it is broadcast."""
    return parameter, lambda a, gs: torch.stack([_summed(parameter, like, a * g) for g in gs], 1)


def shift(parameter: Maybe, like: Sizes) -> tuple[Maybe, Rule]:
    """Of a + parameter."""
    return parameter, lambda a, gs: torch.stack([_summed(parameter, like, g) for g in gs], 1)


def _summed(parameter: Maybe, like: Sizes, g: Tensor) -> Tensor:
    """Over the dimensions along which the parameter was repeated."""
    assert parameter is not None
    padded = (1,) * (g.dim() - len(like)) + tuple(like)
    repeated = [d for d in range(1, g.dim()) if padded[d] == 1]
    return (g.sum(repeated) if repeated else g).reshape(len(g), *parameter.shape)


def of_sum(input: Tensor, other: Any, *, alpha: float = 1) -> Operands | None:
    return None if alpha != 1 else _of_two(input, other, shift)


def of_product(input: Tensor, other: Any) -> Operands | None:
    return _of_two(input, other, scale)


def _of_two(input: Tensor, other: Any, kind: Callable[[Maybe, Sizes], tuple[Maybe, Rule]]) -> Operands | None:
    """Of the two, what is no parameter is the input."""
    if not isinstance(input, Tensor) or not isinstance(other, Tensor):
        return None
    a, parameter = (other, input) if input.is_leaf and input.requires_grad else (input, other)
    return None if parameter.dim() > a.dim() else Operands(a, [kind(parameter, parameter.shape)])


def of_expand(input: Tensor, *sizes: Any, **options: Any) -> Operands:
    return Operands(None, [shift(input, input.shape)])


def of_prelu(input: Tensor, weight: Tensor) -> Operands:
    return Operands(input, [scale(weight, channels(input, len(weight)))], prepare=lambda a: a.clamp_max(0))


def channels(input: Tensor, num: int) -> tuple[int, ...]:
    """The shape of one number per channel, (C, 1, ...), for an input (B, C, ...)."""
    return num, *(1,) * (input.dim() - 2)


def of_batch_norm(
    input: Tensor, mean: Maybe, variance: Maybe, weight: Maybe = None, bias: Maybe = None, training: bool = False,
    momentum: float = 0.1, eps: float = 1e-5,
) -> Operands | None:  # fmt: skip
    """Normalised by the running statistics, as in eval mode; those of the batch mix its samples."""
    if training or mean is None or variance is None:
        return None
    like = channels(input, len(mean))
    return Operands(
        input,
        [scale(weight, like), shift(bias, like)],
        prepare=lambda a: F.batch_norm(a, mean.to(a.dtype), variance.to(a.dtype), eps=eps),
    )


def of_group_norm(
    input: Tensor, num_groups: int, weight: Maybe = None, bias: Maybe = None, eps: float = 1e-5
) -> Operands:
    like = channels(input, input.shape[1])
    rules = [scale(weight, like), shift(bias, like)]
    return Operands(input, rules, prepare=lambda a: F.group_norm(a, num_groups, eps=eps))


def of_layer_norm(
    input: Tensor, normalized_shape: Sizes, weight: Maybe = None, bias: Maybe = None, eps: float = 1e-5
) -> Operands:
    shape = list(normalized_shape)
    rules, last_dim = [scale(weight, shape), shift(bias, shape)], input.dim() - len(shape) - 1
    return Operands(input, rules, last_dim, prepare=lambda a: F.layer_norm(a, shape, eps=eps))


# Look-ups -----------------------------------------------------------------------------------------------------------


def of_embedding(
    input: Tensor, weight: Tensor, padding_idx: int | None = None, *, scale_grad_by_freq: bool = False, **options: Any
) -> Operands | None:
    """A gradient scaled by how often a token occurs in the batch is no sample's own. Padding becomes token V of V."""
    if scale_grad_by_freq:
        return None
    num = len(weight)
    padding = num if padding_idx is None else padding_idx % num

    def rule(a: Tensor, gs: Sequence[Tensor]) -> Tensor:
        g = torch.stack([g.flatten(1, -2) for g in gs], 1)
        index = a.flatten(1)[:, None, :, None].expand_as(g)
        each = g.new_zeros(*g.shape[:2], num + 1, g.shape[-1]).scatter_add_(2, index, g)
        return each[:, :, :num].contiguous()

    return Operands(input, [(weight, rule)], input.dim() - 1, prepare=lambda a: a.masked_fill(a == padding, num))


READERS: dict[Callable, Callable[..., Operands | None]] = {
    F.linear: of_linear,
    **dict.fromkeys([torch.matmul, Tensor.matmul], of_matmul),
    **dict.fromkeys([F.conv1d, F.conv2d, F.conv3d], of_convolution),
    F.batch_norm: of_batch_norm,
    F.group_norm: of_group_norm,
    F.layer_norm: of_layer_norm,
    F.prelu: of_prelu,
    F.embedding: of_embedding,
    **dict.fromkeys([torch.add, Tensor.add, Tensor.add_], of_sum),
    **dict.fromkeys([torch.mul, Tensor.mul], of_product),
    Tensor.expand: of_expand,
}
