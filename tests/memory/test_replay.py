"""Balanced replay: half of every batch is from memory."""

import pytest
import torch
from torch import Tensor

from lifelong.data.examples import Examples
from lifelong.data.loader import Batches
from lifelong.data.replay import BalancedBatches

OWN, OLD = 0, 1  # labels that say where an example is from; its number is its pixel


def numbered(num: int, label: int) -> Examples:
    return Examples(torch.arange(num).to(torch.uint8).view(num, 1, 1, 1), torch.full((num,), label))


def numbers(x: Tensor) -> list[int]:
    return (x * 255).round().long().flatten().tolist()


def epoch(batches: Batches) -> list[tuple[list[int], list[int]]]:
    """Numbers of (own, old) examples of each batch."""
    return [(numbers(x[y == OWN]), numbers(x[y == OLD])) for x, y, _ in batches]


# Balanced -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_own", [5, 8, 9, 33, 100])
@pytest.mark.parametrize("num_old", [1, 3, 10, 200])
@pytest.mark.parametrize("batch_size", [2, 7, 10])
def test_every_batch_is_half_memory(num_own: int, num_old: int, batch_size: int) -> None:
    batches = BalancedBatches(numbered(num_own, OWN), numbered(num_old, OLD), batch_size, seed=0)
    given = epoch(batches)
    assert len(given) == len(batches) == len(Batches(numbered(num_own, OWN), batch_size, seed=0))
    for own, old in given:
        assert len(own) == min(-(-batch_size // 2), num_own)
        assert len(old) == min(batch_size // 2, len(own))


def test_own_examples_come_at_most_once_an_epoch_and_exemplars_equally_often() -> None:
    given = epoch(BalancedBatches(numbered(100, OWN), numbered(7, OLD), 10, seed=0))
    own = [n for batch, _ in given for n in batch]
    assert len(own) == len(set(own)) == 50
    times = torch.bincount(torch.tensor([n for _, batch in given for n in batch]), minlength=7)
    assert int(times.max() - times.min()) <= 1


def test_every_own_example_comes_up_in_some_epoch() -> None:
    batches = BalancedBatches(numbered(40, OWN), numbered(40, OLD), 8, seed=0)
    given = [pair for _ in range(12) for pair in epoch(batches)]
    assert {n for own, _ in given for n in own} == {n for _, old in given for n in old} == set(range(40))


def test_balanced_order_is_a_function_of_seed_and_epoch() -> None:
    def epochs(seed: int) -> list[list[tuple[list[int], list[int]]]]:
        batches = BalancedBatches(numbered(40, OWN), numbered(9, OLD), 8, seed=seed)
        return [epoch(batches) for _ in range(2)]

    random = torch.get_rng_state()
    first = epochs(0)
    torch.rand(3)
    assert epochs(0) == first
    assert epochs(1) != first
    assert first[0] != first[1]
    torch.set_rng_state(random)
    epochs(0)
    assert torch.equal(torch.get_rng_state(), random)


def test_balanced_batches_refuse_what_cannot_be_halved() -> None:
    with pytest.raises(ValueError, match="batch_size must be an integer >= 2"):
        BalancedBatches(numbered(4, OWN), numbered(4, OLD), 1, seed=0)
    for own, old, name in ((0, 4, "own"), (4, 0, "exemplars")):
        with pytest.raises(ValueError, match=f"^{name} must hold at least one"):
            BalancedBatches(numbered(own, OWN), numbered(old, OLD), 2, seed=0)
