"""Augmentation: pixel for pixel what its formula says, of given numbers; only training batches see it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

import lifelong
from lifelong.data.augment import Affine, CropFlip
from lifelong.data.examples import Examples
from lifelong.data.loader import Augment, Batches
from lifelong.data.replay import BalancedBatches
from lifelong.memory import base
from lifelong.models import evaluation
from lifelong.training import loop

IMAGES = torch.randint(0, 256, (64, 3, 6, 5), generator=torch.Generator().manual_seed(2)).to(torch.uint8)
TINY = ("dataset=split", "dataset/source=digits", "dataset.classes_per_task=5", "backbone.widths=[8]", "trainer=cpu")
TINY += ("trainer.max_epochs=2", "logger=none", "progress=false", "scenario=class", "method=ewc", "memory=entropy")
AUGMENTS = [CropFlip(padding=2), Affine()]
each_augment = pytest.mark.parametrize("view", AUGMENTS, ids=["crop_flip", "affine"])


def draws(view: Augment) -> Tensor:
    return torch.rand(len(IMAGES), view.num_draws, generator=torch.Generator().manual_seed(0))


def crop_by_hand(image: Tensor, top: int, left: int, flipped: bool, padding: int) -> Tensor:
    _, height, width = image.shape
    window = F.pad(image, [padding] * 4)[:, top : top + height, left : left + width]
    return window.flip(2) if flipped else window


@pytest.mark.parametrize(("padding", "flip"), [(2, 0.5), (0, 0.3), (1, 0.0), (3, 1.0)])
def test_crop_flip_is_a_slice_of_each_padded_image_mirrored_or_not(padding: int, flip: float) -> None:
    view = CropFlip(padding, flip)
    numbers = draws(view)
    expected = [
        crop_by_hand(image, int(top * (2 * padding + 1)), int(left * (2 * padding + 1)), bool(coin < flip), padding)
        for image, (top, left, coin) in zip(IMAGES, numbers, strict=True)
    ]
    assert view(IMAGES, numbers).equal(torch.stack(expected))


@pytest.mark.parametrize(
    ("view", "numbers", "expected"),
    [
        (Affine(degrees=0, translate=0.4, scale=0), [1.0, 0.5, 0.5, 0.5], F.pad(IMAGES, [2, 0, 0, 0])[..., :5]),
        (Affine(degrees=90, translate=0, scale=0), [0.5, 0.5, 0.5, 1.0], torch.rot90(IMAGES[..., :5, :], -1, (2, 3))),
    ],
    ids=["two pixels to the right", "a quarter turn"],
)
def test_affine_of_one_kind_moves_whole_pixels(view: Affine, numbers: list[float], expected: Tensor) -> None:
    images = IMAGES[..., : expected.shape[2], :]
    moved = view(images, torch.tensor([numbers]).expand(len(images), -1))
    torch.testing.assert_close(moved, expected, atol=1, rtol=0)  # float32 grid, rounded


@each_augment
def test_views_are_each_image_s_own_and_leave_shape_type_input_and_global_rng_alone(view: Augment) -> None:
    before, state, numbers = IMAGES.clone(), torch.get_rng_state(), draws(view)
    result = view(IMAGES, numbers)
    assert result.equal(torch.cat([view(IMAGES[i : i + 1], numbers[i : i + 1]) for i in range(len(IMAGES))]))
    assert (result.shape, result.dtype) == (IMAGES.shape, torch.uint8)
    assert IMAGES.equal(before)
    assert not result.equal(before)
    assert torch.get_rng_state().equal(state)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CropFlip(padding=-1), r"augment.padding must be an integer >= 0, got -1"),
        (lambda: CropFlip(padding=1.5), r"augment.padding must be an integer >= 0, got 1.5"),
        (lambda: CropFlip(flip=1.5), r"augment.flip must be a number in \[0, 1\], got 1.5"),
        (lambda: CropFlip(flip=True), r"augment.flip must be a number in \[0, 1\], got True"),
        (lambda: Affine(degrees=float("nan")), r"augment.degrees must be a number in \[0, 180\], got nan"),
        (lambda: Affine(scale=1), r"augment.scale must be a number in \[0, 0.9\], got 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def loader(seed: int = 1, view: Augment | None = AUGMENTS[0]) -> Batches:
    return Batches(Examples(IMAGES[:10], torch.arange(10)), 4, seed=seed, augment=view)


def pairs(batches: Batches, epochs: int = 2) -> list[tuple[Tensor, Tensor]]:
    return [(x, y) for _ in range(epochs) for x, y, *_ in batches]


def test_augmentation_is_a_function_of_seed_epoch_and_position_and_changes_no_order() -> None:
    first = pairs(loader())
    torch.manual_seed(5)
    assert_close(pairs(loader()), first, rtol=0, atol=0)
    assert_close([y for _, y in pairs(loader(view=None))], [y for _, y in first])


def test_replayed_exemplars_are_augmented_too() -> None:
    own, held = Examples(IMAGES[:6], torch.arange(6)), Examples(IMAGES[6:9], torch.arange(6, 9))
    plain, augmented = (pairs(BalancedBatches(own, held, 4, seed=1, augment=view)) for view in (None, AUGMENTS[0]))
    for (x, y), (z, w) in zip(plain, augmented, strict=True):
        assert y.equal(w)
        assert not x[2:].equal(z[2:])


def test_only_training_batches_are_augmented(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many views as training batches, none of them while importance, accuracies or exemplars are worked out."""
    calls: list[str] = []
    phase = ["train"]
    original = CropFlip.__call__

    def seen(self: CropFlip, images: Tensor, numbers: Tensor) -> Tensor:
        calls.append(phase[-1])
        return original(self, images, numbers)

    def marked(name: str, function: Any) -> Any:
        def call(*args: Any, **options: Any) -> Any:
            phase.append(name)
            try:
                return function(*args, **options)
            finally:
                phase.pop()

        return call

    monkeypatch.setattr(CropFlip, "__call__", seen)
    monkeypatch.setattr(evaluation, "accuracy", marked("evaluation", evaluation.accuracy))
    monkeypatch.setattr(loop, "importance_batches", marked("importance", loop.importance_batches))
    monkeypatch.setattr(base.ExemplarMemory, "after_task", marked("memory", base.ExemplarMemory.after_task))
    settings = (*TINY, "augment=crop_flip", "augment.padding=1", "augment.flip=0", f"root={tmp_path}")
    lifelong.run(*settings)
    assert calls == ["train"] * 2 * 2 * 6  # tasks, epochs, batches
    calls.clear()
    lifelong.run(*settings, "method=er")
    assert calls == ["train"] * (2 * 2 * 6 + 2 * 6)  # and a draw at each step of the second task
    examples = Examples(IMAGES, torch.arange(64))
    batches = list(loop.importance_batches(examples, None, torch.Generator()))
    assert batches[0][0].equal(IMAGES / 255)
