"""GEM: the projection on the cone of all earlier tasks, against every set of tight constraints tried out."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

import reference
import runs
import tiny
from lifelong.memory.base import Memory
from lifelong.memory.reservoir import Reservoir
from lifelong.memory.samplers import Uniform
from lifelong.methods.agem import AGEM
from lifelong.methods.gem import GEM, dual
from tiny import named, vector

EXACT = {"rtol": 0.0, "atol": 0.0}
MEMORIES = {"uniform": partial(Uniform, per_class=5), "reservoir": partial(Reservoir, 30)}


def prepared(num_tasks: int, margin: float = 0.0, memory: Memory | None = None) -> tuple[GEM, Any, Tensor]:
    """After so many tasks; and G (num_tasks, P), each row by autograd of the loss on all exemplars of a task."""
    method, memory, stream = GEM(margin=margin), memory or Uniform(per_class=5), tiny.split("class")
    learner = tiny.replaying(method, memory)
    for i in range(1, num_tasks):
        learner.show(stream.visible(i, i))
        tiny.fill(memory, learner, stream.task(i))
    method.task = stream.task(2)
    method.on_train_start(tiny.stand_in_trainer(tiny.SGD(learner.parameters(), lr=0.1), 1), learner)
    held, visible = memory.examples, learner.visible.nonzero().flatten().tolist()
    assert held is not None
    rows = []
    for k in range(num_tasks):
        own = held.subset(torch.from_numpy(memory.tasks == k).nonzero().flatten())
        loss = reference.task_loss(learner.backbone, learner.as_input(own.inputs), own.labels, visible)
        rows.append(vector(reference.gradient(learner.backbone, loss).values()))
    return method, learner, torch.stack(rows)


def edited(method: GEM | AGEM, learner: Any, g: Tensor) -> Tensor:
    grads = named(learner, g)
    method.edit_gradients(grads)
    return vector(grads.values())


def with_products(G: Tensor, products: Tensor) -> Tensor:
    """The shortest g with G g = products."""
    return G.T @ torch.linalg.solve(G @ G.T, products)


def gradients(G: Tensor) -> list[Tensor]:
    """Against some rows of G, along others, and noise."""
    found = []
    for seed in range(8):
        g = torch.Generator().manual_seed(seed)
        products = torch.randn(len(G), generator=g, dtype=torch.float64)
        found.append(with_products(G, products) + 1e-3 * torch.randn(G.shape[1], generator=g, dtype=torch.float64))
    return found


@pytest.mark.parametrize("memory", MEMORIES)
@pytest.mark.parametrize("margin", [0.0, 0.5])
@pytest.mark.parametrize("num_tasks", [1, 2])
def test_step_is_the_projection_found_by_trying_every_tight_set(num_tasks: int, margin: float, memory: str) -> None:
    method, learner, G = prepared(num_tasks, margin, MEMORIES[memory]())
    violated = 0
    for g in gradients(G):
        expected, v = reference.gem(g, G, margin)
        violated += bool((v > 0).any())
        assert_close(edited(method, learner, g), expected, rtol=1e-9, atol=1e-12)
    assert 0 < violated < 8


@pytest.mark.parametrize("ridge", [0.0, 1e-3])
@pytest.mark.parametrize("num_tasks", [1, 2])
def test_with_a_bound_the_multipliers_are_the_minimum_above_it(num_tasks: int, ridge: float) -> None:
    method, learner, G = prepared(num_tasks, margin=0.5)
    added = [edited(method, learner, g) for g in gradients(G)]
    method.bound, method.ridge = True, ridge
    for g, other in zip(gradients(G), added, strict=True):
        found = edited(method, learner, g)
        assert_close(found, reference.gem_bounded(g, G, 0.5, ridge), rtol=1e-9, atol=1e-12)
        assert torch.equal(found, other) == bool((G @ g >= 0).all())


@pytest.mark.parametrize("num_tasks", [1, 2])
def test_gradient_that_violates_nothing_stays_bit_for_bit(num_tasks: int) -> None:
    """Whatever the margin."""
    method, learner, G = prepared(num_tasks, margin=0.5)
    g = with_products(G, torch.ones(num_tasks, dtype=torch.float64))
    assert torch.equal(edited(method, learner, g), g)
    assert not torch.equal(edited(method, learner, -g), -g)


def test_gradient_that_overflows_in_float16_is_left_to_the_loss_scaler() -> None:
    """Which skips the step: no error, and no finite gradient in its place."""
    method, learner, G = prepared(2)
    g = torch.zeros(G.shape[1], dtype=G.dtype)
    place = int(G[0].argmax())
    g[place] = -torch.inf
    assert G[0, place] > 0
    assert edited(method, learner, g).isfinite().logical_not().nonzero().flatten().tolist() == [place]


def test_with_one_earlier_task_it_is_agem_on_the_same_exemplars() -> None:
    method, learner, G = prepared(1)
    other = AGEM()
    other.memory, other.task = method.memory, method.task
    other.on_train_start(tiny.stand_in_trainer(tiny.SGD(learner.parameters(), lr=0.1), 1), learner)
    for g in gradients(G):
        assert_close(edited(method, learner, g), edited(other, learner, g), rtol=1e-10, atol=1e-14)


def test_task_in_work_is_no_constraint() -> None:
    """A reservoir holds samples of it too."""
    memory = Reservoir(60)
    method, learner, G = prepared(2, memory=memory)
    tiny.fill(memory, learner, method.task)
    assert sorted(set(memory.tasks.tolist())) == [0, 1, 2]
    rows = []
    method.reference = lambda batch: rows.append(batch) or [torch.zeros_like(p) for p in method._params.values()]
    edited(method, learner, G[0])
    assert [set(batch.y.tolist()) for batch in rows] == [{0, 1}, {2, 3}]


KINDS = {"apart": 1.0, "nearly one direction": 1e-5}


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("spread", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize("num_tasks", [1, 2, 5, 20])
def test_dual_meets_the_conditions_of_karush_kuhn_and_tucker(num_tasks: int, spread: float, scale: float) -> None:
    """v ≥ 0, G g̃ ≥ 0 and v · G g̃ = 0, each to 1e-6 of its scale; tasks' gradients of very different lengths."""
    for seed in range(10):
        g = torch.Generator().manual_seed(seed)
        directions = torch.randn(num_tasks, 40, generator=g, dtype=torch.float64) * spread + 1
        G = directions * scale * 10 ** torch.linspace(-2, 2, num_tasks, dtype=torch.float64)[:, None]
        gradient = torch.randn(40, generator=g, dtype=torch.float64) - 0.1
        v = dual(G @ G.T, G @ gradient)
        moved = gradient + G.T @ v
        lengths = G.norm(dim=1) * gradient.norm()
        assert bool((v >= 0).all())
        assert bool((G @ moved >= -1e-6 * lengths).all())
        assert float((v * (G @ moved)).abs().max()) <= 1e-6 * float(gradient @ gradient)


@pytest.mark.parametrize("also", [0.0, 1.0, 2.0])
def test_constraint_that_is_zero_or_given_twice_is_no_trouble(also: float) -> None:
    row = torch.tensor([3.0, 4.0], dtype=torch.float64)
    G, g = torch.stack([row, also * row]), torch.tensor([-1.0, -1.0], dtype=torch.float64)
    assert_close(g + G.T @ dual(G @ G.T, G @ g), reference.projected(g, row), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("num_tasks", [1, 2])
def test_a_step_takes_one_pass_for_each_earlier_task(num_tasks: int) -> None:
    """Time and memory of a step grow with the tasks, as the paper's do."""
    method, learner, G = prepared(num_tasks)
    passes: list[int] = []
    learner.backbone.register_forward_hook(lambda *_: passes.append(1))
    edited(method, learner, G[0])
    assert len(passes) == num_tasks
    assert method.state_bytes() == 0


@pytest.mark.parametrize(("rehearse", "num_steps"), [(False, 10), (True, 15)])
def test_rehearsing_it_trains_on_the_exemplars_too(tmp_path: Path, rehearse: bool, num_steps: int) -> None:
    """Five batches of each task alone; ten of the second with 100 exemplars of the first, three times each."""
    memory = ("memory=uniform", "memory.per_class=10", "memory.replay=repeated")
    epoch = ("trainer.max_epochs=1", "batch_size=64", f"method.rehearse={rehearse}")
    assert runs.run(tmp_path, "method=gem", *memory, *epoch).metrics["num_steps"] == num_steps
