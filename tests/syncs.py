"""Where a training step makes the host wait for the device: seen on a CPU too, where the same calls cost nothing."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from runs import at_every_batch, run
from tiny import overrides

READS = {"_local_scalar_dense", "equal", "masked_select", "nonzero", "unique_dim", "_unique2"}
"""Operators whose result, or the shape of it, the host must know; item, bool, float and int end in the first."""
CALLS = ("tolist", "numpy", "cpu")
"""What reads a tensor past the dispatcher, or is free on a CPU alone."""
INTERVAL = 5
STEPPING = (
    "batch_size=32", "trainer.max_epochs=1", "val_fraction=0", "log_every_n_steps=1000", "checkpoint_seconds=1e6",
)  # fmt: skip
"""Eleven steps a task, none of them logged or saved."""
QUIET = (2, 3, 4, 7, 8, 9)
"""Steps of a task that neither begin it (the first penalised one is checked) nor end an interval of EWC++ and RWalk."""
VARIANTS: dict[str, tuple[str, ...]] = {
    "clipped": ("trainer.gradient_clip_val=0.1",),
    "proximal": ("method.step=proximal",),
    "accumulated, scheduled": ("trainer.accumulate_grad_batches=2", "scheduler=cosine", "batch_size=16"),
    "two heads, augmented": (
        "scenario=task", "augment=crop_flip", "normalise=first_task",
    ),
}  # fmt: skip


def settings(method: str, variant: str) -> tuple[str, ...]:
    """Of a tiny run; its steps are those of STEPPING."""
    options = (f"method.interval={INTERVAL}",) if method in ("ewcpp", "rwalk") else ()
    return (*overrides(method), *options, *STEPPING, *VARIANTS[variant])


class Waits(TorchDispatchMode):
    """The operators and calls that made the host wait, since the last `taken`."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            isinstance(i, Tensor) and i.dtype == torch.bool
            for a in args if isinstance(a, list | tuple) for i in a
        )  # fmt: skip
        if name in READS or by_mask:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))

    def taken(self) -> list[str]:
        seen, self.seen = self.seen, []
        return seen

    @contextmanager
    def calls_seen(self, patch: pytest.MonkeyPatch) -> Iterator[None]:
        for name in CALLS:
            patch.setattr(Tensor, name, self._counted(name, getattr(Tensor, name)))
        with self:
            yield

    def _counted(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def counted(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            self.seen.append(name)
            return original(tensor, *args, **kwargs)

        return counted


def waits_of_steps(root: Path, patch: pytest.MonkeyPatch, *overrides: str) -> dict[tuple[int, int], list[str]]:
    """(task, step of the task) → what made the host wait between the batch before and this one's end."""
    waits, steps = Waits(), {}

    def note(checkpoints: Any, done: int) -> None:
        key = (checkpoints.record.task, done - checkpoints.record.step)
        steps.setdefault(key, []).extend(waits.taken())

    at_every_batch(patch, note)
    with waits.calls_seen(patch):
        run(root, *overrides)
    return steps
