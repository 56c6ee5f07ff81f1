"""The loop itself: what stays of a finished task, and of a finished run."""

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from weakref import ref

import pytest
from lightning.pytorch import Callback, LightningModule, Trainer

import tiny
from lifelong.data.stream import Task
from lifelong.experiment.parts import make_learner
from lifelong.models.learner import Learner
from runs import run

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*")


class Refs(Callback):
    """Weak references to every Trainer that ran."""

    def __init__(self) -> None:
        self.seen: list[ref[Trainer]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seen.append(ref(trainer))


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Python's own collector stays away, so that what is freed does not depend on when it comes."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_finished_trainers_do_not_pile_up(tmp_path: Path) -> None:
    """A Trainer holds Adam's state and the task's data: memory would grow until Python's collector happens to come."""
    stream, refs = tiny.permuted(num_tasks=6), Refs()
    alive: list[int] = []

    def on_row(task: Task) -> None:
        alive.append(sum(trainer() is not None for trainer in refs.seen))

    penalty = tiny.make_penalty("finetune")
    tiny.run(stream, tiny.make_learner(stream), penalty, tmp_path, callbacks=[refs], on_row=on_row)
    assert len(refs.seen) == 6
    assert max(alive) <= 2
    assert gc.get_freeze_count() == 0


@pytest.mark.usefixtures("no_collector")
def test_finished_run_leaves_nothing_to_the_next_one_of_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A multirun's jobs share one: else each would keep its weights and data, on a GPU too."""
    made: list[ref[Learner]] = []

    def noting(*args: Any) -> Learner:  # a callback would itself hold the learner: Lightning gives it a `log`
        learner = make_learner(*args)
        made.append(ref(learner))
        return learner

    monkeypatch.setattr("lifelong.experiment.parts.make_learner", noting)
    run(tmp_path)
    assert [learner() for learner in made] == [None]
    assert gc.get_freeze_count() == 0
