"""Streams with rare classes and with a hundred tasks; test sets that are kept, within a bound."""

from pathlib import Path
from typing import Any

import pytest
import torch

import tiny
from lifelong.data import stream as stream_module
from lifelong.data.examples import Examples
from lifelong.data.permuted import Permuted
from lifelong.data.rotated import Rotated
from lifelong.data.source import Source, with_test_part
from lifelong.data.split import Split
from lifelong.data.stream import TaskStream
from lifelong.methods.method import Method


def imbalanced(sizes: list[int]) -> Source:
    """sizes[c] images of class c: a bright line each, its place the class's own."""
    labels = torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes))
    images = torch.randint(0, 80, (len(labels), 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    images[torch.arange(len(labels)), 0, labels % 8] = 255
    return with_test_part("imbalanced", Examples(images, labels), [f"c{c}" for c in range(len(sizes))], 0.25)


def test_rare_classes_keep_their_share_in_every_part() -> None:
    """Of 400, 40, 4 and 2 images a quarter (half to even) is for testing, a tenth of the rest for validation."""
    stream = Rotated(imbalanced([400, 40, 4, 2]), [0, 90], val_fraction=0.1)
    for task in map(stream.task, range(2)):
        counts = [getattr(task, part).labels.bincount(minlength=4).tolist() for part in ("train", "val", "test")]
        assert counts == [[270, 27, 3, 2], [30, 3, 0, 0], [100, 10, 1, 0]]


def test_task_without_a_test_example_is_refused_before_any_training() -> None:
    with pytest.raises(ValueError, match=r"dataset must give every task examples to test on, got none for c2-c3$"):
        Split(imbalanced([40, 40, 1, 1]), 2)


@pytest.mark.system
def test_hundred_tasks_are_learned_from_end_to_end(tmp_path: Path) -> None:
    stream = Permuted(tiny.source(4, 2), 100, val_fraction=0.0)
    matrix = tiny.run(stream, tiny.make_learner(stream), Method(), tmp_path)
    assert matrix.shape == (100, 100)
    assert matrix.isfinite().all()


def stream_of_three() -> TaskStream:
    return Rotated(tiny.source(), [0, 30, 60])


def test_test_sets_are_made_once_and_training_sets_or_the_source_s_own_are_not_kept() -> None:
    stream = stream_of_three()
    assert stream.task(0).test.inputs is stream.sources[0].test.inputs
    assert not stream._kept
    for part, same in (("test", True), ("val", True), ("train", False)):
        assert (getattr(stream.task(1), part) is getattr(stream.task(1), part)) is same


@pytest.mark.parametrize("room", [0, 4000, 10**9])
def test_what_is_kept_is_what_would_be_made_and_no_more_than_the_bound(room: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(stream_module, "KEPT_BYTES", room)
    stream, free = stream_of_three(), stream_of_three()
    for i in (0, 2, 1, 2, 0):
        for part in ("test", "val"):
            ours, theirs = getattr(stream.task(i), part), free._make(i, part)
            assert ours.inputs.equal(theirs.inputs)
            assert ours.labels.equal(theirs.labels)
    kept = sum(examples.nbytes for examples in stream._kept.values())
    assert kept <= room
    assert (kept > 0) == (room > 0)
