"""Decoded images, kept on disk so that they are decoded once: by one process, for all that ask for the same.

A cached source is a folder <name>-<hash of what was asked>/ of four .npy files and about.json with their checksums. It
is written beside its place and renamed, so it is whole or absent; files damaged later are decoded again.
"""

import hashlib
import json
import os
import re
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from lifelong.data.examples import Examples
from lifelong.data.source import Source

VERSION = 1  # of what lies in the folder
MAPPED_FROM = 1 << 30
"""Bytes from which a file is memory-mapped: pages are read when touched, and shared by all processes of a machine."""
BLOCK = 1 << 24
PARTS = ("train_images", "train_labels", "test_images", "test_labels")
Decode = Callable[[Path], Sequence[str]]


def cached(name: str, request: Mapping[str, Any], cache: str | None, decode: Decode) -> Source:
    """The source that was asked for, decoded now or at an earlier time.

    Args:
        name: of the source, the readable part of the folder's name.
        request: plain data; what makes another request must be decoded again.
        cache: the folder of all cached sources; None: $LIFELONG_CACHE, else ~/.cache/lifelong.
        decode: writes PARTS as .npy files into the folder it is given, and returns the names of the classes.

    Raises:
        ValueError: a cache that cannot be written; what `decode` or `Source` refuse.
    """
    key = hashlib.sha256(json.dumps([VERSION, request], sort_keys=True).encode()).hexdigest()[:16]
    root = Path(cache or os.environ.get("LIFELONG_CACHE") or "~/.cache/lifelong").expanduser()
    folder = root / f"{re.sub(r'[^A-Za-z0-9_-]+', '-', name)}-{key}"
    if kept := _kept(name, folder):  # without the lock: the cache of others may be read-only
        return kept
    _make_writable(root)
    with FileLock(f"{folder}.lock"):  # jobs that start together decode once
        if kept := _kept(name, folder):
            return kept
        if folder.exists():
            warnings.warn(f"{folder} is damaged and made again", stacklevel=2)
            shutil.rmtree(folder)
        _write(name, request, folder, decode)
        return _read(name, folder)


def fingerprint(files: Iterable[Path]) -> list[tuple[str, int, int]]:
    """Path, size and time of change (ns) of each file: what tells new data from old without reading them."""
    stats = ((file, file.stat()) for file in files)
    return [(str(file), stat.st_size, stat.st_mtime_ns) for file, stat in stats]


def as_tensor(array: np.ndarray) -> Tensor:
    """The array's memory as a tensor; for a memory map opened with mode "c", writing to it leaves the file alone."""
    return torch.from_numpy(array)


def map_mode(num_bytes: int) -> Any:
    """For np.load and np.memmap: "c", copy on write, where so much is better mapped than read; else None."""
    return "c" if num_bytes >= MAPPED_FROM else None


def _make_writable(root: Path) -> None:
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"dataset.source.cache must be a folder to write to, got {str(root)!r}: {error.strerror}"
        ) from error
    if not os.access(root, os.W_OK):
        raise ValueError(f"dataset.source.cache must be a folder to write to, got {str(root)!r}")


def _kept(name: str, folder: Path) -> Source | None:
    """None if it is not there, or not as it was written."""
    try:
        return _read(name, folder)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(name: str, request: Mapping[str, Any], folder: Path, decode: Decode) -> None:
    temporary = folder.with_name(
        f".{folder.name}.tmp"
    )  # one at a time, by the lock; a killed process may have left one
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        classes = list(decode(temporary))
        checksums = {part: _checksum(temporary / f"{part}.npy") for part in PARTS}
        about = {"request": request, "classes": classes, "crc32": checksums}
        (temporary / "about.json").write_text(json.dumps(about, indent=1, ensure_ascii=False), encoding="utf-8")
        _source(name, temporary, classes)  # what Source refuses is not kept
        temporary.rename(folder)
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"dataset.source.cache: {str(folder)!r} cannot be written ({reason})") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _read(name: str, folder: Path) -> Source:
    """Raises OSError, ValueError, KeyError or TypeError if anything in the folder is not as it was written."""
    about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
    for part in PARTS:
        if _checksum(folder / f"{part}.npy") != about["crc32"][part]:
            raise ValueError(f"the checksum of {part}.npy is wrong")
    return _source(name, folder, about["classes"])


def _source(name: str, folder: Path, classes: Sequence[str]) -> Source:
    paths = [folder / f"{part}.npy" for part in PARTS]
    tensors = [as_tensor(np.load(path, mmap_mode=map_mode(path.stat().st_size))) for path in paths]
    return Source(name, Examples(*tensors[:2]), Examples(*tensors[2:]), tuple(classes))


def _checksum(path: Path) -> int:
    """CRC-32 of a file; it finds damage, not intent, at two gigabytes a second."""
    value = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            value = zlib.crc32(block, value)
    return value
