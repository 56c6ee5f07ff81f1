"""EWC-DR: the Fisher of the reversed logits, averaged by the number of classes."""

import pytest
import torch
from torch.testing import assert_close

import reference
import tiny
from tiny import make_learner, make_penalty, random_batches


@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_importance_is_the_fisher_of_the_reversed_logits(network: str) -> None:
    stream, learner = tiny.split("class"), make_learner(tiny.split("class"), network)
    learner.show(stream.visible(1, 1))
    batches = random_batches(2, 4)
    found = make_penalty("ewc_dr").importance_of_task(learner, batches, torch.Generator())
    x, y = (torch.cat(parts) for parts in zip(*batches, strict=True))
    expected = reference.fisher_of_reversed_logits(learner.backbone, x, y, [0, 1, 2, 3])
    for name, F in found.items():
        assert_close(F.double(), expected[name], rtol=1e-4, atol=1e-9)  # float32 sums of 16 samples


def test_importance_grows_where_the_network_is_sure_and_that_of_ewc_vanishes() -> None:
    """Logits times ten in the last layer: p_y → 1, so ∂ log p_y → 0, while softmax(−z)_y → 0."""
    learner = make_learner(tiny.split())
    batches = [(x, learner.logits(x).argmax(1)) for x, _ in random_batches(1, 2)]
    total = {}
    for scale in (1.0, 1e3):
        learner.backbone.head.weight.data *= scale
        for method in ("ewc", "ewc_dr"):
            found = make_penalty(method).importance_of_task(learner, batches, torch.Generator())
            total[method, scale] = float(found["head.bias"].sum())
    assert total["ewc", 1e3] < 0.1 * total["ewc", 1.0]
    assert total["ewc_dr", 1e3] > total["ewc_dr", 1.0]


@pytest.mark.parametrize("scenario", ["domain", "task", "class"])
def test_tasks_of_as_many_classes_weigh_the_same(scenario: str) -> None:
    """α = known/total: Ω after k tasks of two classes is the mean of their F, whatever columns they share."""
    stream, penalty, learner = tiny.split(scenario), make_penalty("ewc_dr"), make_learner(tiny.split(scenario))
    fishers = []
    for k in range(3):
        learner.show(stream.visible(k, k))
        penalty.task = stream.task(k)
        batches = [(x, torch.full_like(y, stream.task(k).classes[0])) for x, y in random_batches(2, 2, seed=k)]
        fishers.append(penalty.importance_of_task(learner, batches, torch.Generator()))
        tiny.after_task(penalty, learner, batches)
    for name, omega in penalty.importance.items():
        assert_close(omega, torch.stack([F[name] for F in fishers]).mean(0), rtol=1e-5, atol=1e-9)


def test_classes_that_come_again_weigh_as_when_they_came_first() -> None:
    """Class-incremental, 3 × 2 classes and the first two again: α = 6/8, not 6/12 for all columns that are visible."""
    stream, penalty, learner = tiny.split("class"), make_penalty("ewc_dr"), make_learner(tiny.split("class"))
    fishers = []
    for visit, k in enumerate((0, 1, 2, 0)):
        learner.show(range(min(2 * visit + 2, 6)))
        penalty.task = stream.task(k)
        batches = [(x, torch.full_like(y, 2 * k)) for x, y in random_batches(2, 2, seed=visit)]
        fishers.append(penalty.importance_of_task(learner, batches, torch.Generator()))
        tiny.after_task(penalty, learner, batches)
    for name, omega in penalty.importance.items():
        assert_close(omega, torch.stack([F[name] for F in fishers]).mean(0), rtol=1e-5, atol=1e-9)
