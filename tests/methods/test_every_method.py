"""What methods.md says of all methods at once: every yaml in configs/method is held to it."""

from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam
from torch.testing import assert_close

import reference
import tiny
from grids import grid
from lifelong.methods.penalty import Penalty
from lifelong.models.learner import Learner
from tiny import (
    HALVED,
    HOLDING,
    METHODS,
    PENALTIES,
    added_gradient,
    after_two_tasks,
    drive,
    gradients_of,
    keep,
    learn_by_hand,
    make_learner,
    make_penalty,
    moved_off,
    random_batches,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::lifelong.methods.penalty.StabilityWarning"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
]

EXACT = {"rtol": 0.0, "atol": 0.0}
NETWORKS = list(tiny.NETWORKS)


def on_lists(method: str, penalty: Penalty, learner: Learner) -> tuple[list[Any], dict[str, float]]:
    """What reference.penalty_value takes."""
    params = dict(learner.backbone.named_parameters())
    lists = [[held[n].detach() for n in penalty.importance] for held in (params, penalty.anchor, penalty.importance)]
    return lists, {"c": 0.5 if method in HALVED else 1.0, "strength": penalty.strength}


def test_every_method_of_the_folder_is_built() -> None:
    assert {"finetune", "joint", "l2", "ewc", "online_ewc", "ewcpp", "mas", "si", "rwalk", "scp"} <= set(METHODS)
    assert not {"finetune", "joint"} & set(HOLDING)


# Importance ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", HOLDING)
def test_importance_is_finite_nonnegative_and_shaped_as_the_weights(method: str, network: str) -> None:
    penalty, learner = after_two_tasks(method, network)
    shapes = {n: p.shape for n, p in learner.backbone.named_parameters()}
    assert {n: w.shape for n, w in penalty.importance.items()} == shapes
    assert {n: a.shape for n, a in penalty.anchor.items()} == shapes
    for w in penalty.importance.values():
        assert torch.isfinite(w).all()
        assert (w >= 0).all()
    assert any((w > 0).any() for w in penalty.importance.values())


LEARNED = list(product(METHODS, ["domain", "task", "class"], NETWORKS))


@pytest.mark.parametrize(("method", "scenario", "network"), grid(LEARNED, LEARNED[::3]))
def test_every_scenario_is_learned(method: str, scenario: str, network: str, tmp_path: Path) -> None:
    """No method but L2, whose b are all equal, holds rows of the head that no task has used yet."""
    stream = tiny.split(scenario)
    penalty = make_penalty(method, strength=1.0) if method in PENALTIES else make_penalty(method)
    learner = make_learner(stream, network)
    unused: list[Tensor] = []

    def on_row(task: Any) -> None:
        later = [c for i in range(task.index + 1, 3) for c in stream.task(i).classes]
        if scenario != "domain" and method in HOLDING and later:
            unused.append(penalty.importance["head.weight"][later])

    matrix = tiny.run(stream, learner, penalty, tmp_path, on_row=on_row)
    assert matrix.shape == (3, 3)
    assert torch.isfinite(matrix).all()
    assert all(torch.isfinite(p).all() for p in learner.parameters())
    for rows in unused:
        assert_close(rows, torch.ones_like(rows) if method == "l2" else torch.zeros_like(rows), **EXACT)


@pytest.mark.parametrize("method", PENALTIES)
def test_importance_does_not_depend_on_the_batch_size_it_is_computed_with(method: str) -> None:
    examples = tiny.split().task(0).train
    found = []
    for batch_size in (1, 7, len(examples)):
        penalty, learner = make_penalty(method), make_learner(tiny.split())
        drive(penalty, learner, random_batches(3, 2), SGD(learner.parameters(), lr=0.05))
        keep(learner, penalty, examples, batch_size)
        found.append(penalty.importance_shown)
    assert_close(found[0], found[1], rtol=1e-4, atol=1e-8)  # float32 sums in another order
    assert_close(found[0], found[2], rtol=1e-4, atol=1e-8)


VARIANTS: list[tuple[str, dict[str, Any]]] = [
    *((method, {}) for method in PENALTIES),
    ("ewc", {"labels": "sampled"}),
    ("ewc", {"labels": "empirical"}),
    ("online_ewc", {"labels": "pred"}),
    ("ewc", {"labels": "batched", "batch_size": 3}),
    ("ewcpp", {"labels": "batched"}),
    ("rwalk", {"labels": "sampled"}),
    ("scp", {"slices": 3}),
]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("method", "settings"), VARIANTS)
def test_importance_leaves_no_trace(method: str, settings: dict[str, Any], training: bool) -> None:
    """Weights, batch-norm buffers, .grad, global random numbers and each module's mode."""
    penalty, learner = make_penalty(method, **settings), make_learner(tiny.split(), "cnn")
    batches = random_batches(tiny.INTERVAL, 2)
    drive(penalty, learner, batches, SGD(learner.parameters(), lr=0.05))
    learner.train(training)
    learner.backbone.body[1].train(not training)  # a mode of its own
    before = tiny.weights_of(learner), gradients_of(learner), torch.get_rng_state()
    modes = [module.training for module in learner.modules()]
    grads = [p.grad for p in learner.parameters()]
    getattr(penalty, "before_step", lambda *_: None)(learner, batches)
    tiny.after_task(penalty, learner, batches, seed=0)
    assert_close((tiny.weights_of(learner), gradients_of(learner), torch.get_rng_state()), before, **EXACT)
    assert [module.training for module in learner.modules()] == modes
    assert all(p.grad is g for p, g in zip(learner.parameters(), grads, strict=True))


@pytest.mark.parametrize(
    ("method", "settings"), [("mas", {}), ("mas", {"local": True}), ("scp", {}), ("scp", {"slices": 4})]
)
def test_method_that_needs_no_labels_does_not_use_them(method: str, settings: dict[str, Any]) -> None:
    penalty, learner, found = make_penalty(method, **settings), make_learner(tiny.split()), []
    for offset in (0, -9):
        batches = [(x, y + offset) for x, y in random_batches(2, 2)]
        found.append(penalty.importance_of_task(learner, batches, torch.Generator().manual_seed(0)))
    assert_close(found[1], found[0], **EXACT)


@pytest.mark.parametrize("method", PENALTIES)
def test_what_is_held_does_not_alias_the_weights(method: str) -> None:
    penalty, learner = after_two_tasks(method)
    held = [t.clone() for name in penalty.state for t in tiny.tensors_in(getattr(penalty, name))]
    moved_off(learner)
    assert_close([t for name in penalty.state for t in tiny.tensors_in(getattr(penalty, name))], held, **EXACT)


# Value and gradient -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", PENALTIES)
def test_penalty_and_its_gradient_are_zero_at_the_anchor(method: str) -> None:
    """Latest anchor: after a task the weights are at it. EWC's anchor after two tasks is between them."""
    penalty, learner = make_penalty(method), make_learner(tiny.split())
    for task in range(1 if method == "ewc" else 2):
        learn_by_hand(penalty, learner, task)
    assert float(penalty.value(learner.backbone)) == 0
    assert all((g == 0).all() for g in added_gradient(penalty, learner).values())


@pytest.mark.parametrize("method", HOLDING)
def test_value_is_the_written_formula(method: str) -> None:
    """c · strength · Σ Ω (θ − θ*)², with the paper's c; EWC's constant is the business of its own file."""
    penalty, learner = after_two_tasks(method, strength=3.0)
    moved_off(learner.double())
    lists, factors = on_lists(method, penalty, learner)
    constant = 0.5 * 3.0 * penalty.constant if method == "ewc" else 0.0
    assert_close(penalty.value(learner.backbone), reference.penalty_value(*lists, **factors) + constant)


@pytest.mark.parametrize("method", PENALTIES)
def test_added_gradient_is_the_derivative_of_value(method: str) -> None:
    """A central difference is exact on a quadratic, and asks nothing of how either is computed."""
    penalty, learner = make_penalty(method, strength=3.0), make_learner(tiny.split()).double()
    for task in range(2):
        batches = [(x.double(), y) for x, y in random_batches(4, 2, seed=task)]
        drive(penalty, learner, batches, SGD(learner.parameters(), lr=0.05))
        tiny.after_task(penalty, learner, batches, seed=task)
    moved_off(learner)
    gradient = added_gradient(penalty, learner)
    direction = {n: torch.randn_like(p) for n, p in learner.backbone.named_parameters()}

    def value_at(h: float) -> Tensor:
        with torch.no_grad():
            for n, p in learner.backbone.named_parameters():
                p.add_(h * direction[n])
        return penalty.value(learner.backbone)

    difference = (value_at(1.0) - value_at(-2.0)) / 2
    expected = torch.stack([(gradient[n] * d).sum() for n, d in direction.items()]).sum()
    assert_close(difference, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", PENALTIES)
def test_parameter_that_no_task_uses_is_no_error(method: str) -> None:
    """Its gradient is None in backward and zero to the penalty."""
    penalty, learner = make_penalty(method), make_learner(tiny.split())
    learner.backbone.spare = nn.Linear(3, 2)
    start = learner.backbone.spare.weight.detach().clone()
    for task in range(2):
        learn_by_hand(penalty, learner, task)
    assert_close(learner.backbone.spare.weight.detach(), start, **EXACT)
    expected = torch.ones(2, 3) if method == "l2" else torch.zeros(2, 3)
    assert_close(penalty.importance_shown["spare.weight"], expected, **EXACT)


# Strength -----------------------------------------------------------------------------------------------------------


def learned(penalty: Penalty, folder: Path) -> tuple[Tensor, dict[str, Tensor]]:
    """The matrix and the weights, with dropout and batch norm, which a trace of any importance pass would change."""
    learner = make_learner(tiny.split(), "cnn", partial(Adam, lr=1e-2))
    return tiny.run(tiny.split(), learner, penalty, folder), tiny.weights_of(learner)


@pytest.fixture(scope="module")
def finetuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tensor, dict[str, Tensor]]:
    return learned(make_penalty("finetune"), tmp_path_factory.mktemp("finetuned"))


@pytest.mark.parametrize("step", ["gradient", "proximal"])
@pytest.mark.parametrize("method", PENALTIES)
def test_strength_zero_is_bitwise_finetuning(
    method: str, step: str, finetuned: tuple[Tensor, dict[str, Tensor]], tmp_path: Path
) -> None:
    assert_close(learned(make_penalty(method, strength=0.0, step=step), tmp_path), finetuned, **EXACT)


@pytest.mark.parametrize("method", PENALTIES)
def test_strength_zero_gives_no_gradient_to_what_has_none(method: str) -> None:
    """Else weight decay would reach parameters that fine-tuning leaves alone."""
    penalty, learner = make_penalty(method, strength=0.0), make_learner(tiny.split())
    learner.backbone.spare = nn.Linear(3, 2)
    for task in range(2):
        learn_by_hand(penalty, learner, task)
    assert learner.backbone.spare.weight.grad is None


@pytest.mark.parametrize("method", PENALTIES)
def test_proximal_step_is_stable_at_any_strength(method: str, tmp_path: Path) -> None:
    """At 10¹² times the usual the first task is learned as ever and the rest stays finite, dead inputs included."""
    stream = tiny.permuted()
    usual = make_penalty(method).strength
    after_first: list[dict[str, Tensor]] = []
    for strength in (usual, 1e12 * usual):
        penalty, learner = make_penalty(method, strength=strength, step="proximal"), make_learner(stream)
        snapshot: list[dict[str, Tensor]] = []
        matrix = tiny.run(
            stream, learner, penalty, tmp_path, on_row=lambda _, s=snapshot, m=learner: s.append(tiny.weights_of(m))
        )
        after_first.append(snapshot[0])
        assert torch.isfinite(matrix).all()
        for tensor in (*learner.parameters(), *penalty.importance.values(), *penalty.anchor.values()):
            assert torch.isfinite(tensor).all()
    assert_close(after_first[1], after_first[0], **EXACT)


@pytest.mark.parametrize("method", HOLDING)
def test_infinitely_strong_proximal_step_holds_what_matters(method: str, tmp_path: Path) -> None:
    """Where Ω > 0 the second task moves no weight; what it moves has Ω = 0."""
    stream = tiny.permuted(num_tasks=2)
    learner, penalty = make_learner(stream), make_penalty(method, strength=1e30, step="proximal")
    held: list[dict[str, Tensor]] = []

    def on_row(task: Any) -> None:
        held.append({n: w > 1e-20 for n, w in penalty.importance.items()})
        held.append({n: p.detach().clone() for n, p in learner.backbone.named_parameters()})

    tiny.run(stream, learner, penalty, tmp_path, on_row=on_row)
    matters, before = held[:2]
    for n, p in learner.backbone.named_parameters():
        assert_close(p.detach()[matters[n]], before[n][matters[n]], rtol=1e-6, atol=1e-7)  # θ + (θ* − θ), rounded
