"""Checkpoints: of a task in work (Lightning's own, exact to the batch) and between tasks (a few plain tensors).

A checkpoint in work holds weights, optimiser, loops, loader position, RNG state, method, memory and record, so that a
resumed run equals an uninterrupted one. The files are those of lifelong.training.checkpoint_files.
"""

import math
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from lifelong.data.loader import Batches
from lifelong.distributed.ranks import gathered, is_first, largest_over_ranks, this_shard, wait_for_all
from lifelong.launch.cluster import submitted_to
from lifelong.memory.base import Memory
from lifelong.methods.method import Method
from lifelong.models.learner import Learner
from lifelong.runs.interrupted import Interrupted, handlers_put_back
from lifelong.runs.record import Record
from lifelong.training.checkpoint_files import CheckpointFiles, refusal


class Checkpoints(Callback):
    """Saves the run every `every_seconds`, every `every_steps` optimiser steps and on request, always after a whole
    step; the last callback.

    Ranks decide together, after each step: rank 0 by its clock, any of them by a signal. Rank 0 writes.

    Args:
        files: where the checkpoints go.
        record, memory: go into every checkpoint.
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
        self.files, self.record, self.memory = files, record, memory
        self.position, self.every_seconds, self.every_steps = position, every_seconds, every_steps
        self.signum = 0
        self._resume: tuple[Path, dict[str, Any]] | None = None
        self._in_fit = self._handles_signals = False
        self._saved_at, self._saved_step = monotonic(), 0

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
        kept = saved["callbacks"].get(method.state_key, {}) if in_work else saved["method"]  # Lightning leaves out {}
        for what, then, now in (
            ("a record", saved["record"], self.record.state_dict()),
            ("a memory", saved["memory"], self.memory.state_dict()),
            ("a method", kept, method.state_dict()),
            ("weights", saved["state_dict"], learner.state_dict()),
        ):
            if difference := _difference(then, now, shapes=what == "weights"):
                raise refusal(path, f"holds {what} {difference}")
        self.record.load_state_dict(saved["record"])
        self.memory.load_state_dict(saved["memory"])
        if in_work:
            if (begun := len(saved["rng"])) != this_shard().of:
                raise refusal(path, f"was written by {begun} processes, now there are {this_shard().of}")
            self._resume = found
        else:
            learner.load_state_dict(saved["state_dict"])
            method.load_state_dict(kept)
            learner.optimizer_state = saved.get("optimizer")
        return int(saved["history_bytes"])

    @property
    def resume_from(self) -> Path | None:
        """The checkpoint of a task in work that the next fit continues from."""
        return self._resume and self._resume[0]

    def save_boundary(self, learner: Learner, method: Method) -> None:
        """Between tasks: a task makes its own loader and randomness, so that neither is saved."""
        state = {k: v.cpu() for k, v in learner.state_dict().items()}
        self._write(
            {**self._own(), "state_dict": state, "method": method.state_dict(), "optimizer": learner.optimizer_state}
        )

    def _own(self) -> dict[str, Any]:
        record, memory = self.record.state_dict(), self.memory.state_dict()
        return {"record": record, "memory": memory, "history_bytes": self.position()}

    def _write(self, checkpoint: dict[str, Any]) -> None:
        if is_first():
            self.files.write(checkpoint)
        self._saved_at = monotonic()
        wait_for_all()  # a rank that ended before it is on disk would take the others down

    def _save_in_work(self, trainer: Trainer) -> None:
        self._write(trainer._checkpoint_connector.dump_checkpoint(weights_only=False))

    def save_in_work(self, lightnings: Mapping[str, Any], loader: Batches) -> None:
        """Write what Lightning would save of a task in work, and what it does not know of."""
        self._write({**lightnings, **self._beside(loader)})

    def _beside(self, loader: Batches) -> dict[str, Any]:
        found = {**self._own(), "loader": loader.state_dict(), "rng": gathered(torch.get_rng_state())}
        return {**found, "cuda_rng": gathered(torch.cuda.get_rng_state())} if torch.cuda.is_available() else found

    def take_up(self) -> dict[str, Any] | None:
        """The checkpoint of a task in work that the run has loaded, handed out once, to whom it goes on with."""
        resume, self._resume = self._resume, None
        return resume and resume[1]

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint.update(self._beside(trainer.train_dataloader))  # type: ignore[arg-type]

    def begin(self, step: int) -> None:
        """From here on, at this step of a task, signals wait for a step's end."""
        self._in_fit, self._saved_step = True, step

    def end(self) -> None:
        """The steps of the task are done. Raises Interrupted if a signal has come meanwhile."""
        self._in_fit, self._resume = False, None
        if signum := self._signum_of_all()[0]:
            raise self.interrupted(signum)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.begin(trainer.global_step)
        if self._handles_signals:  # not Lightning's handler, which stops after any batch, in the midst of a step
            signal.signal(signal.SIGTERM, self._on_signal)
        if self._resume is not None:
            saved = self._resume[1]
            loader: Any = trainer.train_dataloader
            loader.load_state_dict(saved["loader"])  # Lightning forgets it if an epoch's end was saved
            if loader.position >= trainer.num_training_batches:  # where limit_train_batches ends an epoch
                loader.position = len(loader)
            progress: Any = trainer.fit_loop.epoch_progress
            for epoch in (progress.current, progress.total):
                epoch.completed = epoch.processed  # Lightning forgets that too if there is a max_steps
            if trainer.fit_loop.restarted_on_epoch_end:  # and then would go on in the epoch that is over
                trainer.fit_loop.reset_restart_stage()
                trainer.fit_loop.epoch_loop.restarting = False
            rank = this_shard().rank
            torch.set_rng_state(saved["rng"][rank].clone())  # of a view past the first row torch 2.13 crashes
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
        self.end()

    def due(self, step: int) -> tuple[bool, int]:
        """Whether to save after this step of the task, and the signal that then ends the run, 0 for none."""
        late = monotonic() - self._saved_at > self.every_seconds
        late = late or (self.every_steps or math.inf) <= step - self._saved_step
        signum, is_due = self._signum_of_all(late and is_first())
        if is_due := is_due or signum > 0:
            self._saved_at, self._saved_step = monotonic(), step
        return is_due, signum

    def _save_if_due(self, trainer: Trainer) -> None:
        is_due, signum = self.due(trainer.global_step)
        if is_due:
            self._save_in_work(trainer)
        if signum:
            raise self.interrupted(signum)

    def _signum_of_all(self, due: bool = False) -> tuple[int, bool]:
        """The signal that came to any rank, SIGUSR2 before others, and whether any rank is due."""
        warned, signum, is_due = largest_over_ranks(self.signum == signal.SIGUSR2, self.signum, due)
        return signal.SIGUSR2 if warned else signum, bool(is_due)

    def interrupted(self, signum: int) -> Interrupted:
        """What ends the run after this signal."""
        then = "continues" if self.files.exist else "starts over (nothing was saved yet)"
        return Interrupted(signum, f"the same command {then}: {self.files.last.parent}")

    @contextmanager
    def signals_saved(self) -> Iterator[None]:
        """Within the block a signal waits for the end of the optimiser step, where the run is saved. One outside a fit
        does not wait: the last checkpoint stands. Nor does a second one, but in a job of submitit's, which gets more.
        """
        with handlers_put_back(self._on_signal) as self._handles_signals:
            yield

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if not self._in_fit or (self.signum and submitted_to() is None):
            raise self.interrupted(signum)
        if self.signum != signal.SIGUSR2:  # the one that asks for the job to be queued again
            self.signum = signum


def _difference(then: Mapping[str, Any], now: Mapping[str, Any], *, shapes: bool) -> str | None:
    """What of a state the present code does not know, lacks or, of weights, has in another shape, in words."""
    if gone := next((name for name in then if name not in now), None):
        return f"with {gone}, which the code no longer has"
    for name, value in now.items():
        if name not in then:
            return f"without {name}, which the code now has"
        if shapes and then[name].shape != value.shape:
            return f"with {name} {tuple(then[name].shape)}, now {tuple(value.shape)}"
    return None
