"""Evaluate a model and leave it as it was found."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def leaving_no_trace(model: nn.Module) -> Iterator[None]:
    """Eval mode, gradients on, autocast off; at the end (or on an error) modes, buffers and global RNG are as before.

    Modes are set flag by flag, so that a module that overrides `train` to stay in one mode is restored exactly.
    """
    modules = list(model.modules())
    training = [module.training for module in modules]
    buffers = [
        (module._buffers, name, buffer, buffer.detach().clone())
        for module in modules
        for name, buffer in module._buffers.items()
        if buffer is not None
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
            for holder, name, buffer, before in buffers:
                _put_back(holder, name, buffer, before)


def _put_back(holder: dict[str, Tensor | None], name: str, buffer: Tensor, before: Tensor) -> None:
    holder[name] = buffer
    if not torch.equal(buffer, before):
        with torch.no_grad():
            buffer.copy_(before)
