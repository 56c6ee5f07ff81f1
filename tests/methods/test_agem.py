"""A-GEM: the projection, against the formula written out."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import Adam
from torch.testing import assert_close

import reference
import tiny
from lifelong.memory.reservoir import Reservoir
from lifelong.memory.samplers import Uniform
from lifelong.methods.agem import AGEM
from tiny import make_learner, make_penalty, named, vector

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*")
EXACT = {"rtol": 0.0, "atol": 0.0}


def prepared(batch_size: int = 256) -> tuple[AGEM, Any]:
    """In the second of three tasks, with exemplars of the first."""
    method = AGEM(batch_size)
    return method, tiny.replaying(method, Uniform(per_class=5))


def test_reference_is_the_gradient_of_the_task_loss_on_the_exemplars() -> None:
    method, learner = prepared()
    held = method.memory.examples
    assert held is not None
    loss = learner.loss(learner.as_input(held.inputs), held.labels)
    expected = vector(torch.autograd.grad(loss, list(learner.backbone.parameters())))
    assert_close(vector(method.reference(method.replayed())), expected)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_projection_is_the_formula_and_leaves_what_violates_nothing(sign: float) -> None:
    method, learner = prepared()
    ref = vector(method.reference(method.replayed()))
    g = torch.randn(len(ref), generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 1e-3 + sign * ref
    grads = named(learner, g)
    method.edit_gradients(grads)
    got = vector(grads.values())
    assert_close(got, reference.projected(g, ref), rtol=1e-10, atol=1e-14)
    assert float(got @ ref) >= -1e-12 * float(ref @ ref)
    assert torch.equal(got, g) == (sign > 0)


@pytest.mark.parametrize("scale", [2.0**-100, 0.0])
def test_projection_does_not_depend_on_the_length_of_the_reference(
    scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That of fitted exemplars is 1e-24 long: squared in float32 it is 0, and the projection nan."""
    method, learner = prepared()
    ref = [part.float() for part in method.reference(method.replayed())]
    monkeypatch.setattr(method, "reference", lambda _: [scale * part for part in ref])
    g = torch.randn(len(vector(ref)), generator=torch.Generator().manual_seed(1)) * 1e-3 - vector(ref)
    grads = named(learner, g.clone())
    method.edit_gradients(grads)
    expected = reference.projected(g.double(), vector(ref).double()) if scale else g.double()
    assert_close(vector(grads.values()).double(), expected, rtol=1e-4, atol=1e-8)


def test_batch_is_drawn_without_replacement_by_seed_task_and_step() -> None:
    method, _ = prepared(batch_size=4)
    draws = []
    for position in ((0, 0), (0, 1), (0, 0)):
        method._position = position
        draws.append(method.replayed().x)
    assert torch.equal(draws[0], draws[2])
    assert not torch.equal(draws[0], draws[1])
    assert len(draws[0].flatten(1).unique(dim=0)) == 4


def test_without_exemplars_it_is_fine_tuning_to_the_last_bit(tmp_path: Path) -> None:
    """Its memory is empty in the first task."""
    stream, found = tiny.permuted(num_tasks=1), []
    for method in ("finetune", "agem"):
        learner = make_learner(stream, "cnn", partial(Adam, lr=1e-2))
        tiny.run(stream, learner, make_penalty(method), tmp_path, memory=Uniform(per_class=2))
        found.append(tiny.weights_of(learner))
    assert_close(found[1], found[0], **EXACT)


def test_memory_is_not_mixed_into_the_batches(tmp_path: Path) -> None:
    """The task's own 54 samples an epoch: the exemplars are there for the reference alone."""
    stream, seen = tiny.split("class"), []

    class Count(tiny.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            seen.append(len(batch.y))

    tiny.run(stream, make_learner(stream), AGEM(), tmp_path, memory=Uniform(per_class=5), callbacks=[Count()])
    assert sum(seen) == 3 * 54


def test_reference_knows_nothing_of_the_task_in_work() -> None:
    """A reservoir holds samples of it too."""
    method, memory = AGEM(), Reservoir(40)
    learner = tiny.replaying(method, memory)
    tiny.fill(memory, learner, method.task)
    assert sorted(set(memory.tasks.tolist())) == [0, 1]
    assert len(method.replayed().y) == int((memory.tasks == 0).sum())
    assert set(method.replayed().y.tolist()) == {0, 1}
