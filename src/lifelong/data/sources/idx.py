"""A folder of IDX files, the format of MNIST and its likes (http://yann.lecun.com/exdb/mnist): .gz or not.

Debian's package dataset-fashion-mnist has such a folder: dataset.source.path=/usr/share/datasets/fashion-mnist.
"""

import gzip
import math
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from lifelong.data.examples import Examples
from lifelong.data.source import Source

PREFIXES = {"train": "train", "test": "t10k"}
MAGIC = {"images-idx3": 2051, "labels-idx1": 2049}
"""0, 0, 8 = uint8, number of dimensions."""


def idx(path: str, classes: Sequence[str] | None = None) -> Source:
    """{train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz] in the folder `path`; its name is the source's.

    Args:
        classes: names of the labels 0, 1, …; None: the numbers up to the largest training label.

    Raises:
        ValueError: a file that is missing, cut short, of another kind, or labels without a name.
    """
    folder = Path(path).expanduser()
    parts = {part: _examples(folder, prefix) for part, prefix in PREFIXES.items()}
    if classes is None:
        classes = [str(label) for label in range(int(parts["train"].labels.max()) + 1)]
    return Source(folder.name, parts["train"], parts["test"], tuple(classes))


def _examples(folder: Path, prefix: str) -> Examples:
    images, labels = (_array(_found(folder, f"{prefix}-{kind}-ubyte"), magic) for kind, magic in MAGIC.items())
    if len(images) != len(labels) or len(images) == 0:
        raise ValueError(
            f"dataset.source.path: {folder} must hold a label for every {prefix} image, "
            f"got {len(labels)} labels of {len(images)} images"
        )
    return Examples(torch.from_numpy(images[:, None]), torch.from_numpy(labels.astype(np.int64)))


def _found(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise ValueError(f"dataset.source.path must be a folder with {name} or {name}.gz, got {str(folder)!r}")


def _array(path: Path, magic: int) -> np.ndarray:
    """uint8, (N, H, W) or (N,): a header of big-endian 32-bit integers (magic, sizes), then the bytes. What is not
    packed is memory-mapped; writing to it leaves the file alone."""
    start = 4 * (magic % 256 + 1)
    content: np.ndarray
    try:
        if path.suffix == ".gz":
            content = np.frombuffer(bytearray(gzip.decompress(path.read_bytes())), np.uint8)
        else:
            content = np.memmap(path, mode="c")
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ValueError(f"dataset.source.path: {path} cannot be read ({error})") from error
    header = np.frombuffer(bytes(content[:start]).ljust(start, b"\xff"), ">u4").astype(np.int64).tolist()
    if header[0] != magic:
        raise ValueError(
            f"dataset.source.path: {path} must start with {magic}, the mark of such a file, got {header[0]}"
        )
    expected = start + math.prod(header[1:])
    if len(content) != expected:
        raise ValueError(f"dataset.source.path: {path} must be of {expected} bytes (unpacked), got {len(content)}")
    return content[start:].reshape(header[1:])
