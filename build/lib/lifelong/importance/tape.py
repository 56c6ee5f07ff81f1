"""What a forward pass shows of the layers that have a closed form: their inputs, and where their gradients come by."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils.hooks import RemovableHandle

from lifelong.importance.layers import has_rule
from lifelong.importance.sums import trainable


class NoClosedForm(ValueError):
    """This model, or this forward pass, is outside of what the closed forms cover."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"path must be auto, func or loop for this model, got 'closed': {reason}")


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer with a closed form and the keys of its trainable parameters in the model, {"weight": "net.0.weight"}."""

    module: nn.Module
    names: dict[str, str]

    def __str__(self) -> str:
        return f"{type(self.module).__name__} ({', '.join(self.names.values())})"


@dataclass(frozen=True, eq=False)
class Pass:
    """One call of a layer: its input `a` (B, ...), in at least float32, and the edge of the graph behind its output.

    The edge is taken at the time of the call: an activation that later works in place on the output (ReLU) does not
    change whose gradient it is.
    """

    layer: Layer
    a: Tensor
    output: GradientEdge


def covered_layers(model: nn.Module) -> list[Layer]:
    """The layers that own the trainable parameters.

    Raises:
        NoClosedForm: a trainable parameter belongs to a module without a closed form, or to two modules.
    """
    key_of = {parameter: key for key, parameter in trainable(model).items()}
    layers: list[Layer] = []
    owned: set[nn.Parameter] = set()
    for module in model.modules():
        own = {name: p for name, p in module.named_parameters(recurse=False) if p.requires_grad}
        names = {name: key_of[p] for name, p in own.items()}
        if own and not has_rule(module):
            raise NoClosedForm(f"{type(module).__name__} ({', '.join(names.values())}) has no closed form")
        if owned & set(own.values()):
            raise NoClosedForm(f"{type(module).__name__} ({', '.join(names.values())}) shares a parameter")
        owned |= set(own.values())
        if own:
            layers.append(Layer(module, names))
    return layers


@contextmanager
def recording(layers: Iterable[Layer], num_samples: int) -> Iterator[list[Pass]]:
    """Fill the list with every layer's pass while the model runs on `num_samples` samples; the hooks go at the end.

    Raises (out of the model's forward):
        NoClosedForm: a layer is called twice, or not with one row per sample.
    """
    passes: list[Pass] = []
    with ExitStack() as hooks:
        for layer in layers:
            hooks.callback(_record(layer, num_samples, passes).remove)
        yield passes


def _record(layer: Layer, num_samples: int, passes: list[Pass]) -> RemovableHandle:
    def remember(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Tensor) -> None:
        if not output.requires_grad:
            return
        a: Tensor = args[0] if args else kwargs["input"]
        if any(seen.layer is layer for seen in passes):
            raise NoClosedForm(f"{layer} is called twice in one forward pass")
        if a.dim() < 2 or len(a) != num_samples:
            raise NoClosedForm(f"{layer} sees {tuple(a.shape)}, not {num_samples} samples in its leading dimension")
        a = a.detach().to(torch.promote_types(a.dtype, torch.float32))
        passes.append(Pass(layer, a, get_gradient_edge(output)))

    return layer.module.register_forward_hook(remember, with_kwargs=True)
