"""Which of a run's rows W&B already has, so that a resumed run neither doubles nor misses one.

W&B gets one row for each row of the history, in the same order; so what it has is always the first n. A killed run
loses what W&B had not yet written (up to 32 KiB offline), and makes again what came after its checkpoint.
"""

import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK_BYTES, HEADER = 2**15, struct.Struct("<IHB")
FILE_HEADER_BYTES = 7
FULL, FIRST, LAST = 1, 2, 4
"""Of LevelDB's log format, in which W&B writes its own: blocks, and records in one part or several."""


class ResumedRows:
    """What a resumed run hands to W&B.

    Args:
        history: the rows up to the checkpoint; `step` and more.
        num_held: n, how many rows W&B has.

    Attributes:
        lost: rows of the history that W&B has not got, to be handed to it before any other.
    """

    def __init__(self, history: list[dict[str, Any]], num_held: int) -> None:
        self.lost = history[num_held:]
        self._held_beyond = max(0, num_held - len(history))

    def next_is_new(self) -> bool:
        """Whether W&B does not have the next row the run makes yet; to be asked once for each."""
        if self._held_beyond == 0:
            return True
        self._held_beyond -= 1
        return False


def num_rows_on_disk(folder: Path, unsynced: bool = False) -> int:
    """Rows in all of W&B's own files in a run folder; `unsynced`: only in those of offline runs not uploaded yet."""
    pattern = "wandb/offline-run-*/*.wandb" if unsynced else "wandb/*run-*/*.wandb"
    files = (path for path in folder.glob(pattern) if not (unsynced and Path(f"{path}.synced").exists()))
    return sum(_num_rows(path.read_bytes()) for path in files)


def forget_rows(folder: Path) -> None:
    """Delete what an attempt that begins anew has left on disk: it would be uploaded beside the new rows."""
    for path in folder.glob("wandb/*run-*"):
        shutil.rmtree(path)


def _num_rows(data: bytes) -> int:
    from wandb.proto import wandb_internal_pb2

    def kind(record: bytes) -> str | None:
        parsed = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
        parsed.ParseFromString(record)
        return parsed.WhichOneof("record_type")

    return sum(kind(record) == "history" for record in _records(data))


def _records(data: bytes) -> Iterator[bytes]:
    """The whole records; a torn end (the run was killed) is left out."""
    at, parts = FILE_HEADER_BYTES, b""
    while at + HEADER.size <= len(data):
        left = BLOCK_BYTES - at % BLOCK_BYTES
        if left < HEADER.size:  # the rest of a block is filled up
            at += left
            continue
        _, length, part = HEADER.unpack_from(data, at)
        at += HEADER.size + length
        if part == 0 or at > len(data):
            return
        piece = data[at - length : at]
        parts = piece if part in (FULL, FIRST) else parts + piece
        if part in (FULL, LAST):
            yield parts
