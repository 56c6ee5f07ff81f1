"""Arrays of one's own, saved by NumPy (.npz) or PyTorch (.pt).

    np.savez("mine.npz", images=images, labels=labels)
    python train.py dataset/source=arrays dataset.source.path=mine.npz

or, to have it by name, configs/dataset/source/mine.yaml of three lines:

    defaults: [arrays, _self_]
    path: /data/mine.npz
    classes: [cat, dog]
"""

import pickle
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lifelong.data.examples import Examples
from lifelong.data.source import Source, fraction_held_out, with_test_part
from lifelong.data.sources.array_cache import MAPPED_FROM, cached, fingerprint

REQUIRED = {"images", "labels"}
OPTIONAL = {"test_images", "test_labels"}


def arrays(
    path: str,
    classes: Sequence[str] | None = None,
    test_fraction: float | None = None,
    cache: str | None = None,
) -> Source:
    """What the file holds as images and labels, and test_images and test_labels if there is a test part.

    images: uint8 (N, H, W), (N, C, H, W) or (N, H, W, C) with C = 1 or 3; labels: integers (N,), 0 and up.

    Args:
        classes: names of the labels 0, 1, …; None: the numbers up to the largest label.
        test_fraction: without a test part, the stratified share held out; None: a fifth.
        cache: where a file of a gigabyte and more is unpacked to be memory-mapped, see `array_cache.cached`.

    Raises:
        ValueError: a file that cannot be read or holds something else, labels without a name, a setting not allowed.
    """
    file = Path(path).expanduser().resolve()
    if file.suffix not in (".npz", ".pt") or not file.is_file():
        raise ValueError(f"dataset.source.path must be an .npz or .pt file, got {path!r}")
    if file.stat().st_size < MAPPED_FROM:
        return _source(file, classes, test_fraction)
    request = {"arrays": fingerprint([file]), "classes": classes, "test_fraction": test_fraction}
    return cached(file.stem, request, cache, partial(_unpack, file, classes, test_fraction))


def _unpack(file: Path, classes: Sequence[str] | None, test_fraction: float | None, out: Path) -> Sequence[str]:
    source = _source(file, classes, test_fraction)
    for part, examples in (("train", source.train), ("test", source.test)):
        np.save(out / f"{part}_images.npy", examples.images.numpy())
        np.save(out / f"{part}_labels.npy", examples.labels.numpy())
    return source.classes


def _source(file: Path, classes: Sequence[str] | None, test_fraction: float | None) -> Source:
    content = _content(file)
    has_test = content.keys() >= OPTIONAL
    if content.keys() not in (REQUIRED, REQUIRED | OPTIONAL):
        raise ValueError(
            f"dataset.source.path: {file} must hold images, labels and maybe test_images, test_labels, "
            f"got {', '.join(sorted(content)) or 'nothing'}"
        )
    fraction = fraction_held_out(test_fraction, has_test, "where the file holds test_images")
    train = _examples(file, content, "")
    test = _examples(file, content, "test_") if has_test else None
    if classes is None:
        classes = [str(label) for label in range(int(train.labels.max()) + 1)]
    if test is not None:
        return Source(file.stem, train, test, tuple(classes))
    Source(file.stem, train, train, tuple(classes))  # refuses labels out of range before they are split by
    return with_test_part(file.stem, train, classes, fraction)


def _content(file: Path) -> dict[str, Tensor]:
    """The file's arrays. Neither format is read in a way that could run code of the file."""
    refusals = (OSError, EOFError, KeyError, ValueError, TypeError, RuntimeError)
    try:
        if file.suffix == ".pt":
            content: Mapping[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        else:
            with np.load(file, allow_pickle=False) as archive:
                content = dict(archive)
        return {str(name): torch.as_tensor(value) for name, value in content.items()}
    except (*refusals, AttributeError, zlib.error, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"dataset.source.path: {file} cannot be read as named arrays ({reason})") from error


def _examples(file: Path, content: Mapping[str, Tensor], prefix: str) -> Examples:
    images, labels = content[f"{prefix}images"], content[f"{prefix}labels"]
    if images.dtype != torch.uint8:
        raise ValueError(f"dataset.source.path: {prefix}images of {file} must be uint8, 0 to 255, got {images.dtype}")
    whole = not labels.is_floating_point() and labels.dtype != torch.bool
    if not whole or labels.shape != images.shape[:1] or len(labels) == 0:
        raise ValueError(
            f"dataset.source.path: {prefix}labels of {file} must be an integer for each image, "
            f"got {labels.dtype} {tuple(labels.shape)} for images {tuple(images.shape)}"
        )
    return Examples(_channels_first(images, f"{prefix}images of {file}"), labels.to(torch.int64))


def _channels_first(images: Tensor, name: str) -> Tensor:
    if images.dim() == 3:
        return images[:, None].contiguous()
    first, last = (images.dim() == 4 and images.shape[d] in (1, 3) for d in (1, 3))
    if first == last:
        raise ValueError(
            f"dataset.source.path: {name} must be (N, H, W), (N, C, H, W) or (N, H, W, C) with C = 1 or 3, "
            f"got {tuple(images.shape)}"
        )
    return (images if first else images.permute(0, 3, 1, 2)).contiguous()
