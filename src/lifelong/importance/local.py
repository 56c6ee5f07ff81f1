"""Local importance of linear layers: the product of the activities of the units a weight connects (l-MAS)."""

from contextlib import ExitStack
from functools import partial

import torch
from torch import Tensor, nn

from lifelong.importance.sums import Batches, Params, over_batches, trainable, zero_sums
from lifelong.importance.traceless import as_model_input, leaving_no_trace, logits


def local_mas(model: nn.Module, batches: Batches, *, visible: Tensor | None = None) -> Params:
    """Ω_ij = mean over samples of |y_i y_j| for the weight from unit i to unit j (Aljundi et al. 2018, section 4.3).

    y_j is the unit's activity behind its ReLU, or the linear output where no ReLU follows; a bias is fed by y_i = 1.
    It is half of |∂‖y‖²/∂θ_ij|, y the layer's own output. Columns of the last layer that are not visible get 0.

    Raises:
        ValueError: no sample in `batches`, or a trainable parameter that is not of a linear layer on (B, in) inputs.
    """
    layers = linear_layers(model)
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def on_linear(name: str, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if output.dim() != 2:
            raise ValueError(f"method.local must be false for {name}, whose input is not (B, in)")
        seen[name] = inputs[0], output

    def on_relu(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.update({name: (y_in, output) for name, (y_in, y_out) in seen.items() if y_out is inputs[0]})

    def work(x: Tensor, y: Tensor) -> None:
        with torch.no_grad():
            z = logits(model, as_model_input(model, x))
        for name, (y_in, y_out) in seen.items():
            shown = visible if visible is not None and y_out.shape == z.shape and y_out.equal(z) else None
            size = y_out.abs() if shown is None else y_out.abs() * shown
            _add(sums, name, size, y_in.abs())
        seen.clear()

    with leaving_no_trace(model), ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_hook(partial(on_linear, name)).remove)
        for relu in (m for m in model.modules() if isinstance(m, nn.ReLU)):
            hooks.callback(relu.register_forward_hook(on_relu).remove)
        sums = zero_sums(model)
        count = over_batches(batches, work, sums)
    return {name: (sums[name] / count).to(p.dtype) for name, p in trainable(model).items()}


def linear_layers(model: nn.Module) -> dict[str, nn.Linear]:
    """By name; raises ValueError for a trainable parameter that is of none of them."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    named = {f"{name}.{p}" for name, layer in layers.items() for p, _ in layer.named_parameters(recurse=False)}
    if others := sorted(set(trainable(model)) - named):
        raise ValueError(f"method.local must be false for a backbone with other than linear layers, got {others[0]}")
    return layers


def _add(sums: Params, name: str, y_out: Tensor, y_in: Tensor) -> None:
    if f"{name}.weight" in sums:
        sums[f"{name}.weight"] += y_out.T @ y_in
    if f"{name}.bias" in sums:
        sums[f"{name}.bias"] += y_out.sum(0)
