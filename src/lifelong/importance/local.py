"""Local importance of linear layers: the product of the activities of the units a weight connects (l-MAS)."""

from typing import Any

import torch
from torch import Tensor, nn

from lifelong.importance.engine import Batches
from lifelong.importance.sums import Params, over_batches, trainable, zero_sums
from lifelong.importance.traceless import as_model_input, leaving_no_trace, logits


def local_mas(model: nn.Module, batches: Batches, *, visible: Tensor | None = None) -> Params:
    """Ω_ij = mean over samples of |y_i y_j| for the weight from unit i to unit j (Aljundi et al. 2018, section 4.3).

    y_j is the unit's activity behind its ReLU, or the linear output where no ReLU follows; a bias is fed by y_i = 1.
    It is half of |∂‖y‖²/∂θ_ij|, y the layer's own output. Columns of the last layer that are not visible get 0.

    Raises:
        ValueError: no sample in `batches`, or a trainable parameter that is not of a linear layer on (B, in) inputs.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
    named = {f"{name}.{p}" for name, layer in layers.items() for p, _ in layer.named_parameters(recurse=False)}
    if others := sorted(set(trainable(model)) - named):
        raise ValueError(f"method.local must be false for a backbone with other than linear layers, got {others[0]}")
    sums = zero_sums(model)
    with leaving_no_trace(model):

        def work(x: Tensor, y: Tensor) -> None:
            x = as_model_input(model, x)
            with torch.no_grad(), _activities(model, layers) as seen:
                z = logits(model, x)
            for name, (y_in, y_out) in seen.items():
                shown = visible if visible is not None and y_out.shape == z.shape and y_out.equal(z) else None
                size = y_out.abs() if shown is None else y_out.abs() * shown
                _add(sums, name, size, y_in.abs())

        count = over_batches(batches, work, sums)
    return {name: (sums[name] / count).to(p.dtype) for name, p in trainable(model).items()}


def _add(sums: Params, name: str, y_out: Tensor, y_in: Tensor) -> None:
    if f"{name}.weight" in sums:
        sums[f"{name}.weight"] += y_out.T @ y_in
    if f"{name}.bias" in sums:
        sums[f"{name}.bias"] += y_out.sum(0)


class _activities:
    """Within the block: layer name → [y_in (B, in), y_out (B, out)], y_out replaced by what a ReLU makes of it."""

    def __init__(self, model: nn.Module, layers: dict[str, nn.Linear]) -> None:
        self.seen: dict[str, list[Tensor]] = {}
        self.hooks = [layer.register_forward_hook(self._linear(name)) for name, layer in layers.items()]
        self.hooks += [m.register_forward_hook(self._relu) for m in model.modules() if isinstance(m, nn.ReLU)]

    def _linear(self, name: str) -> Any:
        def hook(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if output.dim() != 2:
                raise ValueError(f"method.local must be false for {name}, whose input is not (B, in)")
            self.seen[name] = [inputs[0], output]

        return hook

    def _relu(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        for pair in self.seen.values():
            if pair[1] is inputs[0]:
                pair[1] = output

    def __enter__(self) -> dict[str, list[Tensor]]:
        return self.seen

    def __exit__(self, *_: object) -> None:
        for hook in self.hooks:
            hook.remove()
