"""EWC++: the moving average, and its normalisation over all parameters together."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.optim import SGD
from torch.testing import assert_close

import reference
import tiny
from lifelong.methods.ewcpp import EWCPP, min_max_normalised
from tiny import drive, make_learner, random_batches

EXACT = {"rtol": 0.0, "atol": 0.0}
WINDOWS = ("step", "interval", "task")


class Scripted(EWCPP):
    """A batch is its Fisher."""

    def fisher_of(self, learner: Any, batches: Any) -> dict[str, Tensor]:
        return {"w": batches[0].clone()}


def steps(penalty: EWCPP, fishers: Tensor) -> None:
    for F in fishers:
        batches: Any = [F] if penalty.wants_batches() else []
        penalty.before_step(None, batches)  # type: ignore[arg-type]
        penalty.after_step({}, {}, {})


def of_intervals(fishers: Tensor, interval: int, window: str) -> list[Tensor]:
    """What each whole interval of a task adds."""
    return [reference.of_window(fishers[:end], interval, window) for end in range(interval, len(fishers) + 1, interval)]


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("interval", [1, 3])
@pytest.mark.parametrize("alpha", [0.2, 0.9, 1.0])
def test_fisher_is_the_moving_average_of_every_interval(alpha: float, interval: int, window: str) -> None:
    penalty = Scripted(1.0, alpha=alpha, interval=interval, window=window)
    fishers = torch.rand(12, 5, dtype=torch.float64)
    penalty.begin({})
    steps(penalty, fishers)
    assert_close(penalty.fisher["w"], reference.moving_average(of_intervals(fishers, interval, window), alpha))


@pytest.mark.parametrize("window", WINDOWS)
def test_fisher_is_not_reset_between_tasks_but_the_count_of_steps_is(window: str) -> None:
    """Of three steps each only the second ends an interval; the third is left out."""
    penalty = Scripted(1.0, alpha=0.5, interval=2, window=window)
    fishers = torch.rand(2, 3, 4, dtype=torch.float64)
    for task in fishers:
        penalty.begin({})
        steps(penalty, task)
    expected = [F for task in fishers for F in of_intervals(task, 2, window)]
    assert_close(penalty.fisher["w"], reference.moving_average(expected, 0.5))


def test_only_what_gathers_over_steps_keeps_what_it_has_gathered() -> None:
    """Checkpoints of the default are what they were."""
    assert EWCPP(1.0).state_dict().keys() == {"anchor", "importance", "fisher", "steps"}
    assert all("gathered" in EWCPP(1.0, window=window).state_dict() for window in ("interval", "task"))


def test_fisher_of_an_interval_is_the_mean_of_squared_batch_gradients_at_their_own_weights() -> None:
    """A-GEM's: labels=batched window=interval."""
    learner, squares = make_learner(tiny.split()).double(), []
    penalty = EWCPP(100.0, interval=3, alpha=1.0, labels="batched", window="interval")
    for i, (x, y) in enumerate(random_batches(3, 2, size=4)):
        found = reference.squared_batch_means(learner.backbone, x, y, [0, 1], batch_size=4)
        squares.append(torch.cat([F.flatten() for F in found.values()]))
        drive(penalty, learner, [(x.double(), y)], SGD(learner.parameters(), lr=0.1), step=i)
    got = torch.cat([F.flatten() for F in penalty.fisher.values()])
    assert_close(got, torch.stack(squares).mean(0), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("labels", ["exact", "empirical"])
def test_fisher_is_of_the_weights_before_the_step_without_the_penalty(labels: str) -> None:
    """Also in the second task, where the gradient that the optimiser gets is another."""
    learner = make_learner(tiny.split()).double()
    penalty, average = EWCPP(100.0, interval=1, alpha=0.5, labels=labels), []
    for task in range(2):
        for i, (x, y) in enumerate(random_batches(3, 2, seed=task, size=4)):
            x = x.double()
            if labels == "exact":
                fisher = reference.fisher_exact(learner.backbone, x, [0, 1])
            else:
                fisher = reference.fisher_of_labels(learner.backbone, x, y, [0, 1])
            average.append(torch.cat([F.flatten() for F in fisher.values()]))
            drive(penalty, learner, [(x, y)], SGD(learner.parameters(), lr=0.01), step=i)
        tiny.after_task(penalty, learner, [])
    got = torch.cat([F.flatten() for F in penalty.fisher.values()])
    assert_close(got, reference.moving_average(average, 0.5), rtol=1e-9, atol=1e-14)


def test_normalisation_is_over_all_parameters_together() -> None:
    params = {"a": torch.tensor([[2.0, 4.0]]), "b": torch.tensor([3.0, 3.5]), "c": torch.tensor(6.0)}
    got = min_max_normalised(params)
    flat = [v for p in params.values() for v in p.flatten().tolist()]
    assert [v for p in got.values() for v in p.flatten().tolist()] == reference.normalised(flat)
    assert [p.shape for p in got.values()] == [p.shape for p in params.values()]


def test_normalisation_of_equal_values_is_zero() -> None:
    assert_close(
        min_max_normalised({"a": torch.ones(2), "b": torch.ones(1)}), {"a": torch.zeros(2), "b": torch.zeros(1)}
    )


def test_only_the_latest_task_is_anchored_and_the_average_carries_the_past() -> None:
    penalty, learner = tiny.make_penalty("ewcpp", alpha=0.5, strength=1), make_learner(tiny.split())
    for task in range(2):
        tiny.learn_by_hand(penalty, learner, task)
    assert_close(penalty.importance, min_max_normalised(penalty.fisher), **EXACT)
    assert_close(penalty.anchor, {n: p.detach() for n, p in learner.backbone.named_parameters()}, **EXACT)


def test_replayed_samples_of_another_head_do_not_enter() -> None:
    """Task-incremental replay: the Fisher of a batch is that of its samples of the current task."""
    stream = tiny.split("task")
    learner, penalty = make_learner(stream), EWCPP(1.0, interval=1, alpha=1.0)
    learner.show([2, 3])
    x, _ = random_batches(1, 6)[0]
    y = torch.tensor([0, 2, 3, 5, 2, 1, 0, 4])
    own = (y == 2) | (y == 3)
    penalty.before_step(learner, [(x[:4], y[:4]), (x[4:], y[4:]), (x[-2:], y[-2:])])
    penalty.after_step({}, {}, {})
    expected = reference.fisher_of_labels(learner.backbone, x[own], y[own], [2, 3])
    assert_close({n: F.double() for n, F in penalty.fisher.items()}, expected, rtol=1e-4, atol=1e-9)
    held = penalty.fisher
    penalty.before_step(learner, [(x[-2:], y[-2:])])  # none of the current task: nothing to average in
    penalty.after_step({}, {}, {})
    assert_close(penalty.fisher, held, **EXACT)
