"""The loop itself: what stays of a finished task."""

import gc
from pathlib import Path
from weakref import ref

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

import tiny
from lifelong.data.stream import Task

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*")


class Refs(Callback):
    """Weak references to every Trainer that ran."""

    def __init__(self) -> None:
        self.seen: list[ref[Trainer]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seen.append(ref(trainer))


def test_finished_trainers_do_not_pile_up(tmp_path: Path) -> None:
    """A Trainer holds Adam's state and the task's data: memory would grow until Python's collector happens to come."""
    stream, refs = tiny.permuted(num_tasks=6), Refs()
    alive: list[int] = []

    def on_row(task: Task) -> None:
        alive.append(sum(trainer() is not None for trainer in refs.seen))

    gc.disable()
    try:
        penalty = tiny.make_penalty("finetune")
        tiny.run(stream, tiny.make_learner(stream), penalty, tmp_path, callbacks=[refs], on_row=on_row)
    finally:
        gc.enable()
    assert len(refs.seen) == 6
    assert max(alive) <= 2
    assert gc.get_freeze_count() == 0
