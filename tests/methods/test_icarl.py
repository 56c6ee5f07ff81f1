"""iCaRL: distilled sigmoid outputs while training, the nearest mean of exemplars at test."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.testing import assert_close

import reference
import tiny
from lifelong.data.loader import Batch
from lifelong.memory.samplers import MeanOfFeatures
from lifelong.methods.icarl import ICaRL
from tiny import make_learner

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*")
EXACT = {"rtol": 0.0, "atol": 0.0}


def in_second_task(temperature: float = 1.0) -> tuple[ICaRL, Any, Batch]:
    """After a task, at the first step of the next; float64; and a batch of both tasks' classes."""
    stream, method = tiny.split("class"), ICaRL(temperature)
    learner: Any = make_learner(stream).double()
    learner.show(stream.visible(0, 0))
    tiny.after_task(method, learner, [])
    learner.show(stream.visible(1, 1))
    method.task = stream.task(1)
    method.on_train_start(tiny.stand_in_trainer(SGD(learner.parameters(), lr=0.1), 0), learner)
    x = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return method, learner, Batch(x, torch.tensor([0, 1, 2, 3, 2, 3]))


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_loss_of_a_step_is_the_formula_written_out_in_the_place_of_the_task_loss(temperature: float) -> None:
    _, learner, batch = in_second_task(temperature)
    before = learner.logits(batch.x).detach()
    tiny.moved_off(learner)
    now = learner.logits(batch.x).detach()
    expected = reference.distilled_binary_cross_entropy(now, before, batch.y, [0, 1], [2, 3], temperature)
    assert_close(learner.training_step(batch, 0).detach(), expected, rtol=1e-10, atol=0.0)


def test_at_the_old_weights_half_precision_leaves_no_gradient_on_old_columns() -> None:
    method, _, batch = in_second_task()
    z = 4 * torch.randn(6, 6, generator=torch.Generator().manual_seed(0)).bfloat16()
    method._network = lambda x: z  # type: ignore[assignment]
    leaf = z.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (gradient,) = torch.autograd.grad(method.extra_loss(batch, leaf), leaf)
    assert float(gradient[:, :2].abs().max()) == 0.0
    assert float(gradient[:, 2:4].abs().max()) > 1e-3


def test_first_task_has_no_teacher() -> None:
    stream, method = tiny.split("class"), ICaRL()
    learner = make_learner(stream).double()
    learner.show(stream.visible(0, 0))
    method.on_train_start(tiny.stand_in_trainer(SGD(learner.parameters(), lr=0.1), 0), learner)
    z, y = learner.logits(torch.rand(4, 1, 8, 8, dtype=torch.float64)), torch.tensor([0, 1, 1, 0])
    expected = reference.distilled_binary_cross_entropy(z, z, y, [], [0, 1])
    assert_close(method.extra_loss(Batch(torch.empty(0), y), z).detach(), expected, rtol=1e-10, atol=0.0)


def test_class_that_comes_again_has_its_label_for_a_target() -> None:
    stream, method = tiny.split("class", cycles=2), ICaRL()
    learner: Any = make_learner(stream).double()
    learner.show(stream.visible(2, 2))
    tiny.after_task(method, learner, [])
    method.task = stream.task(3)  # classes 0 and 1 once more
    learner.show(stream.visible(3, 3))
    method.on_train_start(tiny.stand_in_trainer(SGD(learner.parameters(), lr=0.1), 0), learner)
    z, y = learner.logits(torch.rand(4, 1, 8, 8, dtype=torch.float64)), torch.tensor([0, 1, 1, 0])
    x = torch.rand(4, 1, 8, 8, dtype=torch.float64)
    expected = reference.distilled_binary_cross_entropy(z, learner.logits(x), y, [2, 3, 4, 5], [0, 1])
    assert_close(method.extra_loss(Batch(x, y), z).detach(), expected.detach(), rtol=1e-10, atol=0.0)


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_class_is_that_of_the_nearest_mean_of_exemplars(network: str, tmp_path: Path) -> None:
    """After two tasks, under a budget that had the first task's exemplars shrink."""
    stream, memory, method = tiny.split("class"), MeanOfFeatures(None, total=10, unit_length=True), ICaRL()
    learner: Any = make_learner(stream, network)
    rows: list[Any] = []

    def on_row(task: Any) -> None:
        if task.index == 1:
            x = learner.as_input(torch.cat([stream.task(j).test.inputs for j in range(2)]))
            learner.eval()
            with torch.no_grad():
                cells = {
                    c: learner.backbone.features(learner.as_input(m)).double() for (_, c), m in memory.cells.items()
                }
                expected = reference.nearest_mean(learner.backbone.features(x).double(), cells)
                plain = learner(x)
                method.enter(stream.task(0))
                found = learner(x)
                method.enter(None)
                assert_close(learner(x), plain, **EXACT)
            rows.append((found.argmax(1).tolist(), expected, [len(m) for m in memory.cells.values()]))

    tiny.run(stream, learner, method, tmp_path, memory=memory, on_row=on_row)
    ((found, expected, sizes),) = rows
    assert found == expected
    assert sizes == [3, 3, 2, 2]


def test_class_in_work_is_known_by_the_mean_of_its_training_data() -> None:
    stream, method = tiny.split("class"), ICaRL()
    method.learner, method.memory, method.task = make_learner(stream), MeanOfFeatures(3), stream.task(1)
    tiny.fill(method.memory, method.learner, stream.task(0))
    means, task = method.class_means(), stream.task(1)
    own = method.learner.backbone.features(method.learner.as_input(task.train.inputs[task.train.labels == 2]))
    mean = nn.functional.normalize(own, dim=1).mean(0)
    assert_close(means[2], mean / mean.norm(), rtol=1e-5, atol=1e-6)
    assert means.any(1).tolist() == [True] * 4 + [False] * 2


def test_means_outlive_the_exemplars() -> None:
    """A loaded run classifies as it did, though the memory's data are not in model.pt."""
    stream, method = tiny.split("class"), ICaRL()
    method.learner, method.memory, method.task = make_learner(stream), MeanOfFeatures(3), stream.task(0)
    tiny.fill(method.memory, method.learner, stream.task(0))
    x, found = torch.rand(8, 1, 8, 8), []
    loaded = ICaRL()
    loaded.learner = method.learner
    for each in (method, loaded):
        each.enter(stream.task(0))
        found.append(each.learner(x))
        each.enter(None)
        loaded.load_state_dict(method.state_dict())
    assert_close(found[1], found[0], **EXACT)


def test_herding_on_features_of_length_one_is_that_of_the_scaled_features() -> None:
    stream, learner = tiny.split("class"), make_learner(tiny.split("class"))
    task = stream.task(0)
    candidates = task.train.subset((task.train.labels == 0).nonzero().flatten())
    features = learner.backbone.features(learner.as_input(candidates.inputs)).detach().double()
    unit, chosen = nn.functional.normalize(features), []
    for k in range(1, 6):
        mean = unit.mean(0)
        errors = [float((mean - (phi + unit[chosen].sum(0)) / k).norm()) for phi in unit]
        chosen.append(min(set(range(len(unit))) - set(chosen), key=errors.__getitem__))
    found = MeanOfFeatures(5, unit_length=True).choose(learner, candidates, 5, torch.Generator())
    assert found.tolist() == chosen


@pytest.mark.parametrize(
    ("scenario", "memory", "backbone", "message"),
    [
        ("domain", MeanOfFeatures(3), "mlp", "scenario must be class with ICaRL, got 'domain'"),
        ("task", MeanOfFeatures(3), "mlp", "scenario must be class with ICaRL, got 'task'"),
        ("class", tiny.Memory(), "mlp", "memory must keep exemplars with ICaRL, got memory=none"),
        ("class", MeanOfFeatures(3), "plain", r"backbone must have features\(x\)"),
    ],
)
def test_what_it_cannot_work_with_is_refused_in_one_line(
    scenario: str, memory: Any, backbone: str, message: str
) -> None:
    method = ICaRL()
    method.memory = memory
    network = nn.Linear(64, 6) if backbone == "plain" else tiny.mlp(6)
    with pytest.raises(ValueError, match=message):
        method.check(tiny.split(scenario), network)
