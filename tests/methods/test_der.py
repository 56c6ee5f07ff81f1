"""DER and DER++: the distance to the logits of when a sample entered."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import Adam
from torch.testing import assert_close

import reference
import tiny
from lifelong.data.loader import Batch
from lifelong.memory.base import Memory
from lifelong.memory.reservoir import Reservoir
from lifelong.methods.der import DER
from lifelong.methods.derpp import DERPP
from tiny import make_learner, make_penalty, vector

EXACT = {"rtol": 0.0, "atol": 0.0}
BATCH = Batch(torch.zeros(1), torch.zeros(1))
"""The task's own batch plays no part."""


def loss_and_gradient(method: DER, learner: Any) -> tuple[Tensor, Tensor]:
    loss = method.extra_loss(BATCH, torch.zeros(1))
    return loss.detach(), vector(torch.autograd.grad(loss, list(learner.backbone.parameters())))


@pytest.mark.parametrize("scenario", ["domain", "task", "class"])
@pytest.mark.parametrize("method", [DER(3.0, batch_size=6), DERPP(3.0, 0.0, batch_size=6)], ids=["der", "derpp"])
def test_extra_gradient_is_zero_where_the_network_still_gives_the_stored_logits(method: DER, scenario: str) -> None:
    """And is not where it does not."""
    learner = tiny.replaying(method, Reservoir(30), scenario)
    loss, gradient = loss_and_gradient(method, learner)
    assert float(loss) < 1e-24  # squares of float64 rounding
    assert float(gradient.abs().max()) < 1e-12
    tiny.moved_off(learner)
    assert float(loss_and_gradient(method, learner)[1].abs().max()) > 1e-3


def test_der_is_the_formula_written_out() -> None:
    """All K columns, also those that no task has used yet."""
    method = DER(0.3, batch_size=6)
    learner = tiny.replaying(method, Reservoir(30))
    tiny.moved_off(learner)
    drawn = method.replayed()
    assert drawn.z is not None
    assert drawn.z.shape == (6, 6)
    expected = 0.3 * reference.departure(learner.backbone, drawn.x, drawn.z)
    assert_close(loss_and_gradient(method, learner)[0], expected.detach(), rtol=1e-10, atol=0.0)


def test_derpp_without_logits_still_replays_labels() -> None:
    method = DERPP(0.0, 0.7, batch_size=6)
    tiny.replaying(method, Reservoir(30))
    assert method.active
    method.label_strength = 0.0
    assert not method.active


def test_derpp_adds_the_task_loss_of_a_second_draw() -> None:
    method = DERPP(0.3, 0.7, batch_size=6)
    learner = tiny.replaying(method, Reservoir(30))
    tiny.moved_off(learner)
    first, second = method.replayed(), method.replayed(1)
    assert not torch.equal(first.x, second.x)
    assert first.z is not None
    expected = 0.3 * reference.departure(learner.backbone, first.x, first.z)
    expected = expected + 0.7 * reference.task_loss(learner.backbone, second.x, second.y, [0, 1, 2, 3])
    assert_close(loss_and_gradient(method, learner)[0], expected.detach(), rtol=1e-10, atol=0.0)


@pytest.mark.parametrize("method", [DER(0.0), DERPP(0.0, 0.0)], ids=["der", "derpp"])
def test_weights_zero_are_bitwise_fine_tuning(method: DER, tmp_path: Path) -> None:
    stream, found = tiny.split("class"), []
    for each, memory in ((method, Reservoir(20)), (make_penalty("finetune"), Memory())):
        learner = make_learner(stream, "cnn", partial(Adam, lr=1e-2))
        tiny.run(stream, learner, each, tmp_path, memory=memory, epochs=2)
        found.append(tiny.weights_of(learner))
    assert_close(found[0], found[1], **EXACT)


def test_a_sample_replayed_comes_with_its_own_logits() -> None:
    method, memory = DER(1.0, batch_size=6), Reservoir(30)
    learner = tiny.replaying(method, memory)
    drawn = method.replayed()
    assert drawn.z is not None
    with torch.no_grad():
        assert_close(drawn.z, learner.backbone(drawn.x), rtol=1e-12, atol=1e-14)
