"""Batches: every example once an epoch, in an order that (seed, epoch) decide, resumable behind any batch."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lifelong.data.augment import Affine, CropFlip
from lifelong.data.examples import Examples, Lazy
from lifelong.data.loader import Batches
from lifelong.data.replay import training_batches
from lifelong.data.seeds import derive_seed


def examples(num: int = 10) -> Examples:
    return Examples(torch.arange(num, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(num, 1, 2, 2), torch.arange(num))


def labels(batches: Batches) -> list[list[int]]:
    return [y.tolist() for _, y, *_ in batches]


@pytest.mark.parametrize("shuffle", [True, False])
def test_an_epoch_holds_every_example_once_and_its_own_label(shuffle: bool) -> None:
    batches = Batches(examples(), 4, seed=0, shuffle=shuffle)
    pairs: list[tuple[Tensor, Tensor]] = [(x, y) for x, y, *_ in batches]
    assert [len(y) for _, y in pairs] == [4, 4, 2]
    assert len(batches) == 3
    seen = [y for _, ys in pairs for y in ys.tolist()]
    assert sorted(seen) == list(range(10))
    assert (seen == list(range(10))) == (not shuffle)
    for x, y in pairs:
        torch.testing.assert_close(x, (y / 255).reshape(-1, 1, 1, 1).expand(len(y), 1, 2, 2))


def test_order_is_a_function_of_seed_and_epoch_alone_and_draws_nothing_global() -> None:
    one, other = Batches(examples(), 4, seed=5), Batches(examples(), 4, seed=5)
    before = torch.get_rng_state()
    first = [labels(one) for _ in range(3)]
    assert torch.get_rng_state().equal(before)
    torch.manual_seed(2)
    assert first == [labels(other) for _ in range(3)]
    assert first[0] != first[1]
    assert first[0] != labels(Batches(examples(), 4, seed=6))


def many() -> Examples:
    generator = torch.Generator().manual_seed(2)
    return Examples(torch.randint(0, 256, (10, 1, 6, 5), generator=generator).to(torch.uint8), torch.arange(10))


def lazy() -> Examples:
    return Examples(Lazy(many().inputs.__getitem__, many().inputs.shape, torch.uint8), many().labels)


LOADERS: dict[str, Callable[[], Batches]] = {
    "plain": lambda: Batches(many(), 4, seed=1),
    "augmented": lambda: Batches(many(), 4, seed=1, augment=CropFlip(padding=2)),
    "streamed": lambda: Batches(lazy(), 4, seed=1, resident_bytes=1),
    "replay": lambda: training_batches(many(), 4, seed=1, exemplars=many(), replay="balanced", augment=Affine()),
}


@pytest.mark.parametrize("kind", LOADERS)
@pytest.mark.parametrize("taken", range(7))
def test_restored_behind_any_batch_it_gives_the_rest(kind: str, taken: int) -> None:
    """Also where the next batch is gathered ahead: the state is that of the last batch given."""
    make = LOADERS[kind]
    whole = make()
    expected = [(x, y) for _ in range(3) for x, y, *_ in whole]
    interrupted, seen = make(), []
    while len(seen) < taken:
        for x, y, *_ in interrupted:
            seen.append((x, y))
            if len(seen) == taken:
                break
    state = interrupted.state_dict()
    assert state["epoch"] * 3 + state["position"] == taken
    resumed = make()
    resumed.load_state_dict(state)
    while len(seen) < 9:
        seen += [(x, y) for x, y, *_ in resumed]
    assert_close(seen, expected, rtol=0, atol=0)


def test_without_exemplars_training_batches_are_the_task_s_own_and_with_them_theirs_too() -> None:
    own, held = examples(8), Examples(examples(10).inputs[8:], torch.tensor([8, 9]))
    assert labels(training_batches(own, 4, seed=1)) == labels(Batches(own, 4, seed=1))
    joined = labels(training_batches(own, 4, seed=1, exemplars=held))
    assert joined == labels(Batches(Examples.concat([own, held]), 4, seed=1))
    for batch in labels(training_batches(own, 4, seed=1, exemplars=held, replay="balanced")):
        assert sum(y >= 8 for y in batch) == 2


@pytest.mark.parametrize(("num", "times"), [(2, 4), (3, 2), (8, 1), (9, 1)])
def test_repeated_exemplars_are_about_as_many_as_the_task_s_examples(num: int, times: int) -> None:
    """As often as they fit in, once at least; an epoch is that much longer."""
    held = Examples(examples(num).inputs, torch.arange(100, 100 + num))
    seen = labels(training_batches(examples(8), 4, seed=1, exemplars=held, replay="repeated"))
    counts = torch.bincount(torch.tensor([y for batch in seen for y in batch]))
    assert counts[:8].tolist() == [1] * 8
    assert counts[100:].tolist() == [times] * num
    assert len(seen) == -(-(8 + times * num) // 4)


@pytest.mark.parametrize("balanced", [False, True])
def test_the_last_smaller_batch_may_be_left_out(balanced: bool) -> None:
    held = examples(2) if balanced else None
    options: dict[str, Any] = {"seed": 1, "exemplars": held, "replay": "balanced" if balanced else "joined"}
    whole, full = (training_batches(examples(10), 4, **options, drop_last=drop) for drop in (False, True))
    assert [len(y) for y in labels(full)] == [4, 4]
    assert (len(whole), len(full)) == (3, 2)
    with pytest.raises(
        ValueError, match=r"^drop_last must be false where 10 examples do not fill a batch of 11, got true"
    ):
        training_batches(examples(10), 11, **options, drop_last=True)


def test_impossible_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="batch_size must be an integer >= 1, got 0"):
        Batches(examples(), 0, seed=0)
    with pytest.raises(ValueError, match="examples must hold at least one"):
        Batches(examples(0), 4, seed=0)


def test_derived_seeds_do_not_collide_over_neighbouring_numbers() -> None:
    assert len({derive_seed(a, b) for a in range(50) for b in range(50)} | {derive_seed(a) for a in range(50)}) == 2550
    assert derive_seed(1, 23) != derive_seed(12, 3)


def test_an_epoch_left_early_is_not_taken_up_again() -> None:
    left, whole = Batches(examples(), 4, seed=1), Batches(examples(), 4, seed=1)
    expected = [labels(whole) for _ in range(2)]
    assert next(iter(left))[1].tolist() == expected[0][0]
    assert labels(left) == expected[1]
