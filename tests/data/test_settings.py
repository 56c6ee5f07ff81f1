"""Settings that would be taken for something else, or leave nothing to learn from, are refused by their key."""

from typing import Any

import pytest
import torch

from lifelong.data.examples import Examples
from lifelong.data.order import as_permutation
from lifelong.data.permuted import Permuted
from lifelong.data.source import Source, with_test_part
from lifelong.data.split import Split


def source(per_class: int = 4) -> Source:
    labels = torch.arange(4).repeat(per_class)
    examples = Examples(torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8), labels)
    return Source("blank", examples, examples, tuple("abcd"))


@pytest.mark.parametrize("value", ["no", 0, None])
def test_first_identity_other_than_a_truth_value_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"dataset.first_identity must be true or false, got"):
        Permuted(source(), 2, first_identity=value)


@pytest.mark.parametrize("value", [True, 2.0, "2", 0, -1])
def test_counts_other_than_positive_integers_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"dataset.num_tasks must be an integer >= 1, got"):
        Permuted(source(), value)
    with pytest.raises(ValueError, match=r"dataset.classes_per_task must be a divisor of 4 classes, got"):
        Split(source(), value)


@pytest.mark.parametrize("value", [3, "0123", [0.0, 1.0, 2.0, 3.0], [False, True, 2, 3], ["a", 1, 2, 3], [1, 2, 3, 4]])
def test_orders_other_than_permutations_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"dataset.class_order must be a permutation of 0\.\.3 or null, got"):
        Split(source(), 2, class_order=value)
    with pytest.raises(ValueError, match=r"dataset.order must be given, .* a permutation of 0\.\.3 or null, got"):
        Permuted(source(), 4, order=value)


def test_no_order_is_the_natural_one() -> None:
    assert as_permutation(None, 3, "dataset.order") == [0, 1, 2]
    assert as_permutation((2, 0, 1), 3, "dataset.order") == [2, 0, 1]


@pytest.mark.parametrize("fraction", [0.9, 0.999])
def test_val_fraction_that_leaves_a_class_nothing_to_learn_from_is_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match=f"val_fraction must leave every class a training example, got {fraction}"):
        Split(source(), val_fraction=fraction)


def test_largest_val_fraction_leaves_one_example_of_each_class() -> None:
    task = Permuted(source(), 1, val_fraction=0.75).task(0)
    assert task.train.labels.bincount().tolist() == [1] * 4
    assert task.val.labels.bincount().tolist() == [3] * 4


@pytest.mark.parametrize("value", ["0.1", None, float("nan"), -0.1, 1.0])
def test_fractions_other_than_numbers_in_range_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^val_fraction must be a number in \[0, 1\), got"):
        Split(source(), val_fraction=value)
    with pytest.raises(ValueError, match=r"^dataset.source.test_fraction must be a number in \(0, 1\), got"):
        with_test_part("blank", source().train, "abcd", value)
