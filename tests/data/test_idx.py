"""IDX files: what was written is read, packed or not; anything else ends with one line that names the file."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

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


def test_images_and_labels_are_what_was_written_packed_or_not(folder: Path) -> None:
    source = idx(str(folder))
    assert (source.name, source.classes) == (folder.name, ("0", "1", "2"))
    assert source.train.inputs[:, 0].numpy().tolist() == images(12, 0).tolist()
    for file in folder.glob("*-ubyte"):
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    assert idx(str(folder)).train.inputs.equal(source.train.inputs)
    assert source.test.inputs[:, 0].numpy().tolist() == images(6, 1).tolist()
    assert source.test.labels.tolist() == labels(6).tolist()


def test_classes_name_the_labels(folder: Path) -> None:
    assert idx(str(folder), classes=["a", "b", "c", "never seen"]).classes == ("a", "b", "c", "never seen")
    with pytest.raises(ValueError, match=r"train labels must be 0\.\.1, got 0\.\.2"):
        idx(str(folder), classes=["a", "b"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (packed(images(12, 0))[:-3], r"train-images-idx3-ubyte must be of 436 bytes \(unpacked\), got 433$"),
        (b"\0\0", r"train-images-idx3-ubyte must start with 2051, the mark of such a file, got \d+$"),
        (packed(labels(12)), r"must start with 2051, the mark of such a file, got 2049$"),
        (struct.pack(">4I", 2051, *[2**32 - 1] * 3) + bytes(9), r"must be of \d+ bytes \(unpacked\), got 25$"),
        (packed(images(13, 0)), r"must hold a label for every train image, got 12 labels of 13 images$"),
        (packed(images(0, 0)), r"must hold a label for every train image, got 12 labels of 0 images$"),
        (None, r"^dataset.source.path must be a folder with train-images-idx3-ubyte or .*\.gz, got '/.*'$"),
    ],
)
def test_a_damaged_image_file_is_refused_by_name(folder: Path, content: bytes | None, message: str) -> None:
    file = folder / "train-images-idx3-ubyte"
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        idx(str(folder))
    assert str(error.value).startswith("dataset.source.path")


def test_a_damaged_gz_file_is_refused_by_name(folder: Path) -> None:
    file = folder / "t10k-labels-idx1-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-8] + bytes(8))  # a wrong checksum
    with pytest.raises(ValueError, match=r"^dataset.source.path: .*t10k-labels-idx1-ubyte.gz cannot be read \(.*\)$"):
        idx(str(folder))
