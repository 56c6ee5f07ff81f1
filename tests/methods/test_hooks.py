"""When things happen in a real Trainer: what the penalty adds, where, and what the path methods see of each step."""

from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, Optimizer
from torch.testing import assert_close

import reference
import tiny
from grids import grid
from lifelong.methods.penalty import Penalty
from lifelong.methods.rwalk import RWalk
from lifelong.methods.si import SI
from lifelong.models.learner import Learner
from probe import Probe
from tiny import HALVED, HOLDING, fit, keep, make_learner, make_penalty

pytestmark = [
    pytest.mark.filterwarnings("ignore::lifelong.methods.penalty.StabilityWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
]

EXACT = {"rtol": 0.0, "atol": 0.0}
FLOAT64 = {"rtol": 1e-9, "atol": 1e-12}

momentum = partial(SGD, lr=0.05, momentum=0.9)
adam = partial(Adam, lr=1e-2)
TRAINERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "sgd": (momentum, {"precision": "64-true"}),
    "adam, 2 batches a step": (adam, {"precision": "64-true", "accumulate_grad_batches": 2}),
    "sgd, norm clipped": (momentum, {"precision": "64-true", "gradient_clip_val": 0.1}),
    "adam, value clipped": (
        adam,
        {"precision": "64-true", "gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
    ),
    "adam, bf16-mixed": (adam, {"precision": "bf16-mixed"}),
}


def second_task(penalty: Penalty, make_optimizer: Any = momentum, **trainer: Any) -> tuple[Probe, Learner]:
    """The probe of the second of two tasks of plain Trainers."""
    stream, probe = tiny.split(), Probe()
    learner = make_learner(stream, make_optimizer=make_optimizer)
    fit(learner, penalty, stream.task(0).train, penalty, epochs=2, **trainer)
    keep(learner, penalty, stream.task(0).train)
    fit(learner, penalty, stream.task(1).train, *probe.around(penalty), **trainer)
    return probe, learner


def flat(params: dict[str, Tensor]) -> Tensor:
    return torch.cat([t.flatten() for t in params.values()]).double()


# What is added, and where -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("method", HOLDING)
def test_task_gradient_is_that_of_the_unregularised_loss(method: str, size: int) -> None:
    """What stands in .grad before the penalty: the mean over a step's batches of the mean cross-entropy's gradient.

    An epoch's last step has fewer batches than `size`, at 3: Lightning alone would divide by 3.
    """
    penalty = make_penalty(method, strength=5.0)
    probe, learner = second_task(penalty, precision="64-true", accumulate_grad_batches=size)
    assert (min(len(batches) for batches in probe.batches if batches) < size) == (size == 3)
    for task, theta, batches in zip(probe.task, probe.weights, probe.batches, strict=False):
        assert_close(task, loss_gradient(learner.backbone, theta, batches), **FLOAT64)


def loss_gradient(backbone: nn.Module, theta: dict[str, Tensor], batches: list[tiny.Pair]) -> dict[str, Tensor]:
    leaves = {n: t.clone().requires_grad_() for n, t in theta.items()}
    outputs = [torch.func.functional_call(backbone, leaves, (x,)) for x, _ in batches]
    loss = torch.stack([F.cross_entropy(z, y) for z, (_, y) in zip(outputs, batches, strict=True)]).mean()
    return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))


class Doubling(Callback):
    """A learning rate of its own for the head, and twice the rates after every step."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        optimizer = trainer.optimizers[0]
        assert len(optimizer.param_groups) == 2

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        for group in trainer.optimizers[0].param_groups:
            group["lr"] *= 2


def two_rates(params: Any) -> Optimizer:
    *body, weight, bias = params
    return SGD([{"params": body, "lr": 0.01}, {"params": [weight, bias], "lr": 0.1}])


@pytest.mark.parametrize("method", HOLDING)
def test_proximal_step_follows_the_optimisers_with_each_groups_rate(method: str) -> None:
    """θ' = (θ − lr g + a θ*)/(1 + a), a = lr · 2c · strength · Ω with the lr of that group at that step."""
    strength, c = 20.0, 0.5 if method in HALVED else 1.0
    penalty = make_penalty(method, strength=strength, step="proximal")
    stream, probe = tiny.split(), Probe()
    learner = make_learner(stream, make_optimizer=two_rates)
    fit(learner, penalty, stream.task(0).train, penalty, precision="64-true")
    keep(learner, penalty, stream.task(0).train)
    callbacks = [*probe.around(penalty), Doubling()]
    fit(learner, penalty, stream.task(1).train, *callbacks, precision="64-true")
    for t in range(4):
        for n, theta in probe.weights[t].items():
            lr = 2**t * (0.1 if n.startswith("head") else 0.01)
            a = lr * 2 * c * strength * penalty.importance[n]
            expected = (theta - lr * probe.task[t][n] + a * penalty.anchor[n]) / (1 + a)
            assert_close(probe.weights[t + 1][n], expected, **FLOAT64)
            assert_close(probe.total[t][n], probe.task[t][n], **EXACT)


def test_no_hook_stays_on_the_optimiser() -> None:
    """Each task has its own optimiser, but a scheduler or a test may keep one."""
    kept: list[Optimizer] = []

    class Keep(Callback):
        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            kept.extend(trainer.optimizers)

    penalty, stream = make_penalty("si"), tiny.split()
    fit(make_learner(stream), penalty, stream.task(0).train, penalty, Keep())
    assert not kept[0]._optimizer_step_post_hooks


# What the path methods see ------------------------------------------------------------------------------------------

WALKS = {**TRAINERS, "sgd, 3 batches a step": (momentum, {"precision": "64-true", "accumulate_grad_batches": 3})}


@pytest.mark.parametrize("step", ["gradient", "proximal"])
@pytest.mark.parametrize("trainer", WALKS)
def test_si_path_is_the_reference_loop_on_the_recorded_walk(trainer: str, step: str) -> None:
    """Unregularised gradients, the moves really made (momentum, clipping, proximal pull), first and last step too."""
    make_optimizer, options = WALKS[trainer]
    penalty = make_penalty("si", strength=3.0, step=step)
    assert isinstance(penalty, SI)
    probe, _ = second_task(penalty, make_optimizer, **options)
    expected = reference.path_integral(
        torch.stack([flat(g) for g in probe.task]), torch.stack([flat(w) for w in probe.weights])
    )
    mixed = options["precision"] == "bf16-mixed"
    assert_close(flat(penalty.path), expected, rtol=1e-4 if mixed else 1e-9, atol=1e-9 if mixed else 1e-15)
    assert_close(flat(penalty.start), flat(probe.weights[0]), **EXACT)


EXACT_WALKS = list(product(sorted(set(WALKS) - {"adam, bf16-mixed"}), ["gradient", "proximal"]))


@pytest.mark.parametrize(("trainer", "step"), grid(EXACT_WALKS, EXACT_WALKS[::3]))
def test_rwalk_is_the_reference_loop_on_the_recorded_walk(trainer: str, step: str) -> None:
    """Two tasks: Fisher, score and Ω from the gradients, weights and batches a probe has seen, one weight at a time."""
    make_optimizer, options = WALKS[trainer]
    stream = tiny.split()
    learner = make_learner(stream, make_optimizer=make_optimizer).double()
    penalty = make_penalty("rwalk", strength=3.0, step=step, interval=2)
    assert isinstance(penalty, RWalk)
    walk = reference.Walk(len(flat(dict(learner.backbone.named_parameters()))), alpha=0.9, interval=2, damping=1e-3)
    for task in range(2):
        examples, probe = stream.task(task).train, Probe()
        fit(learner, penalty, examples, *probe.around(penalty), epochs=2, **options)
        fishers = {}
        for t in range(2, len(probe.task) + 1, 2):
            x, y = (torch.cat(parts) for parts in zip(*probe.batches[t - 1], strict=True))
            fishers[t] = flat(fisher_at(learner.backbone, probe.weights[t - 1], x, y))
        weights = torch.stack([flat(w) for w in probe.weights])
        walk.task(torch.stack([flat(g) for g in probe.task]), weights, fishers)
        keep(learner, penalty, examples)
        assert_close(flat(penalty.importance), walk.importance(), rtol=1e-8, atol=1e-12)


def fisher_at(backbone: nn.Module, theta: dict[str, Tensor], x: Tensor, y: Tensor) -> dict[str, Tensor]:
    now = {n: p.detach().clone() for n, p in backbone.named_parameters()}
    backbone.load_state_dict(theta)
    fisher = reference.fisher_of_labels(backbone, x, y, [0, 1])
    backbone.load_state_dict(now)
    return fisher


def test_driving_by_hand_is_the_order_of_the_trainer() -> None:
    """What makes the fast tests of the other files mean something."""
    stream, found = tiny.split(), []
    for by_hand in (False, True):
        learner = make_learner(stream)
        penalty = make_penalty("rwalk", strength=3.0)
        for task in range(2):
            examples = stream.task(task).train
            if by_hand:
                batches = list(tiny.Batches(examples, 16, seed=0))
                tiny.drive(penalty, learner, batches, SGD(learner.parameters(), lr=0.05))
            else:
                fit(learner, penalty, examples, penalty)
            keep(learner, penalty, examples)
        found.append((tiny.weights_of(learner), penalty.state_dict()))
    assert_close(found[0], found[1], **EXACT)
