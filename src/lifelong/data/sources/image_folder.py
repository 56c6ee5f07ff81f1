"""A folder of image files, a subfolder per class."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from lifelong.data.source import Source, fraction_held_out, train_and_test
from lifelong.data.sources.array_cache import cached, fingerprint
from lifelong.data.sources.pixels import PixelFormat, write_images

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


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
    request = {
        "image_folder": fingerprint(folder),
        "path": str(folder),
        "test_fraction": None if has_test else fraction,
        **pixel_format.as_request(),
    }
    return cached(folder.name, request, cache, partial(_decode, folder, has_test, fraction, pixel_format))


def _decode(folder: Path, has_test: bool, fraction: float, pixel_format: PixelFormat, out: Path) -> list[str]:
    classes = _classes(folder / "train" if has_test else folder)
    if has_test:
        parts = {part: _files(folder / part, classes) for part in ("train", "test")}
    else:
        files, labels = _files(folder, classes)
        positions = train_and_test(torch.tensor(labels), fraction)
        parts = {
            part: ([files[i] for i in index.tolist()], [labels[i] for i in index.tolist()])
            for part, index in zip(("train", "test"), positions, strict=True)
        }
    for part, (files, labels) in parts.items():
        if not files:
            raise ValueError(f"dataset.source.test_fraction must leave the {part} part examples, got {fraction!r}")
        np.save(out / f"{part}_labels.npy", np.array(labels, dtype=np.int64))
        write_images(out / f"{part}_images.npy", [_opening(f) for f in files], len(files), pixel_format)
    return classes


def _opening(file: Path):  # type: ignore[no-untyped-def]
    from PIL import Image

    return str(file), partial(Image.open, file)


def _folders(folder: Path) -> list[str]:
    return [entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")]


def _classes(folder: Path) -> list[str]:
    names = _folders(folder)
    if not names:
        raise ValueError(f"dataset.source.path must hold a folder per class, got none in {str(folder)!r}")
    return sorted(names, key=lambda name: (int(name), name)) if all(map(str.isdecimal, names)) else sorted(names)


def _files(folder: Path, classes: Sequence[str]) -> tuple[list[Path], list[int]]:
    """The images of all classes and their labels."""
    if unknown := set(_folders(folder)) - set(classes):
        raise ValueError(f"dataset.source.path: {folder} must hold the classes of train, got also {min(unknown)!r}")
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(_images_below(folder / name))
        if not found:
            raise ValueError(f"dataset.source.path: {folder / name} must hold images ({', '.join(SUFFIXES)}), got none")
        files += found
        labels += [label] * len(found)
    return files, labels


def _images_below(folder: Path) -> list[Path]:
    return [
        Path(parent) / file
        for parent, _, files in os.walk(folder)
        for file in files
        if file.lower().endswith(SUFFIXES) and not file.startswith(".")
    ]
