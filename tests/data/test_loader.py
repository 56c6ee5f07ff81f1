"""Batches: every example once an epoch, in an order that (seed, epoch) decide, resumable behind any batch."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from lifelong.data.augment import Affine, CropFlip
from lifelong.data.examples import Examples, Lazy
from lifelong.data.loader import Batches
from lifelong.data.replay import training_batches
from lifelong.data.seeds import derive_seed


def examples(num: int = 10) -> Examples:
    return Examples(torch.arange(num, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(num, 1, 2, 2), torch.arange(num))


def labels(batches: Batches) -> list[list[int]]:
    return [y.tolist() for _, y, *_ in batches]


def test_an_epoch_holds_every_example_once_and_its_own_label() -> None:
    batches = Batches(examples(), 4, seed=0)
    pairs: list[tuple[Tensor, Tensor]] = [(x, y) for x, y, *_ in batches]
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


def many() -> Examples:
    generator = torch.Generator().manual_seed(2)
    return Examples(torch.randint(0, 256, (10, 1, 6, 5), generator=generator).to(torch.uint8), torch.arange(10))


def lazy() -> Examples:
    return Examples(Lazy(many().inputs.__getitem__, many().inputs.shape, torch.uint8), many().labels)


LOADERS: dict[str, Callable[[], Batches]] = {
    "plain": lambda: Batches(many(), 4, seed=1),
    "augmented": lambda: Batches(many(), 4, seed=1, augment=CropFlip(padding=2)),
    "streamed": lambda: Batches(lazy(), 4, seed=1, resident_bytes=1),
    "replay": lambda: training_batches(many(), 4, seed=1, exemplars=many(), balanced=True, augment=Affine()),
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
    for (x, y), (z, w) in zip(seen, expected, strict=True):
        assert x.equal(z)
        assert y.equal(w)


def test_without_exemplars_training_batches_are_the_task_s_own_and_with_them_theirs_too() -> None:
    own, held = examples(8), Examples(examples(10).inputs[8:], torch.tensor([8, 9]))
    assert labels(training_batches(own, 4, seed=1)) == labels(Batches(own, 4, seed=1))
    joined = labels(training_batches(own, 4, seed=1, exemplars=held))
    assert joined == labels(Batches(Examples.concat([own, held]), 4, seed=1))
    for batch in labels(training_batches(own, 4, seed=1, exemplars=held, balanced=True)):
        assert sum(y >= 8 for y in batch) == 2


@pytest.mark.parametrize("balanced", [False, True])
def test_the_last_smaller_batch_may_be_left_out(balanced: bool) -> None:
    held = examples(2) if balanced else None
    options: dict[str, Any] = {"seed": 1, "exemplars": held, "balanced": balanced}
    whole, full = (training_batches(examples(10), 4, **options, drop_last=drop) for drop in (False, True))
    assert [len(y) for y in labels(full)] == [4, 4]
    assert (len(whole), len(full)) == (3, 2)
    with pytest.raises(
        ValueError, match=r"^drop_last must be false where 10 examples do not fill a batch of 11, got true"
    ):
        training_batches(examples(10), 11, **options, drop_last=True)


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


def test_an_epoch_left_early_is_not_taken_up_again() -> None:
    left, whole = Batches(examples(), 4, seed=1), Batches(examples(), 4, seed=1)
    expected = [labels(whole) for _ in range(2)]
    assert next(iter(left))[1].tolist() == expected[0][0]
    assert labels(left) == expected[1]


def test_lightning_resumed_behind_any_batch_gives_the_rest(tmp_path: Path) -> None:
    full = fit(Batches(examples(), 4, seed=1))
    assert len(full) == 9
    for taken in range(1, 9):
        path = tmp_path / f"{taken}.ckpt"
        seen = fit(Batches(examples(), 4, seed=1), StopAfter(taken, path))
        assert seen + fit(Batches(examples(), 4, seed=1), ckpt_path=path) == full


def test_lightning_with_few_batches_an_epoch_starts_each_epoch_anew() -> None:
    whole = Batches(examples(), 4, seed=1)
    expected = [batch for _ in range(3) for batch in labels(whole)[:2]]
    assert fit(Batches(examples(), 4, seed=1), limit_train_batches=2) == expected


class Stopped(Exception):
    pass


class StopAfter(Callback):
    def __init__(self, taken: int, path: Path) -> None:
        self.taken, self.path = taken, path

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.taken:
            trainer.save_checkpoint(self.path)
            raise Stopped


class Witness(LightningModule):
    """Notes which labels it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(4, 1)
        self.seen: list[list[int]] = []

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        self.seen.append(batch[1].tolist())
        return self.linear(batch[0].flatten(1)).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(batches: Batches, *callbacks: Callback, ckpt_path: Path | None = None, **options: Any) -> list[list[int]]:
    """The labels of three epochs' batches, in the order Lightning asks for them."""
    witness = Witness()
    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False
    )
    trainer = Trainer(max_epochs=3, accelerator="cpu", devices=1, callbacks=list(callbacks), **quiet, **options)
    with suppress(Stopped):
        trainer.fit(witness, batches, ckpt_path=ckpt_path, weights_only=True)
    return witness.seen
