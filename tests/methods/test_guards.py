"""Settings that are refused, and penalties that would do nothing sensible: runs that are stopped, and warnings."""

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.testing import assert_close

import reference
import tiny
from lifelong.config.schema import ConfigError
from lifelong.data.split import Split
from lifelong.methods.guards import ImportanceWarning, PenaltyError, StabilityWarning, check_importance
from lifelong.methods.l2 import L2
from lifelong.methods.penalty import Penalty
from tiny import HOLDING, StandIn, drive, make_learner, make_penalty, random_batches

# Settings -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strength", [-1, math.nan, math.inf, True, "1", None, [1]])
@pytest.mark.parametrize("method", HOLDING)
def test_impossible_strength_is_refused_in_one_line(method: str, strength: Any) -> None:
    with pytest.raises(ConfigError, match=r"^method.strength must be a finite number >= 0, got [^\n]*$"):
        make_penalty(method, strength=strength)


IMPOSSIBLE: list[tuple[str, str, Any, str]] = [
    ("ewc", "labels", "exakt", "must be one of exact, sampled, empirical, weighted, pred, batched"),
    ("ewc", "batch_size", 0, "must be an integer >= 1"),
    ("ewc", "num_samples", 0, "must be an integer >= 1 or null"),
    ("ewc", "num_samples", 1.5, "must be an integer >= 1 or null"),
    ("online_ewc", "gamma", 0, "must be a finite number > 0 and <= 1"),
    ("online_ewc", "gamma", 1.1, "must be a finite number > 0 and <= 1"),
    ("mas", "gamma", -0.1, "must be a finite number >= 0 and <= 1"),
    ("ewcpp", "alpha", 0, "must be a finite number > 0 and <= 1"),
    ("ewcpp", "interval", 0, "must be an integer >= 1"),
    ("ewcpp", "interval", 2.0, "must be an integer >= 1"),
    ("ewcpp", "labels", None, "must be one of exact, sampled, empirical, weighted, pred, batched"),
    ("rwalk", "damping", 0, "must be a finite number > 0"),
    ("si", "damping", 0, "must be a finite number > 0"),
    ("si", "damping", math.nan, "must be a finite number > 0"),
    ("scp", "alpha", -0.1, "must be a finite number >= 0 and <= 1"),
    ("scp", "slices", 0, "must be an integer >= 1 or exact"),
    ("scp", "slices", "all", "must be an integer >= 1 or exact"),
    *((method, "step", "explicit", "must be one of gradient, proximal") for method in HOLDING),
]


@pytest.mark.parametrize(("method", "key", "value", "allowed"), IMPOSSIBLE)
def test_impossible_setting_is_refused_in_one_line(method: str, key: str, value: Any, allowed: str) -> None:
    with pytest.raises(ConfigError, match=rf"^method.{key} {allowed}, got {value!r}$"):
        make_penalty(method, **{key: value})


# Importance that cannot be ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -1e-9])
def test_importance_that_is_not_finite_or_negative_stops_the_run(value: float) -> None:
    omega = torch.ones(3)
    omega[1] = value
    with pytest.raises(PenaltyError, match=r"^importance of b is (not finite|negative)"):
        check_importance({"a": torch.ones(2), "b": omega}, {})


def test_importance_that_is_zero_although_the_task_had_a_gradient_stops_the_run() -> None:
    """As with outputs so far apart that the softmax is one-hot: p(1 − p) is 0, p − onehot(y) is not."""
    p = nn.Parameter(torch.ones(2))
    p.grad = torch.tensor([0.0, 1e-3])
    with pytest.raises(PenaltyError, match=r"zero for every weight.*optimizer\.lr"):
        check_importance({"a": torch.zeros(2)}, {"a": p})


def test_importance_of_a_task_without_a_gradient_is_warned_of() -> None:
    """A softmax over one class: nothing to learn, and nothing to hold."""
    p = nn.Parameter(torch.ones(2))
    p.grad = torch.zeros(2)
    with pytest.warns(ImportanceWarning, match="single class"):
        check_importance({"a": torch.zeros(2)}, {"a": p})


@pytest.mark.filterwarnings("error::lifelong.methods.guards.ImportanceWarning")
@pytest.mark.parametrize("method", HOLDING)
def test_strength_zero_is_fine_tuning_also_where_importance_is_zero(method: str, tmp_path: Path) -> None:
    stream = Split(tiny.source(), 1, scenario="class")
    tiny.run(stream, make_learner(stream), make_penalty(method, strength=0.0), tmp_path)


@pytest.mark.parametrize("method", ["ewc", "online_ewc", "mas", "scp", "si"])
def test_tasks_that_share_no_penalised_weight_are_warned_of(method: str, tmp_path: Path) -> None:
    """Task 2 moves its own columns of the head, where Ω is zero: a legal run."""
    stream = tiny.split("task")
    with pytest.warns(ImportanceWarning, match="left the anchor"):
        tiny.run(stream, make_learner(stream), make_penalty(method, exclude=["body"]), tmp_path)


@pytest.mark.parametrize("method", sorted(set(HOLDING) - {"l2"}))
def test_diverged_weights_stop_the_run(method: str) -> None:
    penalty, learner = make_penalty(method), make_learner(tiny.split())
    drive(penalty, learner, random_batches(4, 2), SGD(learner.parameters(), lr=0.01))
    for p in learner.parameters():
        p.detach().fill_(torch.nan)
    batches = random_batches(4, 2)
    drive(penalty, learner, batches, SGD(learner.parameters(), lr=0.01))
    with pytest.raises(PenaltyError, match="not finite"):
        tiny.after_task(penalty, learner, batches)


@pytest.mark.parametrize("num_steps", [1, 9, 10, 11])
@pytest.mark.parametrize("method", ["ewcpp", "rwalk"])
def test_short_task_has_an_update_at_its_last_step(method: str, num_steps: int) -> None:
    """interval = 10: a task of 1 or 9 steps has one update, of its last step's batch; the old task's Fisher is gone."""
    penalty, learner = make_penalty(method, interval=10, alpha=1.0), make_learner(tiny.split()).double()
    for task in range(2):
        *batches, (x, y) = [(x.double(), y) for x, y in random_batches(min(num_steps, 10), 2, seed=task)]
        optimizer = SGD(learner.parameters(), lr=0.01)
        drive(penalty, learner, batches, optimizer, of=num_steps)
        expected = reference.fisher_of_labels(learner.backbone, x, y, [0, 1])
        rest = [(x, y)] * (2 if num_steps == 11 else 1)
        drive(penalty, learner, rest, optimizer, step=len(batches), of=num_steps)
        assert_close(penalty.fisher, expected, rtol=1e-9, atol=1e-14)
        tiny.after_task(penalty, learner, [])


# The first pull -----------------------------------------------------------------------------------------------------


class Pulled(StandIn):
    """Two weights, from (1, 1) on; the loss pulls each to where the batch says."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(2, 1, bias=False))
        self.backbone.weight.data.fill_(1)

    def loss(self, x: Tensor, y: Tensor) -> Tensor:
        return 0.5 * ((self.backbone.weight - x) ** 2).sum()


def holding(importance: list[float], anchor: list[float], **settings: Any) -> Penalty:
    penalty = L2(**settings)
    penalty.importance, penalty.anchor = {"weight": torch.tensor([importance])}, {"weight": torch.tensor([anchor])}
    return penalty


def pull(penalty: Penalty, *to: float, lr: float = 0.1, num_steps: int = 3) -> Pulled:
    learner = Pulled()
    batch = (torch.tensor(to), torch.zeros(1))
    drive(penalty, learner, [batch] * num_steps, SGD(learner.backbone.parameters(), lr=lr))
    return learner


@pytest.mark.parametrize("step", ["gradient", "proximal"])
def test_penalty_without_a_pull_is_warned_of(step: str) -> None:
    """All that moves has Ω = 0."""
    with pytest.warns(ImportanceWarning, match="no gradient although the weights have left the anchor"):
        pull(holding([1.0, 0.0], [1.0, 1.0], strength=1.0, step=step), 1.0, 5.0)


@pytest.mark.parametrize("step", ["gradient", "proximal"])
@pytest.mark.filterwarnings("error::lifelong.methods.guards.ImportanceWarning")
def test_weights_that_do_not_move_are_no_reason_to_warn(step: str) -> None:
    pull(holding([1.0, 1.0], [1.0, 1.0], strength=1.0, step=step), 1.0, 1.0)


@pytest.mark.filterwarnings("error::lifelong.methods.guards.ImportanceWarning")
def test_pull_that_puts_every_weight_back_is_no_reason_to_warn() -> None:
    """A proximal step of great strength lands on the anchor to the last bit; free weights beside it have moved."""
    penalty = holding([1.0, 0.0], [1.0, 1.0], strength=1e30, step="proximal")
    assert pull(penalty, 5.0, 5.0).backbone.weight[0, 0] == 1


# Stability ----------------------------------------------------------------------------------------------------------


def test_step_past_the_stable_one_is_warned_of() -> None:
    """lr · 2 c strength Ω = 0.1 · 2 · 10.5 > 2."""
    with pytest.warns(StabilityWarning, match=r"2\.1 > 2.*proximal"):
        pull(holding([1.0, 0.5], [0.0, 0.0], strength=10.5), 1.0, 1.0, num_steps=1)


@pytest.mark.parametrize(("strength", "step"), [(9.5, "gradient"), (1e6, "proximal")])
def test_stable_step_is_not_warned_of(strength: float, step: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", StabilityWarning)
        pull(holding([1.0, 0.5], [0.0, 0.0], strength=strength, step=step), 1.0, 1.0, num_steps=1)


@pytest.mark.parametrize("strength", [9.5, 10.5])
def test_explicit_step_diverges_exactly_past_the_stable_one(strength: float) -> None:
    """Without a task the gradient form converges to the anchor iff lr · curvature < 2."""

    class Flat(Pulled):
        def loss(self, x: Tensor, y: Tensor) -> Tensor:
            return 0 * self.backbone.weight.sum()

    learner = Flat()
    penalty = holding([1.0, 1.0], [0.0, 0.0], strength=strength)
    batch = (torch.zeros(2), torch.zeros(1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", StabilityWarning)
        drive(penalty, learner, [batch] * 100, SGD(learner.backbone.parameters(), lr=0.1))
    assert penalty.lr_curvature == pytest.approx(0.2 * strength)
    assert (float(learner.backbone.weight.detach().abs().max()) < 1) == (strength < 10)
