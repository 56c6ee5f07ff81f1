"""Sets too large for memory: made batch by batch, bit for bit what they would be in memory, and never all at once."""

import gc
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from lifelong.data.domains import Domains
from lifelong.data.examples import Examples, Lazy
from lifelong.data.loader import Batches
from lifelong.data.permuted import Permuted
from lifelong.data.replay import training_batches
from lifelong.data.rotated import Rotated
from lifelong.data.source import Source
from lifelong.data.split import Split
from lifelong.data.stream import TaskStream
from runs import assert_same_run, run

LABELS = torch.arange(60) % 6
IMAGES = torch.randint(0, 256, (60, 1, 5, 5), generator=torch.Generator().manual_seed(4)).to(torch.uint8)
INDEX = torch.tensor([59, 0, 3, 3, 41, 20])


def source() -> Source:
    return Source("noise", Examples(IMAGES, LABELS), Examples(IMAGES[:24], LABELS[:24]), tuple("abcdef"))


STREAMS: dict[str, Any] = {
    "rotated": lambda **o: Rotated(source(), [0, 30], **o),
    "permuted": lambda **o: Permuted(source(), 2, **o),
    "split": lambda **o: Split(source(), 3, **o),
    "domains": lambda **o: Domains({"a": source(), "b": source()}, size=7, **o),
}
kinds = pytest.mark.parametrize("kind", STREAMS)


def lazy(make: Callable[[Tensor], Tensor]) -> Examples:
    return Examples(Lazy(make, IMAGES.shape, IMAGES.dtype), LABELS)


def backwards(seen: list[int] | None = None) -> Examples:
    """The 60 images upside down, backwards; `seen` gets the size of every gather."""

    def make(index: Tensor) -> Tensor:
        if seen is not None:
            seen.append(len(index))
        return IMAGES[59 - index].flip(2)

    return Examples(lazy(make).stored, LABELS.flip(0))


def in_memory() -> Examples:
    return Examples(IMAGES.flip(0, 2), LABELS.flip(0))


def assert_same(ours: Examples, theirs: Examples) -> None:
    assert ours.labels.equal(theirs.labels)
    assert ours.inputs.equal(theirs.inputs)
    assert (len(ours), ours.shape, ours.nbytes) == (len(theirs), theirs.shape, theirs.nbytes)


def test_lazy_examples_are_what_they_would_be_in_memory() -> None:
    assert_same(backwards(), in_memory())
    assert_same(backwards().subset(INDEX), in_memory().subset(INDEX))
    for ours, theirs in zip(
        backwards().chunks(7, slice(1, 50, 3)), in_memory().chunks(7, slice(1, 50, 3)), strict=True
    ):
        assert_same(ours, theirs)


def test_lazy_parts_are_joined_without_making_them() -> None:
    seen: list[int] = []
    parts = [backwards(seen), in_memory(), backwards(seen)]
    joined = Examples.concat(parts)
    assert joined.lazy
    assert not seen
    whole = Examples.concat([in_memory()] * 3)
    assert_same(joined, whole)
    index = torch.randperm(180, generator=torch.Generator().manual_seed(0))[:50]
    assert_same(joined.subset(index), whole.subset(index))


@kinds
def test_large_parts_of_a_task_are_lazy_and_the_same(kind: str) -> None:
    resident, streamed = STREAMS[kind](seed=2), STREAMS[kind](seed=2, resident_bytes=200)
    for i in range(resident.num_tasks):
        ours, theirs = streamed.task(i), resident.task(i)
        for part in ("train", "val", "test"):
            assert getattr(ours, part).lazy == (getattr(theirs, part).nbytes > 200)
            assert not getattr(theirs, part).lazy
            assert_same(getattr(ours, part), getattr(theirs, part))
        assert ours.train.lazy


class FromHost(Batches):
    """Streams although the examples are in memory, as it would to another device."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.resident = False


def epochs(batches: Batches, num: int = 2) -> list[tuple[Tensor, Tensor]]:
    return [(x, y) for _ in range(num) for x, y, *_ in batches]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("batch_size", [7, 20, 100])
def test_streamed_batches_equal_resident_ones(batch_size: int, shuffle: bool) -> None:
    options: dict[str, Any] = {"batch_size": batch_size, "seed": 1, "shuffle": shuffle}
    held = in_memory().subset(INDEX)
    theirs = (
        Batches(in_memory(), **options),
        training_batches(in_memory(), **options, exemplars=held, replay="balanced"),
    )
    ours = FromHost(in_memory(), **options), Batches(backwards(), **options, resident_bytes=100)
    mixed = training_batches(backwards(), **options, exemplars=held, replay="balanced", resident_bytes=100)
    for streamed, resident in ((ours[0], theirs[0]), (ours[1], theirs[0]), (mixed, theirs[1])):
        assert (streamed.resident, resident.resident) == (False, True)
        resident.load_state_dict({"epoch": 0, "position": 0})
        assert_close(epochs(streamed), epochs(resident), rtol=0, atol=0)


@pytest.mark.parametrize(("bound", "place"), [(100, "cpu"), (1e9, "meta")])
def test_batches_on_another_device_are_gathered_on_the_host_if_large(bound: float, place: str) -> None:
    """The meta device holds no data, so a gather there would give nothing to look at: shapes and places alone."""
    batches = Batches(in_memory(), 16, seed=1, device="meta", resident_bytes=bound)
    assert batches.examples.inputs.device.type == place
    assert [(x.device.type, tuple(x.shape)) for x, *_ in batches] == [("meta", (n, 1, 5, 5)) for n in (16, 16, 16, 12)]


def test_next_batch_is_gathered_while_the_present_one_is_in_use() -> None:
    """Nothing is asked of the loader between the two looks: a thread does it."""
    gathered = threading.Semaphore(0)

    def noted(index: Tensor) -> Tensor:
        gathered.release()
        return IMAGES[index]

    batches = iter(Batches(lazy(noted), 20, seed=1, resident_bytes=100))
    next(batches)
    assert gathered.acquire(timeout=60)
    assert gathered.acquire(timeout=60)
    assert not gathered.acquire(timeout=0.1)  # one ahead, not more


def test_epoch_left_early_leaves_no_thread_behind() -> None:
    before = threading.active_count()
    iterator = iter(Batches(backwards(), 20, seed=1, resident_bytes=100))
    next(iterator)
    del iterator
    gc.collect()
    assert threading.active_count() == before


def test_failure_to_gather_is_told_by_the_batch_it_belongs_to() -> None:
    def broken(index: Tensor) -> Tensor:
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        next(iter(Batches(lazy(broken), 20, seed=1, resident_bytes=100)))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_map_is_read_batch_by_batch(tmp_path: Path) -> None:
    """60 MiB of images on disk: what is read of them stays the page cache's, which can drop it again. Of the process's
    own memory there is room for order and labels (1 MiB), not for a copy of the images."""
    shape, num = (1, 32, 32), 60 * 1024
    path = tmp_path / "images.npy"
    np.lib.format.open_memmap(path, "w+", np.uint8, (num, *shape)).flush()  # sparse: nothing is written
    images = torch.from_numpy(np.lib.format.open_memmap(path, "r+"))
    examples = Examples(images, torch.arange(num) % 2)
    source = Source("large", examples, examples.subset(torch.arange(10)), ("a", "b"))
    streams: list[TaskStream] = [Split(source, 2, resident_bytes=1e6), Domains({"a": source}, resident_bytes=1e6)]
    for stream in streams:
        before = own_mebibytes()
        batches = iter(Batches(stream.task(0).train, 64, seed=0, resident_bytes=1e6))
        for _ in range(100):
            next(batches)
        assert own_mebibytes() - before < 20


def own_mebibytes() -> float:
    """Memory of this process that no file stands behind (Linux)."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1]) / 1024


@pytest.mark.parametrize(
    "settings",
    ["method=ewc memory=entropy memory.replay=balanced", "method=joint augment=crop_flip normalise=first_task"],
)
def test_streamed_run_equals_a_resident_one_bit_for_bit(settings: str, tmp_path: Path) -> None:
    overrides = settings.split()
    assert_same_run(run(tmp_path / "a", *overrides), run(tmp_path / "b", *overrides, "resident_bytes=1000"))
