"""method.exclude: parameters that are left free."""

import pytest
import torch
from torch.optim import SGD
from torch.testing import assert_close

import tiny
from tiny import HOLDING, added_gradient, drive, learn_by_hand, make_learner, make_penalty, moved_off, random_batches

pytestmark = pytest.mark.filterwarnings("ignore::lifelong.methods.penalty.StabilityWarning")

EXACT = {"rtol": 0.0, "atol": 0.0}


@pytest.mark.parametrize("prefix", ["haed", "hea", "head.", "backbone.head"])
@pytest.mark.parametrize("method", HOLDING)
def test_unknown_exclude_is_refused(method: str, prefix: str) -> None:
    with pytest.raises(ValueError, match=r"^method.exclude must hold prefixes of body.*head.bias, got "):
        make_penalty(method, exclude=[prefix]).penalised(make_learner(tiny.split()).backbone)


@pytest.mark.parametrize("method", HOLDING)
def test_exclude_of_everything_is_refused(method: str) -> None:
    with pytest.raises(ValueError, match=r"^method.exclude must leave some parameter to penalise"):
        make_penalty(method, exclude=["head", "body"]).penalised(make_learner(tiny.split()).backbone)


@pytest.mark.parametrize("step", ["gradient", "proximal"])
@pytest.mark.parametrize("method", HOLDING)
def test_excluded_head_is_free(method: str, step: str) -> None:
    penalty, learner = tiny.after_two_tasks(method, exclude=["head"], step=step)
    body = {n for n, _ in learner.backbone.named_parameters() if not n.startswith("head")}
    assert set(penalty.importance) == set(penalty.anchor) == body
    moved_off(learner)
    gradient = added_gradient(penalty, learner)
    assert all((g == 0).all() for n, g in gradient.items() if n not in body)
    assert any((g != 0).any() for n, g in gradient.items()) == (step == "gradient")
    before = penalty.value(learner.backbone)
    with torch.no_grad():
        learner.backbone.head.weight.add_(1)
    assert_close(penalty.value(learner.backbone), before, **EXACT)


@pytest.mark.parametrize("step", ["gradient", "proximal"])
@pytest.mark.parametrize("method", HOLDING)
def test_excluded_head_takes_the_step_of_finetuning(method: str, step: str) -> None:
    """Off the anchor, one step of plain gradient descent: what is excluded moves as if there were no penalty."""
    heads = []
    for penalty in (make_penalty("finetune"), make_penalty(method, exclude=["head"], step=step)):
        learner = make_learner(tiny.split())
        learn_by_hand(penalty, learner, 0)
        moved_off(learner)
        drive(penalty, learner, random_batches(1, 2, seed=5), SGD(learner.parameters(), lr=0.05))
        heads.append(learner.backbone.head.state_dict())
    assert_close(heads[1], heads[0], **EXACT)
