"""Batches: every example once an epoch, in an order that (seed, epoch) decide, resumable behind any batch."""

import pytest
import torch
from torch import Tensor

from lifelong.data.examples import Examples
from lifelong.data.loader import Batches
from lifelong.data.seeds import derive_seed


def examples(num: int = 10) -> Examples:
    return Examples(torch.arange(num, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(num, 1, 2, 2), torch.arange(num))


def labels(batches: Batches) -> list[list[int]]:
    return [y.tolist() for _, y in batches]


def test_an_epoch_holds_every_example_once_and_its_own_label() -> None:
    batches = Batches(examples(), 4, seed=0)
    pairs: list[tuple[Tensor, Tensor]] = list(batches)
    assert [len(y) for _, y in pairs] == [4, 4, 2]
    assert len(batches) == 3
    assert sorted(y for _, ys in pairs for y in ys.tolist()) == list(range(10))
    for x, y in pairs:
        torch.testing.assert_close(x, (y / 255).reshape(-1, 1, 1, 1).expand(len(y), 1, 2, 2))


def test_order_is_a_function_of_seed_and_epoch_alone() -> None:
    one, other = Batches(examples(), 4, seed=5), Batches(examples(), 4, seed=5)
    torch.manual_seed(1)
    first = [labels(one) for _ in range(3)]
    torch.manual_seed(2)
    assert first == [labels(other) for _ in range(3)]
    assert first[0] != first[1]
    assert first[0] != labels(Batches(examples(), 4, seed=6))


def test_the_global_rng_is_left_alone() -> None:
    before = torch.get_rng_state()
    list(Batches(examples(), 4, seed=0))
    assert torch.get_rng_state().equal(before)


@pytest.mark.parametrize("taken", range(7))
def test_restored_behind_any_batch_it_gives_the_rest(taken: int) -> None:
    whole = Batches(examples(), 4, seed=1)
    expected = [batch for _ in range(3) for batch in labels(whole)]
    interrupted = Batches(examples(), 4, seed=1)
    seen: list[list[int]] = []
    while len(seen) < taken:
        for _, y in interrupted:
            seen.append(y.tolist())
            if len(seen) == taken:
                break
    resumed = Batches(examples(), 4, seed=1)
    resumed.load_state_dict(interrupted.state_dict())
    while len(seen) < 9:
        seen += labels(resumed)
    assert seen == expected


def test_without_shuffle_the_order_is_the_examples_own() -> None:
    assert labels(Batches(examples(5), 2, seed=0, shuffle=False)) == [[0, 1], [2, 3], [4]]


def test_impossible_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_size must be an integer >= 1, got 0"):
        Batches(examples(), 0, seed=0)
    with pytest.raises(ValueError, match="examples must hold at least one"):
        Batches(examples(0), 4, seed=0)


def test_derived_seeds_do_not_collide_over_neighbouring_numbers() -> None:
    assert len({derive_seed(a, b) for a in range(50) for b in range(50)} | {derive_seed(a) for a in range(50)}) == 2550
    assert derive_seed(1, 23) != derive_seed(12, 3)
