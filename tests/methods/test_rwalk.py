"""RWalk on walks written by hand or at random, against the paper's loop over one weight at a time."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

import reference
import tiny
from lifelong.methods.rwalk import RWalk
from tiny import StandIn, flat

P = 6
SHAPES = {"a": (2, 2), "b": (2,)}


class Scripted(RWalk):
    """A batch is its Fisher."""

    def fisher_of(self, learner: Any, batches: Any) -> dict[str, Tensor]:
        return batches[0]


class World(StandIn):
    """The backbone that a walk moves."""

    def __init__(self) -> None:
        super().__init__(nn.Module())
        for name, shape in SHAPES.items():
            self.backbone.register_parameter(name, nn.Parameter(torch.zeros(shape, dtype=torch.float64)))


def named(flat: Tensor) -> dict[str, Tensor]:
    return {"a": flat[:4].reshape(2, 2).clone(), "b": flat[4:].clone()}


def walk(penalty: RWalk, gradients: Tensor, weights: Tensor, fishers: Tensor) -> None:
    """One task: gradients and fishers (S, P), weights (S + 1, P)."""
    world: Any = World()
    penalty.begin(named(weights[0]))
    for t in range(len(gradients)):
        batches: Any = [named(fishers[t])] if penalty.wants_batches() else []
        penalty.before_step(world, batches)
        penalty.after_step(named(gradients[t]), named(weights[t]), named(weights[t + 1]))
    for name, end in named(weights[-1]).items():
        getattr(world.backbone, name).data = end
    tiny.after_task(penalty, world, [])


def rows(*values: list[float]) -> Tensor:
    return torch.tensor([[*v, *[0.0] * (P - len(v))] for v in values], dtype=torch.float64)


def scores(penalty: RWalk, num: int) -> list[float]:
    return flat(penalty.score_before)[:num].tolist()


@pytest.mark.parametrize(("half", "decay"), [(True, 0.5), (False, 0.5), (True, 1.5)])
@pytest.mark.parametrize("window", ["step", "interval", "task"])
@pytest.mark.parametrize("num_steps", [6, 7, 8])
@pytest.mark.parametrize("interval", [1, 2, 3])
def test_importance_is_the_papers_loop_over_three_tasks(
    interval: int, num_steps: int, half: bool, decay: float, window: str
) -> None:
    """With intervals that a task's end cuts short, uphill moves and Fishers of all sizes."""
    g = torch.Generator().manual_seed(10 * interval + num_steps)
    settings = {"interval": interval, "alpha": 0.7, "damping": 0.01}
    penalty = Scripted(1.0, half=half, decay=decay, window=window, **settings)
    loop = reference.Walk(P, factor=0.5 if half else 1.0, decay=decay, **settings)
    for _ in range(3):
        gradients = torch.randn(num_steps, P, generator=g, dtype=torch.float64)
        weights = torch.randn(num_steps + 1, P, generator=g, dtype=torch.float64)
        fishers = torch.rand(num_steps, P, generator=g, dtype=torch.float64) ** 4
        walk(penalty, gradients, weights, fishers)
        ends = range(interval, num_steps + 1, interval)
        loop.task(gradients, weights, {t: reference.of_window(fishers[:t], interval, window) for t in ends})
        assert_close(flat(penalty.score_before), torch.tensor(loop.score, dtype=torch.float64))
        assert_close(flat(penalty.fisher), torch.tensor(loop.fisher, dtype=torch.float64))
        assert_close(flat(penalty.importance), loop.importance())
        assert_close(flat(penalty.anchor), weights[-1], rtol=0.0, atol=0.0)


def test_interval_is_scored_with_the_fisher_from_before_its_update() -> None:
    """By hand, Δt = 1, α = ½, ε = 1: F = 0 in the first interval, ½·8 = 4 in the second.

    s = 3·1/(0 + 1) + 3·1/(½·4·1² + 1) = 3 + 1; with F updated first it would be 1 + 3/(½·6 + 1).
    """
    penalty = Scripted(1.0, interval=1, alpha=0.5, damping=1.0)
    walk(penalty, rows([-3.0], [-3.0]), rows([0.0], [1.0], [2.0]), rows([8.0], [8.0]))
    assert scores(penalty, 1) == [4.0]
    assert flat(penalty.fisher)[0] == 6


def test_interval_cut_short_by_the_end_of_the_task_is_scored() -> None:
    """And a new task starts a new one: nothing of the old one's ΔL or snapshot is left over."""
    penalty = Scripted(1.0, interval=2, alpha=1.0, damping=1.0)
    walk(penalty, rows([0.0], [0.0], [-7.0]), rows([0.0], [0.0], [0.0], [1.0]), rows([0.0], [0.0], [0.0]))
    assert scores(penalty, 1) == [7.0]
    walk(penalty, rows([-1.0], [0.0]), rows([9.0], [10.0], [10.0]), rows([0.0], [0.0]))
    assert scores(penalty, 1) == [0.5 * (7.0 + 1.0)]


def test_fisher_and_score_are_each_normalised_over_all_parameters_together() -> None:
    penalty = Scripted(1.0, interval=1, alpha=1.0, damping=1.0)
    gradients, fisher = rows([-8.0, -4.0, 0.0, 0.0, -2.0, 0.0]), rows([0.0, 0.0, 3.0, 6.0, 3.0, 12.0])
    walk(penalty, gradients, rows([0.0] * P, [1.0] * P), fisher)
    assert_close(flat(penalty.importance), rows([1.0, 0.5, 0.25, 0.5, 0.5, 1.0])[0])
