"""Separate networks: no forgetting, and no transfer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch.testing import assert_close

import tiny
from isolated import learned, make_stream, test_logits
from lifelong.methods.separate import Separate
from runs import run
from tiny import make_learner

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*")
EXACT = {"rtol": 0.0, "atol": 0.0}


@pytest.mark.parametrize("network", tiny.NETWORKS)
def test_logits_of_a_task_after_the_last_one_are_those_right_after_it(network: str, tmp_path: Path) -> None:
    _, _, said = learned(Separate(), tmp_path, network)
    for task in range(3):
        assert_close(said[-1][task], said[task][task], **EXACT)


def test_forgetting_is_exactly_zero_in_a_run(tmp_path: Path) -> None:
    metrics = run(tmp_path, "method=separate", "scenario=task").metrics
    assert metrics["forgetting"] == 0
    assert metrics["backward_transfer"] == 0
    assert metrics["forward_transfer"] == 0
    assert metrics["average_accuracy"] > 2 * sum(metrics["baseline_accuracy_per_task"]) / 2


class Disturbed(Callback):
    """The first two tasks end elsewhere, and with another optimiser."""

    def __init__(self, method: Separate) -> None:
        self.method = method

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if self.method.task is not None and self.method.task.index < 2:
            tiny.moved_off(pl_module)
            for state in trainer.optimizers[0].state.values():
                state["exp_avg"].add_(1.0)


@pytest.mark.parametrize("keep", [False, True])
def test_task_is_learned_as_if_no_other_had_been(keep: bool, tmp_path: Path) -> None:
    """Not even the optimiser that is kept knows of one."""
    one, other = Separate(), Separate()
    runs = [(one, []), (other, [Disturbed(other)])]
    said = [learned(m, tmp_path, "cnn", callbacks=also, keep_optimizer=keep)[2] for m, also in runs]
    assert_close(said[1][2][2], said[0][2][2], **EXACT)
    assert not torch.equal(said[1][1][1], said[0][1][1])


def test_memory_grows_by_a_network_a_task(tmp_path: Path) -> None:
    method = Separate()
    learner = learned(method, tmp_path, "cnn")[0]
    one = sum(t.nbytes for t in learner.backbone.state_dict().values())
    assert method.state_bytes() == 4 * one


def test_unlearned_task_is_tested_on_the_initial_network() -> None:
    stream, method = make_stream(), Separate()
    method.learner = learner = make_learner(stream)
    method.task = stream.task(0)
    start = [test_logits(stream, learner, method, task) for task in range(3)]
    method.before_task(stream.task(0))
    tiny.moved_off(learner)
    method.after_task(stream.task(0), [])
    assert not torch.equal(test_logits(stream, learner, method, 0), start[0])
    for task in (1, 2):
        assert_close(test_logits(stream, learner, method, task), start[task], **EXACT)
