"""What a memory holds after each task: budgets, whose examples, state, and that the learner is left as it was."""

import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lifelong.data.examples import Examples
from lifelong.memory.base import ExemplarMemory, Memory
from lifelong.memory.samplers import Entropy, MeanOfFeatures, PlaneDistance, Uniform
from lifelong.models.learner import Learner
from lifelong.models.mlp import MLP

SAMPLERS: list[type[ExemplarMemory]] = [Uniform, PlaneDistance, Entropy, MeanOfFeatures]
each_sampler = pytest.mark.parametrize("sampler", SAMPLERS)


def make_learner(dropout: float = 0.0) -> Learner:
    return Learner(MLP((1, 2, 2), 6, widths=[7], dropout=dropout), torch.optim.Adam, 6)


def task_train(task: int, counts: dict[int, int]) -> Examples:
    """counts[c] examples of class c, in mixed order; the first three pixels of each image are (task, class, number)."""
    rows = [(task, c, n, 99) for c, num in counts.items() for n in range(num)]
    rows = [rows[i] for i in torch.randperm(len(rows), generator=torch.Generator().manual_seed(task)).tolist()]
    images = torch.tensor(rows, dtype=torch.uint8).view(-1, 1, 2, 2)
    return Examples(images, torch.tensor([row[1] for row in rows]))


def learn(memory: Memory, tasks: list[Examples], learner: Learner | None = None) -> Memory:
    learner = learner or make_learner()
    for i, train in enumerate(tasks):
        memory.after_task(learner, train, i, torch.Generator().manual_seed(i))
    return memory


def kept(memory: Memory) -> dict[tuple[int, int], list[int]]:
    """(task, class) → numbers of the examples kept, in the order kept, as written in their pixels."""
    result: dict[tuple[int, int], list[int]] = {}
    assert memory.examples is not None
    images, labels = memory.examples.inputs.flatten(1).tolist(), memory.examples.labels.tolist()
    for (task, class_, number, _), label in zip(images, labels, strict=True):
        assert class_ == label
        result.setdefault((task, label), []).append(number)
    return result


# Budgets ------------------------------------------------------------------------------------------------------------


@each_sampler
def test_per_class_keeps_that_many_of_each_class_or_all(sampler: type[ExemplarMemory]) -> None:
    tasks = [task_train(0, {0: 30, 1: 3}), task_train(1, {2: 10, 3: 9})]
    cells = kept(learn(sampler(per_class=9), tasks))
    assert {cell: len(numbers) for cell, numbers in cells.items()} == {(0, 0): 9, (0, 1): 3, (1, 2): 9, (1, 3): 9}
    assert all(len(set(numbers)) == len(numbers) for numbers in cells.values())


@each_sampler
def test_each_domain_keeps_its_own_exemplars_of_the_shared_classes(sampler: type[ExemplarMemory]) -> None:
    tasks = [task_train(i, {0: 12, 1: 12}) for i in range(3)]
    assert {cell: len(v) for cell, v in kept(learn(sampler(per_class=4), tasks)).items()} == {
        (i, c): 4 for i in range(3) for c in range(2)
    }


@each_sampler
def test_total_is_shared_evenly_and_shrinking_keeps_the_first(sampler: type[ExemplarMemory]) -> None:
    tasks = [task_train(0, {0: 40, 1: 40, 2: 40}), task_train(1, {3: 40}), task_train(2, {4: 40, 5: 40})]
    memory, learner, before = sampler(per_class=None, total=31), make_learner(), {}
    for i, sizes in enumerate([(11, 10, 10), (8, 8, 8, 7), (6, 5, 5, 5, 5, 5)]):
        memory.after_task(learner, tasks[i], i, torch.Generator().manual_seed(i))
        now = kept(memory)
        assert tuple(map(len, now.values())) == sizes
        assert all(now[cell] == numbers[: len(now[cell])] for cell, numbers in before.items())
        before = now


def test_shares_use_up_the_total_differ_by_at_most_one_and_never_grow() -> None:
    for total in (12, 13, 97):
        memory, before = Uniform(per_class=None, total=total), [total] * 12
        for num_cells in range(1, 13):
            shares = [memory.quota(i, num_cells) for i in range(num_cells)]
            assert sum(shares) == total
            assert max(shares) - min(shares) <= 1
            assert all(now <= then for now, then in zip(shares, before, strict=False))
            before = shares + before[num_cells:]


def test_nothing_is_held_before_the_first_task_and_never_without_a_memory() -> None:
    assert Uniform().examples is None
    memory = learn(Memory(), [task_train(0, {0: 5})])
    assert memory.examples is None
    assert memory.state_bytes() == 0


@each_sampler
def test_choice_is_a_function_of_weights_data_and_generator(sampler: type[ExemplarMemory]) -> None:
    learner, tasks = make_learner(dropout=0.5), [task_train(0, {0: 40, 1: 40})]
    first = kept(learn(sampler(), tasks, learner.train()))
    torch.rand(1)
    assert kept(learn(sampler(), tasks, learner.eval())) == first


# No trace -----------------------------------------------------------------------------------------------------------


@each_sampler
def test_choosing_leaves_no_trace(sampler: type[ExemplarMemory]) -> None:
    learner = make_learner(dropout=0.5)
    learner.backbone.body.append(nn.BatchNorm1d(7))
    learner.train()
    learner.backbone.body[1].eval()
    learner.loss(torch.rand(4, 1, 2, 2), torch.arange(4)).backward()
    modes = [module.training for module in learner.modules()]
    tensors = [t.clone() for t in learner.state_dict().values()]
    grads = [p.grad.clone() for p in learner.parameters() if p.grad is not None]
    random, visible = torch.get_rng_state(), learner.visible.clone()

    memory = learn(sampler(), [task_train(0, {0: 40, 1: 40})], learner)

    assert [module.training for module in learner.modules()] == modes
    assert all(map(torch.equal, learner.state_dict().values(), tensors))
    assert all(map(torch.equal, (p.grad for p in learner.parameters()), grads))  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), random)
    assert torch.equal(learner.visible, visible)
    assert torch.is_grad_enabled()
    assert memory.examples is not None


# State --------------------------------------------------------------------------------------------------------------


def reloaded(state: Any) -> Any:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_memory_goes_on_from_its_saved_state() -> None:
    tasks = [task_train(0, {0: 40, 1: 40}), task_train(1, {2: 40, 3: 40})]
    learner, whole, resumed = make_learner(), Uniform(None, 25), Uniform(None, 25)
    whole.after_task(learner, tasks[0], 0, torch.Generator().manual_seed(0))
    resumed.load_state_dict(reloaded(whole.state_dict()))
    for memory in (whole, resumed):
        memory.after_task(learner, tasks[1], 1, torch.Generator().manual_seed(1))
    assert kept(whole) == kept(resumed)
    assert whole.state_bytes() == resumed.state_bytes()


def test_saved_state_does_not_follow_the_memory() -> None:
    tasks = [task_train(0, {0: 40, 1: 40}), task_train(1, {2: 40, 3: 40})]
    memory = learn(Uniform(None, 20), tasks[:1])
    state = memory.state_dict()
    learn(memory, tasks)
    assert [len(images) for images in state["cells"].values()] == [10, 10]


def test_state_bytes_are_what_is_stored() -> None:
    """A cell that shrank does not keep the storage it had."""
    memory = learn(Uniform(None, 20), [task_train(i, {2 * i: 40, 2 * i + 1: 40}) for i in range(3)])
    assert memory.state_bytes() == 20 * 4
    assert sum(images.untyped_storage().nbytes() for images in memory.cells.values()) == 20 * 4


# Settings -----------------------------------------------------------------------------------------------------------


class Bare(nn.Module):
    """A backbone that is only a function."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1))


@pytest.mark.parametrize("sampler", [PlaneDistance, MeanOfFeatures])
def test_backbone_without_features_is_refused_by_those_who_need_them(sampler: type[ExemplarMemory]) -> None:
    with pytest.raises(
        ValueError, match=rf"^memory {sampler.__name__} must have a backbone with features\(x\).*, got Bare"
    ):
        sampler().check(Bare(), num_cells=4, batch_size=8)


@pytest.mark.parametrize("sampler", [Uniform, Entropy])
def test_backbone_without_features_is_enough_for_the_others(sampler: type[ExemplarMemory]) -> None:
    sampler().check(Bare(), num_cells=4, batch_size=8)
    learn(sampler(), [task_train(0, {0: 30})], Learner(Bare(), torch.optim.Adam, 6))


def test_head_must_be_linear_for_the_distance_to_its_plane() -> None:
    backbone = MLP((1, 2, 2), 6, widths=[7])
    PlaneDistance().check(backbone, num_cells=4, batch_size=8)
    backbone.head = nn.Sequential(nn.Linear(7, 6), nn.Tanh())  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"head, an nn\.Linear"):
        PlaneDistance().check(backbone, num_cells=4, batch_size=8)
