"""Decoded images, kept on disk so that they are decoded once: by one process, for all that ask for the same.

A cached source is a folder <name>-<hash of what was asked>/ of four .npy files and about.json with their checksums. It
is written beside its place and renamed, so it is whole or absent; files damaged later are decoded again. The arrays are
memory-mapped: pages are read when touched, and shared by all processes of a machine.
"""

import hashlib
import json
import os
import re
import shutil
import warnings
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock

from lifelong.data.examples import Examples
from lifelong.data.source import Source, train_and_test
from lifelong.data.sources.pixels import Opening, PixelFormat, write_images

PARTS = ("train", "test")
Decoding = tuple[Sequence[str], list[tuple[Sequence[int], Sequence[Opening]]]]
"""Names of the classes; labels and images of the train and the test part, or of one that is to be divided."""


def cached(
    name: str,
    asked: Mapping[str, Any],
    pixel_format: PixelFormat,
    test_fraction: float,
    cache: str | None,
    decode: Callable[[str], Decoding],
) -> Source:
    """The source that was asked for, decoded now or at an earlier time.

    Args:
        name: of the source, the readable part of the folder's name.
        asked: plain data; what is asked for otherwise, or in another format, is decoded again.
        test_fraction: stratified share held out where there is one part.
        cache: the folder of all cached sources; None: $LIFELONG_CACHE, else ~/.cache/lifelong.
        decode: is given a folder for files that are no longer needed then.

    Raises:
        ValueError: a cache that cannot be written, an image that cannot be used, what `decode` or `Source` refuse.
    """
    asked = {**asked, "mode": pixel_format.mode, "size": pixel_format.height_width, "test_fraction": test_fraction}
    key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
    root = Path(cache or os.environ.get("LIFELONG_CACHE") or "~/.cache/lifelong").expanduser()
    folder = root / f"{re.sub(r'[^A-Za-z0-9_-]+', '-', name)}-{key}"
    if kept := _kept(name, folder):  # without the lock: the cache of others may be read-only
        return kept
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):  # jobs that start together decode once
            if kept := _kept(name, folder):
                return kept
            if folder.exists():
                warnings.warn(f"{folder} is damaged and made again", stacklevel=2)
                shutil.rmtree(folder)
            temporary = folder.with_name(f".{folder.name}.tmp")  # a process that was killed may have left it
            shutil.rmtree(temporary, ignore_errors=True)
            try:
                _write(temporary, pixel_format, test_fraction, decode)
                _read(name, temporary)  # what Source refuses is not kept
                temporary.rename(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
            return _read(name, folder)
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"dataset.source.cache: {str(folder)!r} cannot be written ({reason})") from error


def fingerprint(files: Sequence[Path]) -> list[tuple[str, int, int]]:
    """Path, size and time of change (ns) of each file: what tells new data from old without reading them."""
    return [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]


def _write(folder: Path, pixel_format: PixelFormat, test_fraction: float, decode: Callable[[str], Decoding]) -> None:
    scratch = folder / "scratch"
    scratch.mkdir(parents=True)
    classes, parts = decode(str(scratch))
    if len(parts) == 1:
        labels, images = parts[0]
        positions = [part.tolist() for part in train_and_test(torch.tensor(labels), test_fraction)]
        parts = [([labels[i] for i in part], [images[i] for i in part]) for part in positions]
    for part, (labels, images) in zip(PARTS, parts, strict=True):
        np.save(folder / f"{part}_labels.npy", np.asarray(labels, dtype=np.int64))
        write_images(folder / f"{part}_images.npy", images, pixel_format)
    shutil.rmtree(scratch)
    about = {"classes": list(classes), "crc32": {file.name: _checksum(file) for file in folder.glob("*.npy")}}
    (folder / "about.json").write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")


def _kept(name: str, folder: Path) -> Source | None:
    """None if it is not there, or not as it was written."""
    try:
        return _read(name, folder)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read(name: str, folder: Path) -> Source:
    """Raises OSError, ValueError, KeyError or TypeError if anything in the folder is not as it was written."""
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    for file, checksum in about["crc32"].items():
        if _checksum(folder / file) != checksum:
            raise ValueError(f"the checksum of {file} is wrong")
    arrays = {file: torch.from_numpy(np.load(folder / file, mmap_mode="c")) for file in about["crc32"]}
    train, test = (Examples(arrays[f"{part}_images.npy"], arrays[f"{part}_labels.npy"]) for part in PARTS)
    return Source(name, train, test, tuple(about["classes"]))


def _checksum(file: Path) -> int:
    """CRC-32; it finds damage, not intent, at two gigabytes a second."""
    return zlib.crc32(np.memmap(file, mode="r").data)
