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
    train, test = (_examples(folder, prefix) for prefix in ("train", "t10k"))
    if classes is None:
        classes = [str(label) for label in range(int(train.labels.max()) + 1)]
    return Source(folder.name, train, test, tuple(classes))


def _examples(folder: Path, prefix: str) -> Examples:
    images, labels = (_array(folder, f"{prefix}-{kind}-ubyte", magic) for kind, magic in MAGIC.items())
    if len(images) != len(labels) or len(images) == 0:
        raise ValueError(
            f"dataset.source.path: {folder} must hold a label for every {prefix} image, "
            f"got {len(labels)} labels of {len(images)} images"
        )
    return Examples(torch.from_numpy(images[:, None]), torch.from_numpy(labels.astype(np.int64)))


def _array(folder: Path, name: str, magic: int) -> np.ndarray:
    """uint8, (N, H, W) or (N,): a header of big-endian 32-bit integers (magic, sizes), then the bytes."""
    path = next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)
    if path is None:
        raise ValueError(f"dataset.source.path must be a folder with {name} or {name}.gz, got {str(folder)!r}")
    try:
        stored = path.read_bytes()
        content = bytearray(gzip.decompress(stored) if path.suffix == ".gz" else stored)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"dataset.source.path: {path} cannot be read ({error})") from error
    start = 4 * (magic % 256 + 1)
    mark, *shape = np.frombuffer(content[:start].ljust(start, b"\xff"), ">u4").tolist()
    if mark != magic:
        raise ValueError(f"dataset.source.path: {path} must start with {magic}, the mark of such a file, got {mark}")
    expected = start + math.prod(shape)
    if len(content) != expected:
        raise ValueError(f"dataset.source.path: {path} must be of {expected} bytes (unpacked), got {len(content)}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)
