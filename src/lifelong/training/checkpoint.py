"""Checkpoints: of a task in work (Lightning's own, exact to the batch) and between tasks (a few plain tensors).

A checkpoint in work holds weights, optimiser, loops, loader position, RNG state, method, memory and record, so that a
resumed run equals an uninterrupted one. The files are those of lifelong.training.checkpoint_files.
"""

import math
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lifelong.data.stream import Task
from lifelong.distributed.ranks import gathered, is_first, largest_over_ranks, this_share, wait_for_all
from lifelong.launch.cluster import submitted_to
from lifelong.memory.base import Memory
from lifelong.methods.method import Method
from lifelong.models.learner import Learner
from lifelong.runs.interrupted import Interrupted
from lifelong.runs.record import Record
from lifelong.training.checkpoint_files import CheckpointFiles, refusal

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
FIRST = 128
"""More than the number of any signal."""


class Checkpoints(Callback):
    """Saves the run every `every_seconds`, every `every_steps` optimiser steps and on request, always behind a whole
    step; the last callback.

    Ranks decide together, behind each step: rank 0 by its clock, any of them by a signal. Rank 0 writes.

    Args:
        files: where the checkpoints go.
        record, memory: what the run has come to and keeps of earlier tasks; go into every checkpoint.
        position: returns the length in bytes of the history written so far, so that a resumed run can cut what came
            after the checkpoint.
    """

    def __init__(
        self,
        files: CheckpointFiles,
        record: Record,
        memory: Memory,
        position: Callable[[], int],
        every_seconds: float,
        every_steps: int | None = None,
    ) -> None:
        if not every_seconds > 0:
            raise ValueError(f"checkpoint_seconds must be a number > 0, got {every_seconds!r}")
        if every_steps is not None and every_steps < 1:
            raise ValueError(f"checkpoint_steps must be an integer >= 1 or null, got {every_steps!r}")
        self.files, self.record, self.memory = files, record, memory
        self.position, self.every_seconds, self.every_steps = position, every_seconds, every_steps
        self.signum = 0
        self._resume: tuple[Path, dict[str, Any]] | None = None
        self._in_fit = self._handles_signals = False
        self._saved_at, self._saved_step = monotonic(), 0

    # Reading -------------------------------------------------------------------------------------------------------

    def load(self, learner: Learner, method: Method) -> int | None:
        """Take up the newest whole checkpoint, if there is one; returns the history length it belongs to, else None.

        Raises:
            RunFolderError: it is of another configuration or version of the code. Nothing has been changed then.
        """
        found = self.files.read()
        if found is None:
            return None
        path, saved = found
        in_work = "loops" in saved
        held = saved["callbacks"].get(method.state_key, {}) if in_work else saved["method"]  # Lightning leaves out {}
        for what, then, now in (
            ("a record", _names(saved["record"]), _names(self.record.state_dict())),
            ("a memory", _names(saved["memory"]), _names(self.memory.state_dict())),
            ("a method", _names(held), _names(method.state_dict())),
            ("weights", _shapes(saved["state_dict"]), _shapes(learner.state_dict())),
        ):
            if misfit := _misfit(then, now):
                raise refusal(path, f"holds {what} {misfit}")
        self.record.load_state_dict(saved["record"])
        self.memory.load_state_dict(saved["memory"])
        if in_work:
            if (begun := len(saved["rng"])) != this_share().of:
                raise refusal(path, f"was written by {begun} processes, now there are {this_share().of}")
            self._resume = found
        else:
            learner.load_state_dict(saved["state_dict"])
            method.load_state_dict(held)
            learner.optimizer_state = saved.get("optimizer")
        return int(saved["history_bytes"])

    def resume_from(self, task: Task) -> Path | None:
        """The checkpoint `task` continues from, if it was interrupted in work."""
        return self._resume[0] if self._resume is not None and self.record.task == task.index else None

    # Writing -------------------------------------------------------------------------------------------------------

    def save_boundary(self, learner: Learner, method: Method) -> None:
        """Between tasks: weights, method, memory, record, and the optimiser's state where it is kept; a task makes its
        own loader and randomness."""
        state = {k: v.cpu() for k, v in learner.state_dict().items()}
        parts = {"state_dict": state, "method": method.state_dict(), "optimizer": learner.optimizer_state}
        self._write({**parts, **self._own()})

    def _own(self) -> dict[str, Any]:
        return {
            "record": self.record.state_dict(),
            "memory": self.memory.state_dict(),
            "history_bytes": self.position(),
        }

    def _write(self, checkpoint: dict[str, Any]) -> None:
        if is_first():
            self.files.write(checkpoint)
        self._saved_at = monotonic()
        wait_for_all()  # a rank that ended before it is on disk would take the others down

    def _save_in_work(self, trainer: Trainer) -> None:
        self._write(trainer._checkpoint_connector.dump_checkpoint(weights_only=False))

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        loader: Any = trainer.train_dataloader
        checkpoint.update(self._own(), loader=loader.state_dict(), rng=gathered(torch.get_rng_state()))
        if torch.cuda.is_available():
            checkpoint["cuda_rng"] = gathered(torch.cuda.get_rng_state())

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._in_fit, self._saved_step = True, trainer.global_step
        if self._handles_signals:  # not Lightning's handler, which stops behind any batch, in the midst of a step
            signal.signal(signal.SIGTERM, self._on_signal)
        if self._resume is not None:
            saved = self._resume[1]
            loader: Any = trainer.train_dataloader
            loader.load_state_dict(saved["loader"])  # Lightning forgets it if an epoch's end was saved
            epoch: Any = trainer.fit_loop.epoch_progress.current
            epoch.completed = epoch.processed  # Lightning forgets that too if there is a max_steps
            if trainer.fit_loop.restarted_on_epoch_end:  # and then would go on in the epoch that is over
                trainer.fit_loop.reset_restart_stage()
                trainer.fit_loop.epoch_loop.restarting = False
            rank = this_share().rank
            torch.set_rng_state(saved["rng"][rank].clone())  # of a view behind the first row torch 2.13 crashes
            if "cuda_rng" in saved:
                torch.cuda.set_rng_state(saved["cuda_rng"][rank].clone())
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
        if signum := self._signum_of_all()[0]:
            raise self._interrupted(signum)

    def _save_if_due(self, trainer: Trainer) -> None:
        steps = trainer.global_step - self._saved_step
        due = monotonic() - self._saved_at > self.every_seconds or (self.every_steps or math.inf) <= steps
        signum, due = self._signum_of_all(due and is_first())
        if signum or due:
            self._save_in_work(trainer)
            self._saved_step = trainer.global_step
        if signum:
            raise self._interrupted(signum)

    def _signum_of_all(self, due: bool = False) -> tuple[int, bool]:
        """The signal that came to any rank, SIGUSR2 before others, and whether any rank is due."""
        asked, is_due = largest_over_ranks(self.signum + FIRST * (self.signum == signal.SIGUSR2), due)
        return asked % FIRST, bool(is_due)

    def _interrupted(self, signum: int) -> Interrupted:
        then = "continues" if self.files.exist else "starts over (nothing was saved yet)"
        return Interrupted(signum, f"the same command {then}: {self.files.last.parent}")

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


def _names(state: Mapping[str, Any]) -> dict[str, str]:
    return dict.fromkeys(state, "")


def _shapes(state: Mapping[str, Tensor]) -> dict[str, str]:
    return {name: str(tuple(tensor.shape)) for name, tensor in state.items()}


def _misfit(then: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """What of a state the present code does not know, lacks or has in another shape, in words; None if nothing."""
    for name in then:
        if name not in now:
            return f"with {name}, which the code no longer has"
    for name in now:
        if name not in then:
            return f"without {name}, which the code now has"
        if then[name] != now[name]:
            return f"with {name} {then[name]}, now {now[name]}"
    return None
