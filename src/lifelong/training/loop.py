"""The stream, as the papers write it: for each task: fit, keep what mattered, test every task, append a row."""

import gc
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lifelong.data.examples import Examples
from lifelong.data.loader import Augment, Batches
from lifelong.data.replay import training_batches
from lifelong.data.seeds import derive_seed, derived_generator
from lifelong.data.stream import Task, TaskStream
from lifelong.distributed.ranks import check_same_on_ranks, copy_from_rank_zero_, this_shard
from lifelong.memory.base import Memory
from lifelong.methods.method import Method
from lifelong.models.evaluation import accuracy_row
from lifelong.models.learner import Learner
from lifelong.runs.environment import count_peak_memory
from lifelong.runs.record import Record
from lifelong.training.checkpoint import Checkpoints

IMPORTANCE_BATCH_SIZE = 512


@dataclass
class Run:
    """The parts of one run.

    Attributes:
        make_trainer: a new Trainer with the method among its callbacks; takes options of a Trainer, e.g. max_epochs.
        batch_size: samples of a step, of all ranks together.
        epochs: (T,) instead of the trainer's own max_epochs.
        keep_optimizer: True: a task's optimiser starts with the state of the one before; "epoch": each epoch starts
            without a state.
        drop_last, shuffle: of training batches, as in `Batches`.
        augment: of training batches alone.
        resident_bytes: as in `Batches`.
        record: filled as the run goes on; the run begins at `record.task`.
        checkpoints: None: nothing is saved.
        on_row: called after each task's rows were appended.
    """

    stream: TaskStream
    learner: Learner
    method: Method
    memory: Memory
    make_trainer: Callable[..., Trainer]
    batch_size: int = 128
    seed: int = 0
    epochs: Sequence[int] | None = None
    keep_optimizer: bool | str = False
    drop_last: bool = False
    shuffle: bool = True
    augment: Augment | None = None
    resident_bytes: float = math.inf
    record: Record = field(default_factory=Record)
    checkpoints: Checkpoints | None = None
    on_row: Callable[[Task], None] = lambda task: None


_frozen = False
"""Whether new_garbage is at work."""


@contextmanager
def new_garbage() -> Iterator[None]:
    """Within it the collector sees only what was made within, and at the end frees it: what a run leaves is cycles too.

    Of what was there before (all of torch and Lightning) it is told nothing: 3 ms instead of 200.
    """
    global _frozen
    if _frozen:  # one around this one does it; gc.get_freeze_count() would visit every frozen object
        yield
        return
    _frozen = True
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        gc.unfreeze()
        _frozen = False


@new_garbage()
def run_stream(run: Run) -> Tensor:
    """Learn the tasks from `record.task` on, one Trainer and one fit each; returns the (T, T) test accuracies, float64.

    All randomness of a task is a function of (seed, task index). With several ranks every batch is sharded among them.
    """
    learner, method, record, stream = run.learner, run.method, run.record, run.stream
    method.learner, method.memory = learner, run.memory
    device = run.make_trainer().strategy.root_device
    learner.to(device)
    count_peak_memory(device)
    if not record.baseline:
        with record.timed("evaluation"):
            record.baseline = accuracy_row(learner, stream, -1, "test", enter=method.enter).tolist()
    for task in map(stream.task, range(record.task, stream.num_tasks)):
        with record.timed("train"):
            num_steps = fit(run, task, device)
        consolidate(run, task, device)
        check_same_on_ranks([*learner.state_dict().values(), *method.tensors()])
        with record.timed("memory"):
            run.memory.after_task(learner, task.train, task.base, derived_generator(run.seed, task.index, 2))
        with record.timed("evaluation"):
            learned = method.learned(stream, task)
            rows = [accuracy_row(learner, stream, learned, part, enter=method.enter) for part in ("test", "val")]
        record.finish_task(num_steps, *rows)
        run.on_row(task)
        if run.checkpoints:
            run.checkpoints.save_boundary(learner, method)
        gc.collect()  # a finished Trainer is a cycle of references that holds optimiser state and data
    return torch.tensor(record.test, dtype=torch.float64)


def fit(run: Run, task: Task, device: torch.device) -> int:
    """Train on one task, or on what is left of it; returns its number of optimiser steps.

    What is learned at one turn may be several tasks, with the steps of all of them, or none.
    """
    learner, method, rank = run.learner, run.method, this_shard().rank
    task_seed = derive_seed(run.seed, task.index)
    torch.manual_seed(task_seed if rank == 0 else derive_seed(task_seed, rank))  # dropout
    learned = method.learned(run.stream, task)
    before = method.learned(run.stream, run.stream.task(task.index - 1)) if task.index else -1
    learner.show(run.stream.visible(learned, task.index))
    if learned == before:
        return 0
    method.task, method.seed, method.augment = task, task_seed, run.augment
    trainer = run.make_trainer() if run.epochs is None else run.make_trainer(max_epochs=run.epochs[task.index])
    if learned - before > 1 and trainer.max_steps > 0:
        trainer = run.make_trainer(max_steps=(learned - before) * trainer.max_steps)
    exemplars = None if method.replays else run.memory.for_training()
    batches = training_batches(
        method.examples(run.stream, task),
        run.batch_size,
        seed=task_seed,
        exemplars=exemplars,
        replay=run.memory.replay,
        augment=run.augment,
        **training_loading(run, device),
    )
    learner.fresh_each_epoch = run.keep_optimizer == "epoch"
    learner.num_steps = planned_steps(trainer, len(batches))
    resumed = run.checkpoints.resume_from if run.checkpoints else None
    trainer.fit(learner, batches, ckpt_path=resumed, weights_only=True)
    learner.to(device)
    if run.keep_optimizer is True:
        learner.optimizer_state = trainer.optimizers[0].state_dict()["state"]
    copy_from_rank_zero_(learner.backbone.buffers())
    return trainer.global_step


def consolidate(run: Run, task: Task, device: torch.device) -> None:
    """Let the method keep what matters of the task just learned."""
    method = run.method
    with run.record.timed("importance"):
        method.draws = torch.Generator(device).manual_seed(derive_seed(run.seed, task.index, 1))
        kept = importance_batches(task.train, method.num_samples, method.draws, **loading(run, device))
        method.after_task(task, kept)


def loading(run: Run, device: torch.device) -> dict[str, Any]:
    """How batches of any kind are loaded."""
    return {"device": device, "as_input": run.learner.as_input, "resident_bytes": run.resident_bytes,
            "shard": this_shard()}  # fmt: skip


def training_loading(run: Run, device: torch.device) -> dict[str, Any]:
    """How training batches are loaded."""
    return {**loading(run, device), "shuffle": run.shuffle, "drop_last": run.drop_last}


def importance_batches(
    examples: Examples, num_samples: int | None, generator: torch.Generator, **loading: Any
) -> Iterator[tuple[Tensor, Tensor]]:
    """(x, y) of the examples in order, or of `num_samples` of them drawn without replacement: this rank's shard."""
    if num_samples is not None:
        order = torch.randperm(len(examples), generator=generator, device=generator.device)
        examples = examples.subset(order[:num_samples].to(examples.labels.device))
    batches = Batches(examples, IMPORTANCE_BATCH_SIZE, seed=0, shuffle=False, **loading)
    return (batch.counted for batch in batches if batch.weight)


def planned_steps(trainer: Trainer, num_batches: int) -> int:
    """Optimiser steps of a fit that is not stopped early. Trainer.estimated_stepping_batches would start the loader,
    whose position is not restored yet."""
    limit = trainer.limit_train_batches
    num_batches = min(num_batches, limit) if isinstance(limit, int) else int(num_batches * limit)
    if trainer.max_epochs in (None, -1):
        return trainer.max_steps
    steps = trainer.max_epochs * math.ceil(num_batches / trainer.accumulate_grad_batches)
    return min(steps, trainer.max_steps) if trainer.max_steps > 0 else steps
