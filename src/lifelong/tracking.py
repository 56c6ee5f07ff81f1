"""What a run says while it works: history.jsonl (always), and Lightning loggers (csv, W&B) beside it.

One step axis, `step`, counts optimiser steps through the whole stream; a Trainer's own restarts with each task.
"""

import json
import logging
import math
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.optim import Optimizer

from lifelong.data.stream import TaskStream
from lifelong.evaluation import accuracy_row
from lifelong.penalties.base import Penalty
from lifelong.record import Record

Row = Mapping[str, Any]


class DivergedError(RuntimeError):
    """The task loss is no longer finite."""


class History:
    """history.jsonl: one JSON object a line, flushed line by line, so that a killed run loses at most the last one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open(path, "ab")  # noqa: SIM115 - closed with the run

    def append(self, row: Row) -> None:
        line = json.dumps({k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()})
        try:
            self._file.write(line.encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def position(self) -> int:
        """Length in bytes."""
        return self._file.tell()

    def truncate(self, length: int) -> None:
        """Cut what came after a checkpoint: it will be written again."""
        self._file.truncate(length)
        self._file.seek(length)

    def close(self) -> None:
        self._file.close()


def read_history(path: Path) -> list[dict[str, Any]]:
    """The rows of a history.jsonl; a torn last line (the run was killed while writing it) is left out."""
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:  # noqa: PERF203
            break
    return rows


def _numbers(row: Row) -> dict[str, float]:
    return {k: v for k, v in row.items() if isinstance(v, int | float) and k != "step"}


class Tracker(Callback):
    """Logs the running task: loss and penalty every n optimiser steps, validation accuracies every epoch.

    Losses are summed on the device; the host waits for them only when a row is written.

    Raises:
        DivergedError: the mean loss of the logged steps is not finite.
    """

    def __init__(
        self,
        stream: TaskStream,
        penalty: Penalty,
        record: Record,
        history: History,
        loggers: Sequence[Logger],
        every_n_steps: int,
    ) -> None:
        if every_n_steps < 1:
            raise ValueError(f"log_every_n_steps must be an integer >= 1, got {every_n_steps!r}")
        self.stream, self.penalty, self.record, self.every_n_steps = stream, penalty, record, every_n_steps
        self.history, self.loggers = history, list(loggers)
        self.latest: dict[str, float] = {}
        self._loss: Tensor = torch.zeros(())
        self._count = 0
        self._rate = 0.0
        self._stepped = False

    def write(self, values: Row, step: int) -> None:
        """One row to the history and to every logger."""
        self.history.append({"step": step, **values})
        for logger in self.loggers:
            logger.log_metrics(_numbers(values), step)

    def log_test_row(self) -> None:
        """The accuracies on every task's test set after the task that was just finished."""
        record = self.record
        accuracies = dict(zip(self.stream.names, record.test[-1], strict=True))
        learned = record.test[-1][: record.task]
        row = {f"test/accuracy/{name}": value for name, value in accuracies.items()}
        self.write({"task": record.task - 1, **row, "test/average_accuracy": sum(learned) / len(learned)}, record.step)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._loss, self._count = torch.zeros(()), 0  # a task starts anew, an interrupted one is restored after this

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        self._stepped = True
        self._rate = optimizer.param_groups[0]["lr"]  # when the row is written a scheduler has already changed it

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._loss = self._loss.to(outputs["loss"].device) + outputs["loss"]
        self._count += 1
        if self._stepped and trainer.global_step % self.every_n_steps == 0:
            self._log_training(trainer, pl_module)
        self._stepped = False

    @rank_zero_only
    def _log_training(self, trainer: Trainer, pl_module: LightningModule) -> None:
        loss = float(self._loss) * trainer.accumulate_grad_batches / self._count
        self._loss, self._count = torch.zeros_like(self._loss), 0
        step = self.record.step + trainer.global_step
        if not math.isfinite(loss):
            name = self.stream.names[self.record.task]
            raise DivergedError(f"train/loss is {loss} at step {step} (task {self.record.task + 1}, {name})")
        self.latest = {
            "train/loss": loss,
            "train/penalty": float(self.penalty.value(pl_module.backbone)),  # type: ignore[arg-type]
            "train/learning_rate": self._rate,
            "train/lr_curvature": self.penalty.lr_curvature,
        }
        self.write({"task": self.record.task, "epoch": trainer.current_epoch, **self.latest}, step)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        k = self.record.task
        with self.record.timed("evaluation"):
            row = accuracy_row(pl_module, self.stream, k, "val", range(k + 1))  # type: ignore[arg-type]
        values = {f"val/accuracy/{self.stream.names[j]}": float(row[j]) for j in range(k + 1)}
        pl_module.log("val/accuracy", float(row[k]), logger=False)  # to be monitored; loggers have it on our own axis
        self.write({"task": k, "epoch": trainer.current_epoch, **values}, self.record.step + trainer.global_step)

    def summarise(self, metrics: Row) -> None:
        """Hand the finished run's measures to loggers that keep a summary."""
        for logger in self.loggers:
            if summary := getattr(_backend(logger), "summary", None):
                summary.update(dict(metrics))

    @contextmanager
    def closing(self) -> Iterator[None]:
        """Close history and loggers whatever happens: else the next job of a multirun would log into this run."""
        status = "failed"
        try:
            yield
            status = "success"
        finally:
            self.history.close()
            for logger in self.loggers:
                logger.finalize(status)
                if finish := getattr(_backend(logger), "finish", None):
                    finish(exit_code=0 if status == "success" else 1)

    def state_dict(self) -> dict[str, Any]:
        return {"loss": self._loss, "count": self._count}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loss, self._count = state_dict["loss"], state_dict["count"]


def _backend(logger: Logger) -> Any:
    """What a logger writes to, e.g. the W&B run."""
    return getattr(logger, "experiment", None)


# Loggers: each is called by experiment.py with the run's folder, name, id and configuration ------------------------


def no_logger(folder: Path, run_id: str, config: dict[str, Any]) -> list[Logger]:
    """history.jsonl alone."""
    return []


def csv_logger(folder: Path, run_id: str, config: dict[str, Any]) -> list[Logger]:
    """Lightning's CSVLogger: metrics.csv in the run folder. It begins anew: a resumed run's earlier rows come first."""
    logger = CSVLogger(folder, name="", version="")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Experiment logs directory .* exists and is not empty")
        logger.experiment  # noqa: B018 - makes the writer, which warns
    for row in read_history(folder / "history.jsonl"):
        logger.log_metrics(dict(_numbers(row)), row["step"])
    return [logger]


def wandb_logger(
    folder: Path, run_id: str, config: dict[str, Any], project: str, entity: str | None, tags: Sequence[str]
) -> list[Logger]:
    """Weights & Biases: online if the machine is logged in (or WANDB_MODE says so), else offline in the run folder.

    The W&B run id is the run id, so a resumed run goes on in the same W&B run.
    """
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    class StreamLogger(WandbLogger):
        """Logs on the stream's own step axis."""

        @rank_zero_only
        def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
            self.experiment.log({**metrics, "step": step})

    mode = os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False) else "offline")
    settings = wandb.Settings(silent=True, init_timeout=60, console="off", x_disable_stats=True)
    logger = StreamLogger(
        name=run_id, id=run_id, save_dir=folder, project=project, entity=entity, tags=list(tags), config=config,
        resume="allow", mode=mode, settings=settings,
    )  # fmt: skip
    logger._wandb_init.pop("anonymous")  # Lightning hands on an option that W&B warns of
    logger.experiment.define_metric("step")
    logger.experiment.define_metric("*", step_metric="step")
    return [logger]


def quiet_libraries() -> None:
    """Lightning's notices of every new Trainer, one a task, and a deprecation between it and torch."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")  # a first step that overflowed
    warnings.filterwarnings("ignore", message="The `srun` command is available")  # on every login node
