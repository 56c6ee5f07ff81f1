"""When a task's training ends before its last epoch. Made anew for every task."""

import math
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

VALIDATION_ACCURACY = "val/accuracy"
"""What the tracker logs of the task in work at the end of each epoch."""


def none() -> list[Callback]:
    """Every task has all its epochs."""
    return []


def patience(epochs: int, min_delta: float = 0.0) -> list[Callback]:
    """A task ends when its validation accuracy has not risen by more than `min_delta` for that many epochs.

    The weights stay those of the last epoch: what SI and RWalk have summed along the path leads there.

    Raises:
        ValueError: a setting outside what is allowed.
    """
    if epochs < 1:
        raise ValueError(f"early_stopping.epochs must be an integer >= 1, got {epochs!r}")
    if not 0 <= min_delta < 1:
        raise ValueError(f"early_stopping.min_delta must be a number in [0, 1), got {min_delta!r}")
    return [Patience(epochs, min_delta)]


class Patience(Callback):
    """Stands between the tracker and the checkpoints, so that these hold what was decided at an epoch's end.

    Lightning's EarlyStopping is called after all other callbacks, wherever it stands: a run interrupted at the end of
    an epoch would forget that epoch.
    """

    def __init__(self, epochs: int, min_delta: float) -> None:
        self.epochs, self.min_delta = epochs, min_delta
        self.best, self.waited = -math.inf, 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._decide(trainer)  # it may be resumed after its last epoch

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        accuracy = float(trainer.callback_metrics[VALIDATION_ACCURACY])
        risen = accuracy - self.min_delta > self.best
        self.best, self.waited = (accuracy, 0) if risen else (self.best, self.waited + 1)
        self._decide(trainer)

    def _decide(self, trainer: Trainer) -> None:
        trainer.should_stop = trainer.should_stop or self.waited >= self.epochs

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "waited": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.waited = state_dict["best"], state_dict["waited"]
