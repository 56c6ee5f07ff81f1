"""Files of torch.save that end with their own SHA-256: whichever byte changes is seen. torch itself checks no sums."""

import hashlib
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any

import torch

from lifelong.runs.folder import DamagedError, RunFolderError

MARK = b"\nsha256 "
SEAL_BYTES = len(MARK) + hashlib.sha256().digest_size
BLOCK_BYTES = 2**20


class _Summing:
    """What torch.save writes goes to `file` and into the sum."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.sum = file, hashlib.sha256()

    def write(self, data: bytes) -> int:
        self.sum.update(data)
        return self.file.write(data)

    def flush(self) -> None:
        self.file.flush()


def save_sealed(value: dict[str, Any], file: IO[bytes]) -> None:
    """torch.save, then the sum of what it wrote; torch.load reads the file as if it ended before that."""
    summing = _Summing(file)
    torch.save(value, summing)  # type: ignore[arg-type]
    file.write(MARK + summing.sum.digest())


def load_sealed(path: Path) -> dict[str, Any]:
    """torch.load onto the CPU, of tensors and plain values alone, once every byte was checked.

    Raises:
        DamagedError: the file is not what save_sealed wrote.
        RunFolderError: it is, but holds what would run code when loaded.
    """
    _check_seal(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise RunFolderError(
            f"{path} holds more than tensors and plain values, so it is none of ours: nothing in it was run"
        ) from error


def _check_seal(path: Path) -> None:
    left = path.stat().st_size - SEAL_BYTES
    sum_of_file = hashlib.sha256()
    with open(path, "rb") as file:
        while left > 0:
            block = file.read(min(left, BLOCK_BYTES))
            sum_of_file.update(block)
            left -= len(block) or left
        seal = file.read()
    if not seal.startswith(MARK):
        raise DamagedError(f"{path} is damaged (its end is missing, or an older version wrote it)")
    if seal != MARK + sum_of_file.digest():
        raise DamagedError(f"{path} is damaged (wrong check sum)")
