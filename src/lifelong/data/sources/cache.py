"""Decoded images, kept on disk so that they are decoded once: by one process, for all that ask for the same.

A cached source is a file <name>-<hash of what was asked>.pt. It is written beside its place and renamed, so it is whole
or absent. Its images are memory-mapped: pages are read when touched, and shared by all processes of a machine.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from lifelong.data.examples import Examples
from lifelong.data.source import Source, train_and_test
from lifelong.data.sources.pixels import Opening, PixelFormat, decoded

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
        asked: plain data; what is asked for otherwise, or in another format, is decoded again.
        test_fraction: stratified share held out where there is one part.
        cache: the folder of all cached sources; None: $LIFELONG_CACHE, else ~/.cache/lifelong.
        decode: is given a folder for files that are not needed later.

    Raises:
        ValueError: a cache that cannot be written, an image that cannot be used, what `decode` or `Source` refuse.
    """
    asked = {**asked, "mode": pixel_format.mode, "size": pixel_format.sides, "test_fraction": test_fraction}
    key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
    root = Path(cache or os.environ.get("LIFELONG_CACHE") or "~/.cache/lifelong").expanduser()
    file = root / f"{re.sub(r'[^A-Za-z0-9_-]+', '-', name)}-{key}.pt"
    if kept := _read(name, file):  # without the lock: the cache of others may be read-only
        return kept
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{file}.lock"):  # jobs that start together decode once
            if kept := _read(name, file):
                return kept
            scratch = file.with_suffix(".tmp")
            shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
            scratch.mkdir()
            try:
                made = scratch / "source.pt"
                torch.save(_decoded(scratch, pixel_format, test_fraction, decode), made)
                source = _source(name, made)  # what Source refuses is not kept
                made.rename(file)
                return source
            finally:
                shutil.rmtree(scratch)
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"dataset.source.cache: {str(file)!r} cannot be written ({reason})") from error


def fingerprint(files: Sequence[Path]) -> list[tuple[str, int, int]]:
    """Path, size and time of change (ns) of each file: what tells new data from old without reading them."""
    return [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]


def _decoded(
    folder: Path, pixel_format: PixelFormat, test_fraction: float, decode: Callable[[str], Decoding]
) -> dict[str, Any]:
    """Classes, images and labels of both parts; the images rest on files in the folder."""
    classes, parts = decode(str(folder))
    if len(parts) == 1:
        labels, images = parts[0]
        positions = [part.tolist() for part in train_and_test(torch.tensor(labels), test_fraction)]
        parts = [([labels[i] for i in part], [images[i] for i in part]) for part in positions]
    content: dict[str, Any] = {"classes": list(classes)}
    for part, (labels, images) in zip(PARTS, parts, strict=True):
        content[part] = (decoded(images, pixel_format, folder / part), torch.tensor(labels, dtype=torch.int64))
    return content


def _read(name: str, file: Path) -> Source | None:
    """None if it is not there, or cannot be read."""
    try:
        return _source(name, file)
    except (OSError, EOFError, RuntimeError):
        return None


def _source(name: str, file: Path) -> Source:
    content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    train, test = (Examples(*content[part]) for part in PARTS)
    return Source(name, train, test, tuple(content["classes"]))
