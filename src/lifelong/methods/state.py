"""What a method keeps: saved, restored and moved between devices from one line."""

from typing import Any, ClassVar

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor


class Stateful(Callback):
    """A callback whose state is the attributes that `state` names."""

    state: ClassVar[tuple[str, ...]] = ()
    """Attributes that are saved, restored and moved: tensors, numbers, or dicts of tensors."""

    def tensors(self) -> list[Tensor]:
        """All tensors of the state."""
        return [t for name in self.state for t in _tensors(getattr(self, name))]

    def state_bytes(self) -> int:
        """Bytes of the state's tensors."""
        return sum(t.numel() * t.element_size() for t in self.tensors())

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.state}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        for name in self.state:
            setattr(self, name, state_dict[name])

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """What was restored lies on the CPU. A task resumed after its last step comes here, but starts no training."""
        self.move(pl_module.device)

    def move(self, device: torch.device) -> None:
        for name in self.state:
            setattr(self, name, _moved(getattr(self, name), device))


def _moved(value: Any, device: torch.device) -> Any:
    if isinstance(value, dict):
        return {k: v.to(device) for k, v in value.items()}
    return value.to(device) if isinstance(value, Tensor) else value


def _tensors(value: Any) -> list[Tensor]:
    return list(value.values()) if isinstance(value, dict) else [value] if isinstance(value, Tensor) else []
