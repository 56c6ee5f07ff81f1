"""The callback that logs the running task.

One step axis, `step`, counts optimiser steps through the whole stream; a Trainer's own restarts with each task.
"""

import logging
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from torch import Tensor
from torch.optim import Optimizer

from lifelong.data.examples import Examples
from lifelong.data.stream import Task, TaskStream
from lifelong.distributed.ranks import gathered, sum_over_ranks_, this_shard
from lifelong.methods.method import Method
from lifelong.models.evaluation import accuracy_row
from lifelong.models.learner import Learner
from lifelong.runs.environment import peak_memory_bytes
from lifelong.runs.record import Record
from lifelong.tracking.gallery import TESTED, Gallery, importance_histograms
from lifelong.tracking.history import History, Row, numbers
from lifelong.tracking.within import WITHIN, Subsets


class DivergedError(RuntimeError):
    """The task loss or the weights are no longer finite."""


class Tracker(Callback):
    """Logs the running task: losses every n optimiser steps, validation accuracies every epoch, tests at its end.

    With `subsets` it also tests the tasks seen so far on them, every so many steps of a task and at its end.
    Losses are summed on the device; the host waits for them only when a row is written. Comes before the method among
    the callbacks, so that it sees the task's own gradient. The history holds what the configuration decides, the same
    in every repetition; what a run cost (`cost/…`) goes to the loggers alone.

    With several ranks losses are means over all of them; only the first one has a history and loggers.

    Raises:
        DivergedError: the mean loss of the logged steps is not finite, or by the next checkpoint or the task's end the
            loss or a weight is not: nothing that diverged is saved, so that the last good checkpoint stands.
    """

    def __init__(
        self,
        stream: TaskStream,
        method: Method,
        record: Record,
        history: History,
        loggers: Sequence[Logger],
        every_n_steps: int,
        subsets: Subsets | None = None,
    ) -> None:
        if every_n_steps < 1:
            raise ValueError(f"log_every_n_steps must be an integer >= 1, got {every_n_steps!r}")
        self.stream, self.method, self.record, self.every_n_steps = stream, method, record, every_n_steps
        self.history, self.loggers, self.subsets = history, list(loggers), subsets
        self.latest: dict[str, float] = {}
        self._loss: Tensor = torch.zeros(())
        self._count = self._samples = 0
        self._since = 0.0
        self._before_step: dict[str, float] = {}
        self._stepped = False

    def write(self, values: Row, step: int, costs: Row | None = None) -> None:
        """One row to the history, and with its costs to every logger."""
        self.history.append({"step": step, **values})
        for logger in self.loggers:
            logger.log_metrics(numbers({**values, **(costs or {})}), step)

    def log_test_row(self) -> None:
        """The accuracies on every task's test set after the task that was just finished; galleries show them too."""
        step, test, learned = self.record.step, self.record.test, self.record.test[-1][: self.record.task]
        accuracies = {TESTED + name: value for name, value in zip(self.stream.names, test[-1], strict=True)}
        row = {"task": self.record.task - 1, **accuracies, "test/average_accuracy": sum(learned) / len(learned)}
        self.history.append({"step": step, **row})
        for logger in self.loggers:
            if isinstance(logger, Gallery):
                logger.log_task(row, step, test, importance_histograms(self.method.importance_shown))
            else:
                logger.log_metrics(row, step)
        if self.subsets:
            self._evaluate_subsets(self.method.learner, row["task"], step)  # type: ignore[arg-type]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._loss, self._count = torch.zeros(()), 0  # a task starts anew, an interrupted one is restored after this

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since, self._samples = perf_counter(), 0

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self._stepped = True
        if (trainer.global_step + 1) % self.every_n_steps == 0:
            logged = {f"train/{name}": value for name, value in self.method.measures(pl_module).items()}  # type: ignore[arg-type]
            rate = optimizer.param_groups[0]["lr"]  # when the row is written a scheduler has already changed it
            self._before_step = {**logged, "train/learning_rate": rate}

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._loss = self._loss.to(outputs["loss"].device) + outputs["loss"]
        self._count += 1
        self._samples += len(batch.y)
        if self._stepped and trainer.global_step % self.every_n_steps == 0:
            loss = self._loss_of_all(trainer) * trainer.accumulate_grad_batches / self._count
            self._loss, self._count = torch.zeros_like(self._loss), 0
            self.latest = {"train/loss": loss, **self._before_step}
            row = {"task": self.record.task, "epoch": trainer.current_epoch, **self.latest}
            self.write(row, self.record.step + trainer.global_step, self._costs(pl_module.device))
        if self._stepped and self.subsets and trainer.global_step % self.subsets.every_n_steps == 0:
            step, epoch = self.record.step + trainer.global_step, trainer.current_epoch
            self._evaluate_subsets(pl_module, self.record.task, step, epoch=epoch)  # type: ignore[arg-type]
        self._stepped = False

    def _loss_of_all(self, trainer: Trainer) -> float:
        """The summed losses, mean over ranks; not finite, all ranks raise DivergedError. The host waits for it."""
        total = self._loss.clone()
        sum_over_ranks_([total])
        if not math.isfinite(loss := float(total) / this_shard().of):
            raise self._diverged(f"train/loss is {loss}", trainer)
        return loss

    def _costs(self, device: torch.device) -> dict[str, float]:
        """Since the row before, the validations between left out; called behind a wait for the device."""
        now = perf_counter()
        speed = self._samples * this_shard().of / (now - self._since)
        self._since, self._samples = now, 0
        return {"cost/samples_per_second": speed, "cost/peak_memory_bytes": peak_memory_bytes(device)}

    def _diverged(self, what: str, trainer: Trainer) -> DivergedError:
        name, step = self.stream.names[self.record.task], self.record.step + trainer.global_step
        return DivergedError(f"{what} at step {step} (task {self.record.task + 1}, {name})")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check the steps since the last row, and what they made of the weights; the host waits for it."""
        self._loss_of_all(trainer)
        for name, weight in pl_module.named_parameters():
            if not bool(weight.isfinite().all()):
                raise self._diverged(f"{name} is not finite", trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self.on_train_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        k, step = self.record.task, self.record.step + trainer.global_step
        row = self._evaluate(pl_module, k, "val", "val/accuracy/", step, epoch=trainer.current_epoch)  # type: ignore[arg-type]
        last = self.method.learned(self.stream, self.stream.task(k))
        monitored = float(row[k : last + 1].mean())  # loggers have it on our own axis
        pl_module.log("val/accuracy", monitored, logger=False)

    def _evaluate_subsets(self, learner: Learner, turn: int, step: int, **where: int) -> None:
        of = partial(self.subsets.of, device=learner.device)  # type: ignore[union-attr]
        self._evaluate(learner, turn, of, WITHIN, step, **where)

    def _evaluate(
        self, learner: Learner, turn: int, part: str | Callable[[Task], Examples], prefix: str, step: int, **where: int
    ) -> Tensor:
        """Write a row of accuracies on the tasks seen so far and return it, (T,); its time is not the training's."""
        begun, last = perf_counter(), self.method.learned(self.stream, self.stream.task(turn))
        with self.record.timed("evaluation"):
            row = accuracy_row(learner, self.stream, last, part, range(last + 1), self.method.enter)
        values = {f"{prefix}{self.stream.names[j]}": float(row[j]) for j in range(last + 1)}
        self.write({"task": turn, **where, **values}, step)
        self._since += perf_counter() - begun
        return row

    def summarise(self, metrics: Row) -> None:
        """Hand the finished run's measures to loggers that keep a summary."""
        for logger in self.loggers:
            if isinstance(logger, Gallery):
                logger.summarise(metrics)

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Close history and loggers whatever happens: else the next job of a multirun would log into this run."""
        success = False
        try:
            yield
            success = True
        finally:
            self.history.close()
            for logger in self.loggers:
                end = logger.close if isinstance(logger, Gallery) else logger.finalize
                end("success" if success else "failed")

    def state_dict(self) -> dict[str, Any]:
        return {"loss": gathered(self._loss), "count": self._count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loss, self._count = state_dict["loss"][this_shard().rank], state_dict["count"]


def quiet_libraries() -> None:
    """Lightning's notices of every new Trainer, one a task, and a deprecation between it and torch."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")  # a first step that overflowed
    warnings.filterwarnings("ignore", message=".*sync_dist=True.*")  # what is logged is the same on every rank
    warnings.filterwarnings("ignore", message=r"Found \d+ module\(s\) in eval mode")  # backbone.freeze
    warnings.filterwarnings("ignore", message="The `srun` command is available")  # on every login node
