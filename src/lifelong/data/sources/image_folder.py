"""A folder of image files, a subfolder per class."""

from collections.abc import Sequence
from functools import partial
from itertools import chain
from pathlib import Path

from lifelong.data.source import Source, fraction_held_out
from lifelong.data.sources.cache import PARTS, Decoding, cached, fingerprint
from lifelong.data.sources.pixels import PixelFormat

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
        cache: see `cache.cached`.

    Raises:
        ValueError: no such folder, a train folder of classes without a test folder of classes beside it, a class
            without images, an image that cannot be read, a setting not allowed.
    """
    from PIL import Image

    folder = Path(path).expanduser().resolve()
    if not folder.is_dir():
        raise ValueError(f"dataset.source.path must be a folder, got {path!r}")
    has_test = all((folder / part).is_dir() and _folders(folder / part) for part in PARTS)
    if not has_test and (folder / "train").is_dir() and _folders(folder / "train"):
        got = ", ".join(_folders(folder))
        raise ValueError(f"dataset.source.path must hold train/<class> and test/<class>, or <class> alone, got {got}")
    fraction = fraction_held_out(test_fraction, has_test, "beside a test folder")
    parts = [folder / part for part in PARTS] if has_test else [folder]
    classes = _folders(parts[0])
    if not classes:
        raise ValueError(f"dataset.source.path must hold a folder per class, got none in {str(folder)!r}")
    files = [_files(part, classes) for part in parts]

    def decode(scratch: str) -> Decoding:
        labels = [[label for label, of_class in enumerate(part) for _ in of_class] for part in files]
        images = [[(str(file), partial(Image.open, file)) for file in chain(*part)] for part in files]
        return classes, list(zip(labels, images, strict=True))

    asked = {"image_folder": [[fingerprint(of_class) for of_class in part] for part in files]}
    return cached(folder.name, asked, PixelFormat(mode, size), fraction, cache, decode)


def _folders(folder: Path) -> list[str]:
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    return sorted(names, key=int) if all(map(str.isdecimal, names)) else names


def _files(folder: Path, classes: Sequence[str]) -> list[list[Path]]:
    """The images of each class."""
    if unknown := set(_folders(folder)) - set(classes):
        raise ValueError(f"dataset.source.path: {folder} must hold the classes of train, got also {min(unknown)!r}")
    files = [sorted(filter(_is_image, (folder / name).rglob("*"))) for name in classes]
    if not all(files):
        empty = folder / classes[files.index([])]
        raise ValueError(f"dataset.source.path: {empty} must hold images ({', '.join(SUFFIXES)}), got none")
    return files


def _is_image(file: Path) -> bool:
    return file.name.lower().endswith(SUFFIXES) and not file.name.startswith(".") and file.is_file()
