"""The stream, as the papers write it: for each task: fit, keep what mattered, test every task, append a row."""

import gc
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Trainer

from lifelong.data.examples import Examples
from lifelong.data.loader import Augment, Batches
from lifelong.data.seeds import derive_seed, derived_generator
from lifelong.data.stream import Task, TaskStream
from lifelong.distributed.ranks import check_same_on_ranks, copy_from_rank_zero_, this_share
from lifelong.memory.base import Memory
from lifelong.methods.penalty import Penalty
from lifelong.metrics import AccuracyMatrix
from lifelong.models.evaluation import accuracy_row
from lifelong.models.learner import Learner
from lifelong.runs.environment import count_peak_memory
from lifelong.runs.record import Record
from lifelong.training.checkpoint import Checkpoints

IMPORTANCE_BATCH_SIZE = 512


def run_stream(
    stream: TaskStream,
    learner: Learner,
    penalty: Penalty,
    memory: Memory,
    make_trainer: Callable[..., Trainer],
    *,
    batch_size: int,
    seed: int,
    record: Record,
    checkpoints: Checkpoints,
    on_row: Callable[[Task], None],
    epochs: Sequence[int] | None = None,
    keep_optimizer: bool = False,
    augment: Augment | None = None,
    resident_bytes: float = math.inf,
) -> AccuracyMatrix:
    """Learn the tasks from `record.task` on, one Trainer and one fit each; returns the (T, T) test accuracies.

    `record` is filled as the run goes on; `on_row` is called after each task's rows were appended. All randomness of
    a task is a function of (seed, task index).

    With several ranks every batch, of `batch_size` samples in all, is shared among them; see `distributed`.

    epochs: (T,) instead of the trainer's own max_epochs.
    keep_optimizer: a task's optimiser starts with the state of the one before.
    augment: of training batches alone; resident_bytes: as in `Batches`.
    """
    share = this_share()
    loading = {"as_input": learner.as_input, "resident_bytes": resident_bytes, "share": share}
    device = make_trainer().strategy.root_device
    learner.to(device)  # also starts CUDA, without which nothing can be counted
    count_peak_memory(device)
    if not record.baseline:
        with record.timed("evaluation"):
            record.baseline = accuracy_row(learner, stream, -1, "test").tolist()
    for task in collecting(map(stream.task, range(record.task, stream.num_tasks))):
        task_seed = derive_seed(seed, task.index)
        torch.manual_seed(task_seed if share.rank == 0 else derive_seed(task_seed, share.rank))  # dropout
        learner.show(stream.visible(task.index, task.index))
        trainer = make_trainer() if epochs is None else make_trainer(max_epochs=epochs[task.index])
        examples = training_data(stream, task, penalty)
        batches = memory.batches(examples, batch_size, seed=task_seed, device=device, augment=augment, **loading)
        learner.num_steps = planned_steps(trainer, len(batches))
        with record.timed("train"):
            trainer.fit(learner, batches, ckpt_path=checkpoints.resume_from(task), weights_only=True)
        learner.to(device)
        if keep_optimizer:
            learner.optimizer_state = trainer.optimizers[0].state_dict()["state"]
        copy_from_rank_zero_(learner.backbone.buffers())
        with record.timed("importance"):
            generator = torch.Generator(device).manual_seed(derive_seed(seed, task.index, 1))
            kept = importance_batches(task.train, penalty.num_samples, device, generator, **loading)
            penalty.after_task(learner, kept, generator)
        check_same_on_ranks([*learner.state_dict().values(), *penalty.anchor.values(), *penalty.importance.values()])
        with record.timed("memory"):
            memory.after_task(learner, task.train, task.given, derived_generator(seed, task.index, 2))
        with record.timed("evaluation"):
            rows = [accuracy_row(learner, stream, task.index, part) for part in ("test", "val")]
        record.finish_task(trainer.global_step, *rows)
        on_row(task)
        checkpoints.save_boundary(learner, penalty)
    return AccuracyMatrix.from_rows(record.test, torch.tensor(record.baseline, dtype=torch.float64))


def collecting(tasks: Iterable[Task]) -> Iterator[Task]:
    """The tasks; after each, finished Trainers go: one is a cycle of references that holds optimiser state and data."""
    with new_garbage():
        for task in tasks:
            yield task
            gc.collect()


@contextmanager
def new_garbage() -> Iterator[None]:
    """Within it the collector sees only what was made within, and at the end frees it: what a run leaves is cycles too.

    Of what was there before (all of torch and Lightning) it is told nothing: 3 ms instead of 200.
    """
    if gc.get_freeze_count():  # one around this one does it
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        gc.unfreeze()


def planned_steps(trainer: Trainer, num_batches: int) -> int:
    """Optimiser steps of a fit that is not stopped early. Trainer.estimated_stepping_batches would start the loader,
    whose position is not restored yet."""
    limit = trainer.limit_train_batches
    num_batches = min(num_batches, limit) if isinstance(limit, int) else int(num_batches * limit)
    if trainer.max_epochs in (None, -1):
        return trainer.max_steps
    steps = trainer.max_epochs * math.ceil(num_batches / trainer.accumulate_grad_batches)
    return min(steps, trainer.max_steps) if trainer.max_steps > 0 else steps


def training_data(stream: TaskStream, task: Task, penalty: Penalty) -> Examples:
    """The task's own training data, or the union of all so far for a cumulative method."""
    if not penalty.cumulative:
        return task.train
    seen = {t.given: t for t in map(stream.task, range(task.index + 1))}
    return Examples.concat([t.train for t in seen.values()])


def importance_batches(
    examples: Examples, num_samples: int | None, device: torch.device, generator: torch.Generator, **loading: Any
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Batches of the task's training data, or of `num_samples` of them drawn without replacement: this rank's share."""
    if num_samples is not None:
        order = torch.randperm(len(examples), generator=generator, device=device)
        examples = examples.subset(order[:num_samples].to(examples.labels.device))
    batches = Batches(examples, IMPORTANCE_BATCH_SIZE, seed=0, device=device, shuffle=False, **loading)
    return ((x, y) for x, y, *weight in batches if weight != [0])
