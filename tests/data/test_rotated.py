"""Rotated: batches do not show in the pixels, tasks are told apart by name, angles are numbers."""

from typing import Any

import pytest
import torch

from lifelong.data import rotated
from lifelong.data.examples import Examples
from lifelong.data.rotated import Rotated, rotate
from lifelong.data.source import Source

IMAGES = torch.randint(0, 256, (7, 3, 9, 12), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


def source() -> Source:
    examples = Examples(IMAGES, torch.arange(7) % 2)
    return Source("noise", examples, examples, ("a", "b"))


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_rotation_of_many_is_the_rotation_of_each_whatever_the_batch(chunk: int, monkeypatch: Any) -> None:
    """Bit-identical: a pixel is the same four products and their sum, wherever its image stands in a batch."""
    each = torch.cat([rotate(image[None], 33.0) for image in IMAGES])
    monkeypatch.setattr(rotated, "CHUNK", chunk)
    assert rotate(IMAGES, 33.0).equal(each)


def test_rotation_keeps_shape_and_leaves_its_input_alone() -> None:
    before = IMAGES.clone()
    turned = rotate(IMAGES, 50.0)
    assert (turned.shape, turned.dtype) == (IMAGES.shape, torch.uint8)
    assert IMAGES.equal(before)
    assert rotate(IMAGES[:0], 50.0).shape == (0, 3, 9, 12)


def test_positive_angles_move_the_right_edge_up() -> None:
    image = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    image[..., 4, 8] = 255  # the middle of the right edge
    assert rotate(image, 90.0).nonzero().tolist() == [[0, 0, 0, 4]]  # row 0 is on top


def test_angles_that_round_to_one_name_get_names_of_their_own() -> None:
    assert Rotated(source(), [20, 20.0000001, 20]).names == ["rot20", "rot20_1", "rot20_2"]


@pytest.mark.parametrize("angles", [20, "20", [True], [None], [float("inf")], {}])
def test_angles_other_than_a_list_of_numbers_are_refused(angles: Any) -> None:
    with pytest.raises(
        ValueError, match=r"^dataset.angles must be a non-empty list of finite numbers \(degrees\), got"
    ):
        Rotated(source(), angles)
