"""When a task's training ends before its last epoch. Made anew for every task."""

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping

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
    return [Patience(VALIDATION_ACCURACY, min_delta, epochs, mode="max", check_on_train_epoch_end=True)]


class Patience(EarlyStopping):
    """Lightning's, but a run interrupted behind the decision to stop does not train another epoch when it resumes."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience
