"""A folder of image files, a subfolder per class."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from lifelong.data.source import Source, fraction_held_out, train_and_test
from lifelong.data.sources.array_cache import cached, fingerprint
from lifelong.data.sources.pixels import Opening, PixelFormat, write_images

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
Labelled = tuple[Path, int]


def image_folder(
    path: str,
    mode: str | None = None,
    size: int | Sequence[int] | None = None,
    test_fraction: float | None = None,
    cache: str | None = None,
) -> Source:
    """Images in path/<class>/…, or in path/train/<class>/… and path/test/<class>/…, whatever else lies there.

    Classes are sorted by name (by number if all are numbers), images by path; files whose names end otherwise than an
    image's, or start with a dot, are left out. Images are turned upright as their EXIF tag says and brought to `mode`
    and `size` (see PixelFormat); what comes of it is cached until a file changes.

    Args:
        test_fraction: without a test folder, the stratified share held out; None: a fifth.
        cache: see `array_cache.cached`.

    Raises:
        ValueError: no such folder, a class without images, an image that cannot be read, a setting not allowed.
    """
    folder = Path(path).expanduser().resolve()
    if not folder.is_dir():
        raise ValueError(f"dataset.source.path must be a folder, got {path!r}")
    pixel_format = PixelFormat(mode, size)
    has_test = all((folder / part).is_dir() and _folders(folder / part) for part in ("train", "test"))
    fraction = fraction_held_out(test_fraction, has_test, "beside a test folder")
    classes = _classes(folder / "train" if has_test else folder)
    listed = [_listed(folder / part, classes) for part in ("train", "test")] if has_test else [_listed(folder, classes)]
    request = {
        "image_folder": [fingerprint(file for file, _ in part) for part in listed],
        "test_fraction": None if has_test else fraction,
        **pixel_format.as_request(),
    }

    def decode(out: Path) -> list[str]:
        for part, pairs in zip(("train", "test"), listed if has_test else _parted(listed[0], fraction), strict=True):
            np.save(out / f"{part}_labels.npy", np.array([label for _, label in pairs], dtype=np.int64))
            write_images(out / f"{part}_images.npy", (_opening(file) for file, _ in pairs), len(pairs), pixel_format)
        return classes

    return cached(folder.name, request, cache, decode)


def _parted(pairs: Sequence[Labelled], fraction: float) -> list[list[Labelled]]:
    positions = train_and_test(torch.tensor([label for _, label in pairs]), fraction)
    return [[pairs[i] for i in part.tolist()] for part in positions]


def _opening(file: Path) -> Opening:
    from PIL import Image

    return str(file), partial(Image.open, file)


def _folders(folder: Path) -> list[str]:
    return [entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")]


def _classes(folder: Path) -> list[str]:
    names = _folders(folder)
    if not names:
        raise ValueError(f"dataset.source.path must hold a folder per class, got none in {str(folder)!r}")
    return sorted(names, key=lambda name: (int(name), name)) if all(map(str.isdecimal, names)) else sorted(names)


def _listed(folder: Path, classes: Sequence[str]) -> list[Labelled]:
    """The images of all classes with their labels."""
    if unknown := set(_folders(folder)) - set(classes):
        raise ValueError(f"dataset.source.path: {folder} must hold the classes of train, got also {min(unknown)!r}")
    pairs: list[Labelled] = []
    for label, name in enumerate(classes):
        files = sorted(_images_below(folder / name))
        if not files:
            raise ValueError(f"dataset.source.path: {folder / name} must hold images ({', '.join(SUFFIXES)}), got none")
        pairs += [(file, label) for file in files]
    return pairs


def _images_below(folder: Path) -> list[Path]:
    return [
        Path(parent) / file
        for parent, _, files in os.walk(folder)
        for file in files
        if file.lower().endswith(SUFFIXES) and not file.startswith(".")
    ]
