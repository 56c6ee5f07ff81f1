"""PackNet: whose weights are whose, and that what a task keeps never changes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor
from torch.testing import assert_close

import tiny
from isolated import OPTIMIZERS, learned, make_stream
from lifelong.methods.packnet import PackNet
from tiny import make_learner

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*")
EXACT = {"rtol": 0.0, "atol": 0.0}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("network", tiny.NETWORKS)
def test_logits_of_a_task_after_the_last_one_are_those_right_after_it(
    network: str, optimizer: str, tmp_path: Path
) -> None:
    """Bit for bit, whatever momentum, Adam's moments, weight decay and batch norm would make of frozen weights."""
    learner, matrix, said = learned(PackNet(), tmp_path, network, optimizer, epochs=2)
    for task in range(3):
        assert_close(said[-1][task], said[task][task], **EXACT)
    assert_close(matrix[-1], matrix.diagonal(), **EXACT)
    start = make_learner(make_stream(), network).backbone.head
    assert not (learner.backbone.head.weight == start.weight).all(1).any()  # every task did train its rows


class Watch(Callback):
    """Owners and weights after each task."""

    def __init__(self, method: PackNet) -> None:
        self.method = method
        self.owners: list[dict[str, Tensor]] = []
        self.weights: list[dict[str, Tensor]] = []

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self.owners.append({n: o.clone() for n, o in self.method.owner.items()})
        self.weights.append({n: p.detach().clone() for n, p in pl_module.backbone.named_parameters()})


def watched(tmp_path: Path, **settings: Any) -> Watch:
    method = PackNet(**settings)
    watch = Watch(method)
    learned(method, tmp_path, "cnn", "weight decay", callbacks=[watch], epochs=2)
    return watch


def test_owners_are_a_partition_of_each_layer(tmp_path: Path) -> None:
    """Each weight has one owner for good or is free; a task gets the share `keep` of what was free, rounded."""
    watch = watched(tmp_path, keep=0.4)
    for name, last in watch.owners[-1].items():
        free = last.numel()
        for task in range(3):
            assert int((last == task + 1).sum()) == round(0.4 * free)
            free -= round(0.4 * free)
            now = watch.owners[task][name]
            assert_close(now, torch.where(last > task + 1, 0, last), **EXACT)
        assert set(last.unique().tolist()) == {0, 1, 2, 3}
    assert set(watch.owners[-1]) == {"body.0.weight", "body.3.weight"}


def test_released_weights_are_zero_and_kept_ones_stay(tmp_path: Path) -> None:
    watch = watched(tmp_path)
    for task, (owners, weights) in enumerate(zip(watch.owners, watch.weights, strict=True)):
        for name, owner in owners.items():
            assert (weights[name][owner == 0] == 0).all()
            kept = (owner > 0) & (owner <= task + 1)
            assert_close(watch.weights[-1][name][kept], weights[name][kept], **EXACT)


def test_biases_and_norms_are_frozen_after_the_first_task(tmp_path: Path) -> None:
    """And are trained by it."""
    watch = watched(tmp_path)
    start = dict(make_learner(make_stream(), "cnn").backbone.named_parameters())
    frozen = [n for n, p in start.items() if p.ndim == 1 and not n.startswith("head.")]
    assert frozen == ["body.1.weight", "body.1.bias", "body.3.bias", "body.4.weight", "body.4.bias"]
    for name in frozen:
        assert not torch.equal(watch.weights[0][name], start[name])
        for weights in watch.weights[1:]:
            assert_close(weights[name], watch.weights[0][name], **EXACT)


def test_kept_are_the_largest_before_the_last_share_of_the_steps(tmp_path: Path) -> None:
    """Of 8 steps the last 2; by magnitude, weight by weight."""
    method, before = PackNet(keep=0.25, retrain=0.25), {}

    class Before(Callback):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            if method.task is not None and method.task.index == 0:
                before[trainer.global_step] = pl_module.backbone.body[1].weight.detach().flatten().tolist()

    learned(method, tmp_path, callbacks=[Before()], epochs=2)
    assert sorted(before) == list(range(1, 9))
    sizes = [abs(w) for w in before[6]]
    largest = sorted(range(len(sizes)), key=lambda i: -sizes[i])[: len(sizes) // 4]
    assert set((method.owner["body.1.weight"].flatten() == 1).nonzero().flatten().tolist()) == set(largest)
    assert [sum(w == 0 for w in before[step]) for step in (6, 7, 8)] == [0, 768, 768]


def test_task_that_is_stopped_early_is_packed_at_its_end(tmp_path: Path) -> None:
    class Stop(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            trainer.should_stop = trainer.global_step == 1

    method = PackNet()
    _, _, said = learned(method, tmp_path, "cnn", callbacks=[Stop()], epochs=2)
    assert method.num_packed == 3
    for task in range(3):
        assert_close(said[-1][task], said[task][task], **EXACT)


@pytest.mark.parametrize(("keep", "task"), [(1.0, 2), (0.9, 3), (0.01, 1)])
def test_keep_that_leaves_a_task_nothing_is_refused(keep: float, task: int) -> None:
    """The smallest layer of the network decides: 36 weights."""
    stream, method = make_stream(), PackNet(keep)
    message = f"method.keep must leave each of 3 tasks some of the 36 weights of body.0.weight, got {keep}, by which "
    with pytest.raises(ValueError, match=f"^{message}task {task} has none$"):
        method.check(stream, make_learner(stream, "cnn").backbone)


@pytest.mark.parametrize(
    ("settings", "key"), [({"keep": 0.0}, "keep"), ({"keep": 1.5}, "keep"), ({"retrain": 2}, "retrain")]
)
def test_impossible_setting_is_refused(settings: dict[str, float], key: str) -> None:
    with pytest.raises(ValueError, match=rf"^method\.{key} must be a finite number >"):
        PackNet(**settings)
