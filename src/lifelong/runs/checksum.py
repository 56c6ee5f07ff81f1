"""Files of torch.save, read after a look at every byte.

torch.save writes a zip archive, which holds a CRC-32 of each of its parts; torch.load compares none of them.
"""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any
from zipfile import BadZipFile, ZipFile

import torch

from lifelong.runs.folder import DamagedError, RunFolderError


def load_with_checksum(path: Path) -> dict[str, Any]:
    """torch.load onto the CPU, of tensors and plain values alone.

    Raises:
        DamagedError: the file is not what torch.save wrote.
        RunFolderError: it is, but holds what would run code when loaded.
    """
    try:
        with ZipFile(path) as archive:
            torch._C.PyTorchFileReader(str(path))  # of the archive's own bytes torch refuses more than zipfile
            if archive.testzip() or any(part.external_attr for part in archive.infolist()):  # torch skips a "folder"
                raise BadZipFile
    except (OSError, MemoryError):
        raise
    except Exception as error:  # of whichever part of zipfile
        raise DamagedError(f"{path} is damaged (wrong checksum)") from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        raise RunFolderError(
            f"{path} holds more than tensors and plain values, so it is none of ours: nothing in it was run"
        ) from error
