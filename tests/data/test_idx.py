"""IDX files: what was written is read, packed or not; anything else ends with one line that names the file."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lifelong.data.sources import array_cache
from lifelong.data.sources.idx import idx

SIZES = {"train": 12, "t10k": 6}


def images(num: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (num, 5, 7), dtype=np.uint8)


def labels(num: int) -> np.ndarray:
    return np.arange(num, dtype=np.uint8) % 3


def packed(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, (prefix, num) in enumerate(SIZES.items()):
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(packed(images(num, i)))
        (tmp_path / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(packed(labels(num))))
    return tmp_path


def test_images_and_labels_are_what_was_written(folder: Path) -> None:
    source = idx(str(folder))
    assert (source.name, source.classes) == (folder.name, ("0", "1", "2"))
    assert source.train.images[:, 0].numpy().tolist() == images(12, 0).tolist()
    assert source.test.images[:, 0].numpy().tolist() == images(6, 1).tolist()
    assert source.test.labels.tolist() == labels(6).tolist()


def test_packed_and_plain_files_are_the_same(folder: Path) -> None:
    plain = idx(str(folder))
    for file in folder.glob("*-ubyte"):
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    assert idx(str(folder)).train.images.equal(plain.train.images)


def test_large_files_are_mapped_and_stay_as_they_are_when_written_to(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(array_cache, "MAPPED_FROM", 1)
    before = {file: file.read_bytes() for file in folder.iterdir()}
    source = idx(str(folder))
    assert source.train.images[:, 0].numpy().tolist() == images(12, 0).tolist()
    source.train.images.zero_()
    assert {file: file.read_bytes() for file in folder.iterdir()} == before
    assert idx(str(folder)).train.images.any()


def test_classes_name_the_labels(folder: Path) -> None:
    assert idx(str(folder), classes=["a", "b", "c", "never seen"]).classes == ("a", "b", "c", "never seen")
    with pytest.raises(ValueError, match=r"train labels must be 0\.\.1, got 0\.\.2"):
        idx(str(folder), classes=["a", "b"])


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def beheaded(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:2])


def of_labels(path: Path) -> None:
    path.write_bytes(packed(labels(12)))


def promising(path: Path) -> None:
    path.write_bytes(struct.pack(">4I", 2051, 2**32 - 1, 2**32 - 1, 2**32 - 1) + bytes(9))


def too_many(path: Path) -> None:
    path.write_bytes(packed(images(13, 0)))


def empty(path: Path) -> None:
    path.write_bytes(packed(images(0, 0)))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncated, r"train-images-idx3-ubyte must be of 436 bytes \(unpacked\), got 433$"),
        (beheaded, r"train-images-idx3-ubyte must start with 2051, the mark of IDX images, got \d+$"),
        (of_labels, r"must start with 2051, the mark of IDX images, got 2049$"),
        (promising, r"must be of \d+ bytes \(unpacked\), got 25$"),
        (too_many, r"must hold a label for every train image, got 12 labels of 13 images$"),
        (empty, r"must hold a label for every train image, got 12 labels of 0 images$"),
        (Path.unlink, r"^dataset.source.path must be a folder with train-images-idx3-ubyte or .*\.gz, got '/.*'$"),
    ],
)
def test_a_damaged_image_file_is_refused_by_name(folder: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(folder / "train-images-idx3-ubyte")
    with pytest.raises(ValueError, match=message) as error:
        idx(str(folder))
    assert str(error.value).startswith("dataset.source.path")


def no_gzip(content: bytes) -> bytes:
    return gzip.decompress(content)


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    return content[:-8] + bytes(4) + content[-4:]  # the checksum


@pytest.mark.parametrize("damage", [no_gzip, half, flipped])
def test_a_damaged_gz_file_is_refused_by_name(folder: Path, damage: Callable[[bytes], bytes]) -> None:
    file = folder / "t10k-labels-idx1-ubyte.gz"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(ValueError, match=r"^dataset.source.path: .*t10k-labels-idx1-ubyte.gz cannot be read \(.*\)$"):
        idx(str(folder))


def test_a_test_label_never_seen_in_training_is_refused(folder: Path) -> None:
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(packed(np.full(6, 7, dtype=np.uint8))))
    with pytest.raises(ValueError, match=r"test labels must be 0\.\.2, got 7\.\.7"):
        idx(str(folder))


def test_tensors_can_be_written_to_without_a_warning(folder: Path, recwarn: pytest.WarningsRecorder) -> None:
    source = idx(str(folder))
    source.test.images.fill_(1)
    assert source.test.images.dtype == torch.uint8
    assert not recwarn.list
