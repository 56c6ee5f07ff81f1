"""Evaluate a model and leave it as it was found."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def leaving_no_trace(model: nn.Module) -> Iterator[None]:
    """Eval mode, gradients on, autocast off; at the end (or on an error) modes, buffers and global RNG are as before.

    So are tensors that a forward pass makes (weight_norm) or changes (an embedding with `max_norm`). Modes are set flag
    by flag, so that a module that overrides `train` to stay in one mode is restored exactly.
    """
    modules = list(model.modules())
    training = [module.training for module in modules]
    moving = [
        (holder, name, tensor, tensor.detach().clone())
        for module in modules
        for holder in (module._buffers, vars(module), module._parameters if hasattr(module, "max_norm") else {})
        for name, tensor in holder.items()
        if isinstance(tensor, Tensor)
    ]
    with ExitStack() as stack:
        devices = {parameter.device for parameter in model.parameters()}
        stack.enter_context(torch.random.fork_rng(devices=[d for d in devices if d.type == "cuda"], device_type="cuda"))
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        for kind in {"cpu", *(device.type for device in devices)} - {"meta"}:
            stack.enter_context(torch.autocast(kind, enabled=False))
        try:
            for module in modules:
                module.training = False
            yield
        finally:
            for module, mode in zip(modules, training, strict=True):
                module.training = mode
            for holder, name, tensor, before in moving:
                _put_back(holder, name, tensor, before)


def _put_back(holder: Any, name: str, tensor: Tensor, before: Tensor) -> None:
    holder[name] = tensor
    if not torch.equal(tensor, before):
        with torch.no_grad():
            tensor.copy_(before)


def as_model_input(model: nn.Module, x: Tensor) -> Tensor:
    """x in the model's dtype, and usable by autograd even if it was made in inference mode."""
    x = x.clone() if x.is_inference() else x
    dtypes = [p.dtype for p in model.parameters() if p.is_floating_point()]
    return x.to(dtypes[0]) if x.is_floating_point() and dtypes else x


def logits(model: nn.Module, x: Tensor) -> Tensor:
    """model(x), (B, K). Raises ValueError if the model returns anything else."""
    z = model(x)
    if not isinstance(z, Tensor):
        raise ValueError(f"model must return logits, one tensor (B, K), got {type(z).__name__}")
    if z.dim() != 2 or len(z) != len(x):
        raise ValueError(f"model must return logits (B, K), got shape {tuple(z.shape)} for B = {len(x)}")
    return z
