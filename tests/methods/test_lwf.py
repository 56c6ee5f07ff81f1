"""LwF: distillation towards the network before the task."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD
from torch.testing import assert_close

import reference
import tiny
from lifelong.data.loader import Batch
from lifelong.methods.lwf import LwF
from tiny import make_learner

pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec.*")
EXACT = {"rtol": 0.0, "atol": 0.0}


def taught(scenario: str, num_tasks: int = 2, **settings: Any) -> tuple[LwF, Any, Batch]:
    """After some tasks, at the first step of the next; float64; and a batch of that task."""
    stream = tiny.split(scenario)
    learner, method = make_learner(stream).double(), LwF(2.0, **settings)
    for task in range(num_tasks):
        learner.show(stream.visible(task, task))
        tiny.moved_off(learner, seed=task)
        tiny.after_task(method, learner, [])
    learner.show(stream.visible(num_tasks, num_tasks))
    method.task = stream.task(num_tasks)
    method.on_train_start(tiny.stand_in_trainer(SGD(learner.parameters(), lr=0.1), 0), learner)
    g = torch.Generator().manual_seed(0)
    x, y = torch.rand(5, 1, 8, 8, generator=g, dtype=torch.float64), torch.zeros(5, dtype=torch.int64)
    return method, learner, Batch(x, y + stream.task(num_tasks).classes[0])


def loss_and_gradient(method: LwF, learner: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    loss = method.extra_loss(batch, learner.logits(batch.x))
    gradient = torch.autograd.grad(loss, list(learner.backbone.parameters()))
    return loss.detach(), torch.cat([g.flatten() for g in gradient])


@pytest.mark.parametrize("scenario", ["domain", "task", "class"])
def test_value_and_gradient_are_zero_at_the_old_weights(scenario: str) -> None:
    loss, gradient = loss_and_gradient(*taught(scenario))
    assert float(loss.abs()) < 1e-14
    assert float(gradient.abs().max()) < 1e-14


def test_logits_of_half_precision_are_compared_in_float32() -> None:
    """A softmax in bfloat16, as autocast on a CPU leaves it, gives a gradient of 1e-4 where there is none."""
    method, _, batch = taught("domain")
    z = 4 * torch.randn(64, 6, generator=torch.Generator().manual_seed(0)).bfloat16()
    method._network = lambda x: z  # type: ignore[assignment]
    leaf = z.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (gradient,) = torch.autograd.grad(method.extra_loss(batch, leaf), leaf)
    assert float(gradient.abs().max()) < 1e-7


@pytest.mark.parametrize(
    ("scenario", "heads", "columns"),
    [
        ("domain", [[0, 1]], "old"),
        ("task", [[0, 1], [2, 3]], "old"),
        ("class", [[0, 1, 2, 3]], "old"),
        ("class", [[0, 1, 2, 3]], "visible"),
    ],
)
def test_loss_is_the_formula_written_out(scenario: str, heads: list[list[int]], columns: str) -> None:
    """λ T² Σ_heads mean_n Σ_c p_old log(p_old/p), one sample and one column at a time."""
    method, learner, batch = taught(scenario, temperature=3.0, columns=columns)
    before = learner.logits(batch.x).detach()
    tiny.moved_off(learner)
    now = learner.logits(batch.x).detach()
    expected = reference.distillation(now, before, heads, 3.0, beside=[4, 5] if columns == "visible" else [])
    assert_close(loss_and_gradient(method, learner, batch)[0], 2.0 * 9.0 * expected, rtol=1e-10, atol=0.0)


def test_visible_columns_cost_what_the_new_ones_take_from_the_old_ones() -> None:
    """More than with the old columns alone by −λ T² mean log P(old), P = softmax(z/T); so not zero at the old weights,
    where a step of gradient descent gives the old columns more."""
    method, learner, batch = taught("class", num_tasks=1, columns="visible")
    z = learner.logits(batch.x).detach().requires_grad_()
    loss = method.extra_loss(batch, z)
    of_old = (z[:, :4] / 2.0).softmax(1)[:, :2].sum(1)  # two old and two new columns; two are not visible yet
    assert_close(loss, -2.0 * 4.0 * of_old.log().mean())
    (gradient,) = torch.autograd.grad(loss, z)
    assert bool((gradient[:, 2:4] > 0).all())
    assert not bool(gradient[:, 4:].any())


@pytest.mark.parametrize(
    ("scenario", "columns", "count"),
    [("domain", "old", 2), ("task", "old", 2), ("class", "old", 4), ("class", "visible", 6)],
)
def test_reduction_mean_divides_by_the_columns_of_a_softmax(scenario: str, columns: str, count: int) -> None:
    """At the third task of two classes each; in task-incremental learning by those of a head."""
    losses = []
    for reduction in ("batchmean", "mean"):
        method, learner, batch = taught(scenario, columns=columns, reduction=reduction)
        tiny.moved_off(learner)
        losses.append(loss_and_gradient(method, learner, batch)[0])
    assert float(losses[0]) > 0
    assert_close(losses[1], losses[0] / count)


@pytest.mark.parametrize(("scenario", "factor"), [("domain", 2.0), ("task", 1.0), ("class", 2.0)])
def test_weight_by_tasks_is_the_mean_over_heads_times_the_number_of_earlier_tasks(scenario: str, factor: float) -> None:
    """At the third task; where each earlier task has a head that is their sum again."""
    losses = []
    for weight in ("heads", "tasks"):
        method, learner, batch = taught(scenario, weight=weight)
        tiny.moved_off(learner)
        losses.append(loss_and_gradient(method, learner, batch)[0])
    assert float(losses[0]) > 0
    assert_close(losses[1], factor * losses[0])


def test_hessian_at_the_old_weights_is_the_exact_fisher() -> None:
    """To second order LwF (T = 1) is EWC measured on the new data: both diagonals, autograd twice against the sum."""
    method, learner, batch = taught("domain", temperature=1.0)
    params = list(learner.backbone.parameters())
    loss = method.extra_loss(batch, learner.logits(batch.x))
    gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, params, create_graph=True)])
    chosen = range(0, len(gradient), 37)
    rows = [
        torch.cat([h.flatten() for h in torch.autograd.grad(gradient[i], params, retain_graph=True)]) for i in chosen
    ]
    fisher = torch.cat([F.flatten() for F in reference.fisher_exact(learner.backbone, batch.x, [0, 1]).values()])
    assert_close(
        torch.stack([torch.cat([h.flatten() for h in row])[i] for row, i in zip(rows, chosen, strict=True)]),
        2.0 * fisher[list(chosen)],
    )


def test_teacher_is_in_eval_mode_and_outside_of_the_graph() -> None:
    learner, method = make_learner(tiny.split(), "cnn"), LwF(1.0)
    tiny.after_task(method, learner, [])
    method.on_train_start(tiny.stand_in_trainer(SGD(learner.parameters(), lr=0.1), 0), learner)
    x = torch.rand(4, 1, 8, 8)
    assert_close(method._network(x), method._network(x), **EXACT)  # no dropout
    assert not method._network(x).requires_grad
