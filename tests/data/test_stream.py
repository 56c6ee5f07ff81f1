"""Streams: tasks are pure functions of (seed, index); scenarios differ in labels and visible columns alone."""

import hashlib
import subprocess
import sys
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lifelong.data import examples as examples_module
from lifelong.data.examples import Examples
from lifelong.data.permuted import Permuted
from lifelong.data.rotated import Rotated, rotate
from lifelong.data.source import Source, with_test_part
from lifelong.data.sources.digits import digits
from lifelong.data.split import Split
from lifelong.data.stream import TaskStream


def source(num: int = 200, size: int = 6, classes: int = 10) -> Source:
    g = torch.Generator().manual_seed(7)
    images = torch.randint(0, 256, (num, 1, size, size), generator=g).to(torch.uint8)
    labels = torch.arange(num) % classes
    return with_test_part("noise", Examples(images, labels), [str(c) for c in range(classes)], 0.2)


STREAMS: dict[str, Callable[..., TaskStream]] = {
    "rotated": lambda **o: Rotated(source(), [0, 30, 90], **o),
    "permuted": lambda **o: Permuted(source(), 3, **o),
    "split": lambda **o: Split(source(), 2, **o),
}
kinds = pytest.mark.parametrize("kind", STREAMS)
PARTS = ("train", "val", "test")


def fingerprint(stream: TaskStream, i: int) -> list[Any]:
    task = stream.task(i)
    return [getattr(task, p).inputs.tolist() for p in PARTS] + [getattr(task, p).labels.tolist() for p in PARTS]


@kinds
def test_task_is_the_same_in_any_order_and_any_stream_object_and_draws_nothing_global(kind: str) -> None:
    before = torch.get_rng_state()
    forward, backward = STREAMS[kind](seed=3), STREAMS[kind](seed=3)
    first = [fingerprint(forward, i) for i in range(forward.num_tasks)]
    last = [fingerprint(backward, i) for i in reversed(range(backward.num_tasks))]
    assert first == last[::-1]
    assert torch.get_rng_state().equal(before)


@pytest.mark.system
def test_task_is_the_same_in_another_process() -> None:
    code = (
        "from lifelong.data.permuted import Permuted; from lifelong.data.sources.digits import digits; import hashlib;"
        "t = Permuted(digits(), 3, seed=5).task(2).train;"
        "print(hashlib.sha256(t.inputs.numpy().tobytes() + t.labels.numpy().tobytes()).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    here = Permuted(digits(), 3, seed=5).task(2).train
    assert hashlib.sha256(here.inputs.numpy().tobytes() + here.labels.numpy().tobytes()).hexdigest() == there


@kinds
def test_parts_are_disjoint_and_validation_is_stratified(kind: str) -> None:
    stream = STREAMS[kind](val_fraction=0.25)
    for i in range(stream.num_tasks):
        task = stream.task(i)
        images = [{x.numpy().tobytes() for x in getattr(task, part).inputs} for part in PARTS]
        assert not any(one & other for one, other in combinations(images, 2))
        counts = task.val.labels.bincount(minlength=stream.num_classes)[list(task.classes)]
        assert counts.tolist() == [4] * len(task.classes)  # a quarter of 16


@kinds
def test_order_permutes_the_given_tasks_and_leaves_columns_as_they_are(kind: str) -> None:
    for scenario in ("domain", "task", "class"):
        given_order = STREAMS[kind](scenario=scenario)
        order = list(reversed(range(given_order.num_tasks)))
        turned = STREAMS[kind](scenario=scenario, order=order)
        for i, j in enumerate(order):
            assert fingerprint(turned, i) == fingerprint(given_order, j)
            assert turned.task(i).classes == given_order.task(j).classes
            assert turned.names[i] == given_order.names[j]


@pytest.mark.parametrize(("kind", "sizes"), [("rotated", [10] * 3), ("permuted", [10] * 3), ("split", [2] * 5)])
def test_columns_by_scenario(kind: str, sizes: list[int]) -> None:
    T = len(sizes)
    domain, task, cls = (STREAMS[kind](scenario=s) for s in ("domain", "task", "class"))
    assert (domain.num_classes, task.num_classes, cls.num_classes) == (sizes[0], sum(sizes), sum(sizes))
    for i in range(T):
        own = tuple(range(sum(sizes[:i]), sum(sizes[: i + 1])))
        assert domain.task(i).classes == tuple(range(sizes[i]))
        assert task.task(i).classes == cls.task(i).classes == own
        assert set(task.task(i).train.labels.tolist()) == set(own)
        assert domain.visible(T - 1, i) == tuple(range(sizes[0]))
        assert task.visible(0, i) == own
        assert cls.visible(i, 0) == tuple(range(sum(sizes[: i + 1])))
    assert cls.visible(-1, 0) == tuple(range(sum(sizes)))
    assert domain.groups() is None
    assert cls.groups() is None
    owners = task.groups()
    assert owners is not None
    assert owners.tolist() == [i for i in range(T) for _ in range(sizes[i])]


BAD_ORDERS = ["shuffle:", "shuffle:-1", "random", True, 3, "0123", [0.0, 1.0], [False, True], ["a", 1], [1, 2], [0, 0]]
ALLOWED = r"must be given, .* a permutation of 0\.\.\d or null, got"
BAD_SIZES = [True, 2.0, "2", 0, -1, 3, [], [4, 3], [4, 6, 0], [4, 3, 3.0], [11, -1]]
BAD_ANGLES = [[], 20, "20", [True], [None], ["x"], [float("nan")], {}]
IMPOSSIBLE: list[tuple[Callable[..., TaskStream], str, list[Any], str]] = [
    (Rotated, "angles", BAD_ANGLES, "dataset.angles must be a non-empty"),
    (Permuted, "num_tasks", [True, 2.0, "2", 0, 10_001], "dataset.num_tasks must be an integer in 1..10000,"),
    (Permuted, "first_identity", ["no", 0, None], "dataset.first_identity must be true or false, got"),
    (Split, "classes_per_task", BAD_SIZES, "dataset.classes_per_task must be a divisor of 10 classes or a list of"),
    (Split, "class_order", BAD_ORDERS, f"dataset.class_order {ALLOWED}"),
    (Split, "order", BAD_ORDERS, f"dataset.order {ALLOWED}"),
    (Split, "cycles", [0, -1, 1.0, True, "2", None], "dataset.cycles must be an integer >= 1, got"),
    (Split, "cycles", [2001], "dataset.cycles must make at most 10000 tasks, got 2001 times 5 tasks$"),
    (Split, "scenario", ["both", None], "scenario must be one of domain, task, class, got"),
    (Split, "val_fraction", ["0.1", None, float("nan"), -0.1, 1.0], r"val_fraction must be a number in \[0, 1\), got"),
    (Split, "val_fraction", [0.99], "val_fraction must leave every class a training example, got 0.99"),
]


@pytest.mark.parametrize(
    ("make", "key", "value", "message"),
    [(make, key, value, message) for make, key, values, message in IMPOSSIBLE for value in values],
)
def test_impossible_streams_are_refused(make: Callable[..., TaskStream], key: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}"):
        make(source(), **{key: value})


def features(dtype: torch.dtype = torch.float32) -> Source:
    inputs = torch.randint(0, 900, (40, 7), generator=torch.Generator().manual_seed(1)).to(dtype)
    examples = Examples(inputs, torch.arange(40) % 4)
    return Source("mine", examples, examples, tuple("abcd"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.int64])
def test_splits_hold_inputs_of_any_type_as_they_are(dtype: torch.dtype) -> None:
    stream = Split(features(dtype), 2, val_fraction=0.0)
    assert stream.input_shape == (7,)
    own = features(dtype).train
    assert stream.task(1).train.inputs.equal(own.inputs[own.labels >= 2])


def test_permuted_features_are_permuted_whole() -> None:
    stream = Permuted(features(), 2, val_fraction=0.0)
    assert stream.task(1).train.inputs.equal(features().train.inputs[:, stream.permutation(1)])


def test_what_is_no_image_is_not_rotated() -> None:
    with pytest.raises(ValueError, match=r"^dataset.angles takes images alone, .* got float32 \(7,\) of source mine$"):
        Rotated(features(), [0, 10])
    with pytest.raises(ValueError, match=r"^augment takes images alone"):
        Split(features()).check_images("augment")


def smooth_image(size: int = 28) -> torch.Tensor:
    """An asymmetrical blob, smooth at the scale of a pixel, so that bilinear interpolations can be compared."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    blob = torch.exp(-((x - 9) ** 2 + (y - 12) ** 2) / 18) + 0.6 * torch.exp(-((x - 18) ** 2 + (y - 17) ** 2) / 30)
    return (255 * blob / blob.max()).round().to(torch.uint8)


@pytest.mark.parametrize("angle", [20, 45, 80, -30, 200])
def test_rotation_agrees_with_scipy(angle: float) -> None:
    """Within 1 of 255 grey levels where no pixel comes from outside: both are bilinear about the same centre, ours is
    rounded. (At the border scipy drops a pixel that is partly outside; ours blends it with zero.)"""
    image = smooth_image()
    ours = rotate(image[None, None], angle)[0, 0].numpy().astype(float)
    theirs = scipy.ndimage.rotate(image.numpy().astype(float), angle, order=1, reshape=False)
    y, x = np.mgrid[:28, :28] - 13.5
    inside = np.hypot(x, y) < 13
    assert np.abs(ours - theirs)[inside].max() <= 1


def test_quarter_turns_are_exact_and_full_turns_change_nothing() -> None:
    image = smooth_image()
    torch.testing.assert_close(rotate(image[None, None], 90)[0, 0], torch.rot90(image))
    for angle in (0, 360, -720):
        assert rotate(image[None, None], angle)[0, 0].equal(image)


NOISE = torch.randint(0, 256, (7, 3, 9, 12), generator=torch.Generator().manual_seed(1)).to(torch.uint8)


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_rotation_of_many_is_the_rotation_of_each_whatever_the_batch(chunk: int, monkeypatch: Any) -> None:
    """Bit-identical: a pixel is the same four products and their sum, wherever its image stands in a batch."""
    each, before = torch.cat([rotate(image[None], 33.0) for image in NOISE]), NOISE.clone()
    monkeypatch.setattr(examples_module, "CHUNK", chunk)
    turned = rotate(NOISE, 33.0)
    assert turned.equal(each)
    assert turned.dtype == torch.uint8
    assert NOISE.equal(before)
    assert rotate(NOISE[:0], 50.0).shape == (0, 3, 9, 12)


@given(seed=st.integers(0, 2**40), given_task=st.integers(0, 9))
@settings(max_examples=25, deadline=None)
def test_permutation_is_a_bijection_of_its_own_seed(seed: int, given_task: int) -> None:
    permutation = Permuted(source(50), 10, seed=seed).permutation(given_task)
    assert sorted(permutation.tolist()) == list(range(36))
    assert permutation.equal(Permuted(source(50), 11, seed=seed, first_identity=True).permutation(given_task))
    other = Permuted(source(50), 10, seed=seed + 1).permutation(9)
    assert not other.equal(Permuted(source(50), 10, seed=seed).permutation(9))
    assert not other.equal(Permuted(source(50), 10, seed=seed + 1).permutation(8))


def test_permuted_images_hold_the_permuted_pixels_of_every_channel() -> None:
    rgb = Examples(source(50).train.inputs.repeat(1, 3, 1, 1), source(50).train.labels)
    stream = Permuted(Source("rgb", rgb, rgb, tuple("0123456789")), 2, val_fraction=0.0)
    got, permutation = stream.task(1).train.inputs, stream.permutation(1)
    assert stream.task(0).train.inputs.equal(rgb.inputs)
    for n in range(3):
        for c in range(3):
            pixels = rgb.inputs[n, c].flatten().tolist()
            assert got[n, c].flatten().tolist() == [pixels[p] for p in permutation.tolist()]


@given(order=st.permutations(range(10)), size=st.sampled_from([1, 2, 5, 10]))
@settings(max_examples=25, deadline=None)
def test_split_holds_every_class_once_in_class_order(order: list[int], size: int) -> None:
    stream = Split(source(100), size, class_order=order, scenario="class", val_fraction=0.0)
    for j in range(stream.num_tasks):
        task = stream.task(j)
        for local, cls in enumerate(order[j * size : (j + 1) * size]):
            got = task.test.inputs[task.test.labels == j * size + local]
            assert got.equal(source(100).test.inputs[source(100).test.labels == cls])


def test_uneven_splits_hold_as_many_classes_as_they_say() -> None:
    stream = Split(source(), [4, 3, 3], class_order="reversed", scenario="class")
    assert stream.names == ["9-8-7-6", "5-4-3", "2-1-0"]
    assert [task.classes for task in map(stream.task, range(3))] == [(0, 1, 2, 3), (4, 5, 6), (7, 8, 9)]
    assert stream.task(2).train.labels.unique().tolist() == [7, 8, 9]
    assert stream.visible(1, 0) == tuple(range(7))
    assert Split(source(), [4, 3, 3], scenario="domain").num_classes == 4


def test_classes_are_shuffled_by_the_seed() -> None:
    def drawn(order: str, seed: int) -> list[int]:
        return [c for group in Split(source(), 2, class_order=order, seed=seed).class_groups for c in group]

    orders = [drawn("shuffle", seed) for seed in range(5)]
    assert all(sorted(order) == list(range(10)) for order in orders)
    assert len(set(map(tuple, orders))) == 5
    assert drawn("shuffle:3", 9) == orders[3]
