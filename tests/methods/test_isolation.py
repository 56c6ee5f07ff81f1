"""What holds of every method that gives each task a part of the network."""

from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn
from torch.testing import assert_close

import tiny
from evaluate import evaluate
from grids import grid
from isolated import learned, make_stream, test_logits
from lifelong.memory.samplers import Uniform
from runs import assert_refused, assert_resumes, assert_same_run, run
from tiny import make_learner, make_penalty

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*")
EXACT = {"rtol": 0.0, "atol": 0.0}
ISOLATING = ["packnet", "xdg", "hat", "separate"]
NETWORKS = list(tiny.NETWORKS)


TOLD = list(product(ISOLATING, ["domain", "class"]))


@pytest.mark.parametrize(("method", "scenario"), grid(TOLD, TOLD[::3]))
def test_task_must_be_told_at_test_time(method: str, scenario: str, tmp_path: Path) -> None:
    name = type(make_penalty(method)).__name__
    assert_refused(
        tmp_path, f"method={method} scenario={scenario}", f"scenario must be task with {name}, got '{scenario}'"
    )


@pytest.mark.parametrize("method", ISOLATING)
def test_memory_is_refused(method: str) -> None:
    isolating, stream = make_penalty(method), make_stream()
    isolating.memory = Uniform(per_class=5)
    isolating.learner = learner = make_learner(stream)
    with pytest.raises(ValueError, match=r"memory must be none with .*: a batch passes through the part of one task"):
        isolating.check(stream, learner.backbone)


@pytest.mark.parametrize("method", ["packnet", "hat"])
def test_task_that_comes_again_is_refused_where_its_part_is_final(method: str) -> None:
    isolating, stream = make_penalty(method), tiny.split("task", cycles=2)
    with pytest.raises(ValueError, match=r"dataset\.cycles must be 1 with .*, got 2"):
        isolating.check(stream, make_learner(stream).backbone)


FINAL = {"packnet": {}, "hat": {"strength": 0.0, "s_max": 1e6}, "separate": {}}
"""The methods that forget nothing, to the last bit: HAT where its gates are hard."""


@pytest.mark.parametrize("method", FINAL)
def test_parts_are_found_again_where_the_tasks_come_in_another_order(method: str, tmp_path: Path) -> None:
    said = learned(make_penalty(method, **FINAL[method]), tmp_path, order="reversed", epochs=2)[2]
    for task in range(3):
        assert_close(said[-1][task], said[task][task], **EXACT)


def test_task_that_comes_first_in_another_order_is_gated_too(tmp_path: Path) -> None:
    xdg, gates = make_penalty("xdg"), []

    class Look(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            gates.append(xdg.gate(xdg.task.base, 0, 16))

    learned(xdg, tmp_path, order="reversed", callbacks=[Look()])
    assert xdg.seeds.keys() == {0, 1, 2}
    assert all(gate is not None and 0 < int(gate.sum()) < 16 for gate in gates)


@pytest.mark.parametrize("method", ["xdg", "hat"])
def test_gates_refuse_units_that_may_lie_in_either_dimension_before_training(method: str) -> None:
    backbone = nn.Sequential(nn.Flatten(), nn.Unflatten(1, (4, 16)), nn.ReLU(), nn.Flatten())
    backbone.add_module("head", nn.Linear(64, 6))
    with pytest.raises(ValueError, match=r"backbone must have units .* behind each nn.ReLU, got shape \(1, 4, 16\)"):
        make_penalty(method).check(make_stream(), backbone)
    assert not any(module._forward_hooks for module in backbone.modules())


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", ISOLATING)
def test_hooks_leave_no_trace_after_the_run(method: str, network: str, tmp_path: Path) -> None:
    learner = learned(make_penalty(method), tmp_path, network)[0]
    for module in learner.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
        assert module.training
    assert learner.terms == []
    assert learner.state_dict().keys() == make_learner(make_stream(), network).state_dict().keys()
    assert len(learner.configure_optimizers().param_groups[0]["params"]) == len(list(learner.parameters()))


class Examined(Callback):
    """Tests every task amid the second one."""

    def __init__(self, method: Any) -> None:
        self.method, self.num = method, 0

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        if self.method.task.index == 1:
            for task in range(3):
                test_logits(make_stream(), pl_module, self.method, task)
                self.num += 1


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", ISOLATING)
def test_tests_amid_a_task_leave_no_trace(method: str, network: str, tmp_path: Path) -> None:
    """Of weights, gates and modes, whichever task is entered."""
    plain, tested = make_penalty(method), make_penalty(method)
    learner, matrix, _ = learned(plain, tmp_path, network)
    tests = Examined(tested)
    other, same, _ = learned(tested, tmp_path, network, callbacks=[tests])
    assert tests.num > 3
    assert_close((same, tiny.weights_of(other)), (matrix, tiny.weights_of(learner)), **EXACT)
    assert_close(tested.state_dict(), plain.state_dict(), **EXACT)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", ISOLATING)
def test_state_and_weights_of_a_file_say_what_the_run_said(method: str, network: str, tmp_path: Path) -> None:
    """In a process that learned nothing: what a finished run is tested by."""
    trained, stream = make_penalty(method), make_stream()
    learner, _, said = learned(trained, tmp_path, network)
    torch.save({"weights": learner.state_dict(), "method": trained.state_dict()}, tmp_path / "model")
    saved = torch.load(tmp_path / "model", weights_only=True)
    fresh, isolating = make_learner(stream, network), make_penalty(method)
    fresh.load_state_dict(saved["weights"])
    isolating.load_state_dict(saved["method"])
    isolating.learner = fresh
    assert_close([test_logits(stream, fresh, isolating, j) for j in range(3)], said[-1], **EXACT)


STOPS = (1, 5, 6, 8, 11)
"""Amid each task, before and in its second half, and at the end of one."""


@pytest.mark.parametrize("method", grid(ISOLATING, ["packnet"]))
def test_resumed_run_equals_an_uninterrupted_one(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_resumes(monkeypatch, tmp_path, STOPS, f"method={method}", "scenario=task", "backbone.dropout=0.2")


@pytest.mark.parametrize("method", ISOLATING)
def test_part_of_a_task_matters(method: str, tmp_path: Path) -> None:
    """The parts differ: entered for another task, the network says something else."""
    isolating, stream = make_penalty(method), make_stream()
    learner = learned(isolating, tmp_path, "cnn")[0].eval()
    x, found = stream.task(0).test.inputs.float() / 255, []
    with torch.no_grad():
        for task in range(3):
            isolating.enter(stream.task(task))
            found.append(learner.logits(x))
        isolating.enter(None)
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])


@pytest.mark.parametrize("method", grid(ISOLATING, ["hat"]))
def test_traced_backbone_passes_the_gates_too(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a backend that runs the traced graphs as they are: bit by bit."""
    plain = run(tmp_path, *tiny.overrides(method))
    as_it_is = partial(torch.compile, backend=lambda graph, inputs: graph.forward)
    monkeypatch.setattr(torch, "compile", as_it_is)
    assert_same_run(run(tmp_path, *tiny.overrides(method), "compile=true"), plain)


@pytest.mark.parametrize("method", grid(ISOLATING, ["xdg"]))
def test_finished_run_is_tested_task_by_task_from_its_folder(method: str, tmp_path: Path) -> None:
    done = run(tmp_path, *tiny.overrides(method))
    assert evaluate(done.folder, [])[1]["accuracy_per_task"] == done.metrics["final_accuracy_per_task"]
