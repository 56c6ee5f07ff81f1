"""The order of tasks, repeated visits and epochs per task: the same data and columns, another course."""

from pathlib import Path
from typing import Any

import pytest
import torch

import lifelong
import tiny
from lifelong.config.schema import ConfigError
from lifelong.data.order import ORDER, as_order, plain_names
from lifelong.memory.samplers import Uniform
from lifelong.methods.joint import Joint
from lifelong.tracking import read_history

TINY = ("dataset=split", "dataset/source=digits", "dataset.classes_per_task=5", "backbone.widths=[8]", "trainer=cpu")
TINY += ("trainer.max_epochs=1", "logger=none", "progress=false", "method=finetune")


def order(value: Any, num: int = 4, seed: int = 0) -> list[int]:
    return as_order(value, num, seed, "dataset.order", ORDER)


def test_words_stand_for_orders() -> None:
    assert order(None) == order("given") == [0, 1, 2, 3]
    assert order("reversed") == [3, 2, 1, 0]
    assert order([2, 0, 1], 3) == [2, 0, 1]


def test_shuffle_is_drawn_by_the_seed_unless_it_names_one() -> None:
    orders = [order("shuffle", 6, seed) for seed in range(20)]
    assert all(sorted(order) == list(range(6)) for order in orders)
    assert len(set(map(tuple, orders))) > 15
    assert order("shuffle", 6, 7) == order("shuffle:7", 6, 0) == order("shuffle:7", 6, 1)


def test_names_are_fit_for_keys_and_headers() -> None:
    names = ["a, b/c", "a, b/c", "rot-20.5", "é"]
    assert plain_names(names) == ["a_b_c", "a_b_c_1", "rot-20.5", "é"]
    assert plain_names(["a b", "a_b_1", "a_b", "a_b"]) == ["a_b", "a_b_1", "a_b_2", "a_b_3"]


@pytest.mark.parametrize("scenario", ["domain", "task", "class"])
def test_later_visits_have_the_data_and_columns_of_the_first(scenario: str) -> None:
    once, stream = (tiny.split(scenario, order="reversed", cycles=cycles) for cycles in (1, 3))
    assert stream.num_tasks == 9
    assert stream.names == once.names + [f"{n}_cycle2" for n in once.names] + [f"{n}_cycle3" for n in once.names]
    assert stream.num_classes == once.num_classes
    for i in range(9):
        visit, first = stream.task(i), once.task(i % 3)
        assert (visit.index, visit.base, visit.classes) == (i, 2 - i % 3, first.classes)
        assert visit.train.inputs.equal(first.train.inputs)
        assert visit.test.labels.equal(first.test.labels)
        assert stream.visible(i, i) == once.visible(min(i, 2), i % 3)
    ours, theirs = stream.groups(), once.groups()
    assert (ours is None and theirs is None) or torch.equal(ours, theirs)  # type: ignore[arg-type]


def test_joint_learning_holds_each_task_once() -> None:
    stream = tiny.split(cycles=2)
    sizes = [len(Joint().examples(stream, stream.task(i))) for i in range(6)]
    assert sizes == [54, 108, 162, 162, 162, 162]


def test_exemplars_of_a_later_visit_replace_those_of_the_first() -> None:
    stream, memory = tiny.split("class", cycles=2), Uniform(per_class=3)
    learner, kept = tiny.make_learner(stream), []
    for task in map(stream.task, range(4)):
        memory.after_task(learner, task.train, task.base, torch.Generator().manual_seed(task.index))
        kept.append(dict(memory.cells))
    assert sorted(kept[3]) == sorted(kept[2]) == [(0, 0), (0, 1), (1, 2), (1, 3), (2, 4), (2, 5)]
    assert [cell for cell in kept[2] if not kept[3][cell].equal(kept[2][cell])] == [(0, 0), (0, 1)]


@pytest.mark.parametrize("memory", [[], ["memory=uniform", "memory.per_class=null", "memory.total=10"]])
def test_cycles_and_order_from_the_command_line(memory: list[str], tmp_path: Path) -> None:
    settings = ["dataset.cycles=2", "dataset.order=reversed", "scenario=class", *memory]
    result = lifelong.run(*TINY, *settings, f"root={tmp_path}")
    assert result.names == ["5-6-7-8-9", "0-1-2-3-4", "5-6-7-8-9_cycle2", "0-1-2-3-4_cycle2"]
    assert (result.metrics["order"], result.metrics["cycles"], result.metrics["num_tasks"]) == ([1, 0], 2, 4)


def test_each_task_has_its_own_epochs(tmp_path: Path) -> None:
    result = lifelong.run(*TINY, "epochs_per_task=[3,1]", f"root={tmp_path}")
    epochs = [row["epoch"] for row in read_history(result.folder / "history.jsonl") if "val/accuracy/0-1-2-3-4" in row]
    assert epochs == [0, 1, 2, 0]
    assert lifelong.run(*TINY, "epochs_per_task=[1,1]", f"root={tmp_path}").metrics["num_steps"] == 2 * 6


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("[1]", "epochs_per_task must be null or a list of 2 integers >= 1, one for each task, got [1]"),
        ("[1,0]", "epochs_per_task must be a list of integers >= 1 or null, got [1, 0]"),
        ("[]", "epochs_per_task must be a list of integers >= 1 or null, got []"),
        ("3", "epochs_per_task=3: Invalid value assigned: int is not a ListConfig, list or tuple."),
    ],
)
def test_epochs_that_are_not_one_for_each_task_are_refused(value: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        lifelong.run(*TINY, f"epochs_per_task={value}", f"root={tmp_path}")
    assert str(error.value) == message
    assert not list(tmp_path.iterdir())
