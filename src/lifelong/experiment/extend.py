"""A finished run, gone on with on further tasks."""

from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from lifelong.config.checks import check
from lifelong.config.schema import ConfigError
from lifelong.data.stream import TaskStream
from lifelong.distributed.ranks import is_first, wait_for_all
from lifelong.experiment.parts import make_stream
from lifelong.models.evaluation import accuracy_row
from lifelong.runs.atomic import atomic_write
from lifelong.runs.folder import RunFolder
from lifelong.runs.identity import identity
from lifelong.training.checkpoint_files import CheckpointFiles
from lifelong.training.loop import Run

MAY_DIFFER = ("dataset", "epochs_per_task")
"""Of a run and the one it extends; what they come to is compared task by task."""


def extend(run: Run, config: DictConfig, folder: RunFolder, files: CheckpointFiles) -> None:
    """Give the run's folder the last checkpoint and the history of the finished run that `config.extend` names.

    The tasks to come are as in a run that had them from the start, as the randomness of a task is a function of
    (seed, task). What the matrix lacks are the accuracies on new tasks before the old run's end: its weights of that
    time are gone, so those cells are nan.

    Raises:
        ConfigError: the old run is not finished, or not this one's first tasks: the message says why.
    """
    finished = RunFolder(Path(config.extend))
    if not finished.finished:
        raise ConfigError(f"extend must be the folder of a finished run, got {config.extend!r}")
    old = finished.read_config()
    check(old)
    if run.method.learned(run.stream, run.stream.task(0)) > 0:
        raise _refusal(config, "has method.schedule=once: all tasks were learned together")
    before, wanted = identity(old), identity(config)
    for key in sorted(before.keys() | wanted.keys()):
        if key not in MAY_DIFFER and before.get(key) != wanted.get(key):
            raise _refusal(config, f"has another {key}: its tasks would have been learned otherwise")
    stream = make_stream(old)
    if reason := _not_first(stream, run.stream):
        raise _refusal(config, reason)
    then, now = (list(c.epochs_per_task or [c.trainer.max_epochs] * run.stream.num_tasks) for c in (old, config))
    if then[: stream.num_tasks] != now[: stream.num_tasks]:
        raise _refusal(config, f"has {then[: stream.num_tasks]} epochs a task, not the first ones of {now}")
    found = CheckpointFiles(finished.checkpoint, before).read()
    if found is None:
        raise _refusal(config, "has no last.ckpt, which holds what its method and memory know")
    saved = found[1]
    saved["record"] = _on_all_tasks(run, saved)
    if is_first():
        with atomic_write(folder.history, "wb") as file:
            file.write(finished.history.read_bytes()[: saved["history_bytes"]])
        files.write(saved)
    wait_for_all()


def _on_all_tasks(run: Run, saved: dict[str, Any]) -> dict[str, Any]:
    """The record of a finished run with rows as long as the stream: what is still there to be tested is tested."""
    learner, method, stream, record = run.learner, run.method, run.stream, dict(saved["record"])
    method.learner = learner
    learner.to(run.make_trainer().strategy.root_device)
    record["baseline"] = accuracy_row(learner, stream, -1, "test", enter=method.enter).tolist()
    learner.load_state_dict(saved["state_dict"])
    method.load_state_dict(saved["method"])
    method.move(learner.device)
    missing = [float("nan")] * (stream.num_tasks - record["task"])
    for part in ("test", "val"):
        last = accuracy_row(learner, stream, record["task"] - 1, part, enter=method.enter).tolist()
        record[part] = [*([*row, *missing] for row in record[part][:-1]), last]
    return record


def _refusal(config: DictConfig, reason: str) -> ConfigError:
    return ConfigError(f"extend must be a run of this run's first tasks, but {config.extend} {reason}")


def _not_first(old: TaskStream, new: TaskStream) -> str | None:
    """Why the tasks of one stream are not the first of another; None if they are, to the last pixel."""
    for what in ("num_classes", "input_shape", "scenario", "active_classes"):
        if getattr(old, what) != getattr(new, what):
            return f"has {what} {getattr(old, what)}, not {getattr(new, what)}"
    if new.num_tasks <= old.num_tasks:
        return f"has {old.num_tasks} tasks, not fewer than this run's {new.num_tasks}"
    for i in range(old.num_tasks):
        then, now = old.task(i), new.task(i)
        same = (then.name, then.classes, then.base) == (now.name, now.classes, now.base)
        for part in ("train", "val", "test") if same else ():
            a, b = getattr(then, part), getattr(now, part)
            same = same and torch.equal(a.labels, b.labels) and torch.equal(a.inputs, b.inputs)
        if not same:
            return f"has another task {i + 1} ({then.name}, not {now.name}, or other data)"
    return None
