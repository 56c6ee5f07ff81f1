"""Checkpoints: of a task in work (Lightning's own, exact to the batch) and between tasks (a few plain tensors).

Both are one file, last.ckpt, written atomically and loaded with weights_only. A checkpoint in work holds weights,
optimiser, loops, loader position, RNG state, penalty, memory and record, so that a resumed run equals an uninterrupted
one.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lifelong.atomic import atomic_write
from lifelong.cluster import submitted_to
from lifelong.data.stream import Task
from lifelong.interrupted import Interrupted
from lifelong.learner import Learner
from lifelong.memory.base import Memory
from lifelong.penalties.base import Penalty
from lifelong.record import Record
from lifelong.run_folder import DamagedError, RunFolderError

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)


class Checkpoints(Callback):
    """Saves the run every `every_seconds` and on request, always behind a whole optimiser step; the last callback.

    Args:
        path: where last.ckpt goes.
        record, memory: what the run has come to and keeps of earlier tasks; go into every checkpoint.
        position: returns the length in bytes of the history written so far, so that a resumed run can cut what came
            after the checkpoint.
    """

    def __init__(
        self, path: Path, record: Record, memory: Memory, position: Callable[[], int], every_seconds: float
    ) -> None:
        if not every_seconds > 0:
            raise ValueError(f"checkpoint_seconds must be a number > 0, got {every_seconds!r}")
        self.path, self.record, self.memory = path, record, memory
        self.position, self.every_seconds = position, every_seconds
        self.signum = 0
        self._resume: dict[str, Any] | None = None
        self._in_fit = self._handles_signals = False
        self._saved_at = monotonic()

    # Reading -------------------------------------------------------------------------------------------------------

    def load(self, learner: Learner, penalty: Penalty) -> int | None:
        """Take up the checkpoint on disk, if there is one; returns the history length it belongs to, else None.

        A damaged one is said so on stderr, and counts as none.

        Raises:
            RunFolderError: the checkpoint is whole, but of another version of the code.
        """
        if not self.path.exists():
            return None
        try:
            saved = load_whole(self.path)
        except DamagedError as error:
            print(f"{error}: the run starts over", file=sys.stderr)
            return None
        try:
            self.record.load_state_dict(saved["record"])
            self.memory.load_state_dict(saved["memory"])
            if "loops" in saved:
                self._resume = saved
            else:
                learner.load_state_dict(saved["state_dict"])
                penalty.load_state_dict(saved["penalty"])
                learner.optimizer_state = saved.get("optimizer")
            return int(saved["history_bytes"])
        except (KeyError, RuntimeError, TypeError) as error:
            raise RunFolderError(f"{self.path} is of another version of the code: delete it to start over") from error

    def resume_from(self, task: Task) -> Path | None:
        """The checkpoint `task` continues from, if it was interrupted in work."""
        return self.path if self._resume is not None and self.record.task == task.index else None

    # Writing -------------------------------------------------------------------------------------------------------

    def save_boundary(self, learner: Learner, penalty: Penalty) -> None:
        """Between tasks: weights, penalty, memory, record, and the optimiser's state where it is kept; a task makes its
        own loader and randomness."""
        state = {k: v.cpu() for k, v in learner.state_dict().items()}
        parts = {"state_dict": state, "penalty": penalty.state_dict(), "optimizer": learner.optimizer_state}
        self._write({**parts, **self._own()})

    def _own(self) -> dict[str, Any]:
        return {
            "record": self.record.state_dict(),
            "memory": self.memory.state_dict(),
            "history_bytes": self.position(),
        }

    def _write(self, checkpoint: dict[str, Any]) -> None:
        with atomic_write(self.path, "wb") as file:
            torch.save(checkpoint, file)
        self._saved_at = monotonic()

    def _save_in_work(self, trainer: Trainer) -> None:
        checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        if trainer.is_global_zero:
            self._write(checkpoint)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        loader: Any = trainer.train_dataloader
        checkpoint.update(self._own(), loader=loader.state_dict(), rng=torch.get_rng_state())
        if torch.cuda.is_available():
            checkpoint["cuda_rng"] = torch.cuda.get_rng_state()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._in_fit = True
        if self._handles_signals:  # not Lightning's handler, which stops behind any batch, in the midst of a step
            signal.signal(signal.SIGTERM, self._on_signal)
        if self._resume is not None:
            loader: Any = trainer.train_dataloader
            loader.load_state_dict(self._resume["loader"])  # Lightning forgets it if an epoch's end was saved
            epoch: Any = trainer.fit_loop.epoch_progress.current
            epoch.completed = epoch.processed  # Lightning forgets that too if there is a max_steps
            if trainer.fit_loop.restarted_on_epoch_end:  # and then would go on in the epoch that is over
                trainer.fit_loop.reset_restart_stage()
                trainer.fit_loop.epoch_loop.restarting = False
            torch.set_rng_state(self._resume["rng"])
            if "cuda_rng" in self._resume:
                torch.cuda.set_rng_state(self._resume["cuda_rng"])
            self._resume = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        stepped = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        ends = trainer.is_last_batch or trainer.global_step == trainer.max_steps
        if stepped and not ends:  # from an epoch's last batch Lightning would resume as if its end had been
            self._save_if_due(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save_if_due(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._in_fit, self._resume = False, None
        if self.signum:
            raise self._interrupted(self.signum)

    def _save_if_due(self, trainer: Trainer) -> None:
        if self.signum or monotonic() - self._saved_at > self.every_seconds:
            self._save_in_work(trainer)
        if self.signum:
            raise self._interrupted(self.signum)

    def _interrupted(self, signum: int) -> Interrupted:
        then = "continues" if self.path.exists() else "starts over (nothing was saved yet)"
        return Interrupted(signum, f"the same command {then}: {self.path.parent}")

    # Signals -------------------------------------------------------------------------------------------------------

    @contextmanager
    def signals_saved(self) -> Iterator[None]:
        """Within the block SIGINT, SIGTERM and SIGUSR2 (a scheduler's warning of the time limit) wait for the end of
        the optimiser step, where the run is saved; one that comes outside a fit does not wait: the last checkpoint
        then stands. Nor does a second one, but in a job of submitit's, which may get several."""
        here = threading.current_thread() is threading.main_thread()  # elsewhere Python allows no handlers
        before = {s: signal.signal(s, self._on_signal) for s in SIGNALS if here}
        self._handles_signals = here
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if not self._in_fit or (self.signum and submitted_to() is None):
            raise self._interrupted(signum)
        if self.signum != signal.SIGUSR2:  # the one that asks for the job to be queued again
            self.signum = signum


def load_whole(path: Path) -> dict[str, Any]:
    """torch.load with weights_only onto the CPU, behind a check of every byte: torch itself checks no sums.

    Raises:
        DamagedError: the file is not what torch.save wrote.
    """
    try:
        with ZipFile(path) as archive:
            broken = archive.testzip()
    except (BadZipFile, EOFError, NotImplementedError, ValueError) as error:
        raise DamagedError(f"{path} is damaged ({error})") from error
    if broken:
        raise DamagedError(f"{path} is damaged (wrong check sum of {broken})")
    return torch.load(path, map_location="cpu", weights_only=True)
