"""Files of torch.save that end with their own SHA-256, which shows any byte that changed: torch itself checks none."""

import hashlib
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any

import torch

from lifelong.runs.folder import DamagedError, RunFolderError

MARK = b"\nsha256 "
END_BYTES = len(MARK) + hashlib.sha256().digest_size
BLOCK_BYTES = 2**20


def save_with_checksum(value: dict[str, Any], file: IO[bytes]) -> None:
    """torch.save into an empty file open for writing and reading, then the checksum, which torch.load does not mind."""
    torch.save(value, file)
    file.write(_end(file, file.tell()))


def load_with_checksum(path: Path) -> dict[str, Any]:
    """torch.load onto the CPU, of tensors and plain values alone, after a look at every byte.

    Raises:
        DamagedError: the file is not what save_with_checksum wrote.
        RunFolderError: it is, but holds what would run code when loaded.
    """
    with open(path, "rb") as file:
        if _end(file, path.stat().st_size - END_BYTES) != file.read():
            raise DamagedError(f"{path} is damaged (wrong checksum)")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise RunFolderError(
            f"{path} holds more than tensors and plain values, so it is none of ours: nothing in it was run"
        ) from error


def _end(file: IO[bytes], length: int) -> bytes:
    """What follows the first `length` bytes of a whole file; `file` then stands there."""
    checksum = hashlib.sha256()
    file.seek(0)
    for start in range(0, length, BLOCK_BYTES):
        checksum.update(file.read(min(BLOCK_BYTES, length - start)))
    return MARK + checksum.digest()
