"""history.jsonl: the rows a run wrote, whatever other loggers it had."""

import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]


class History:
    """history.jsonl: one JSON object a line, flushed line by line, so that a killed run loses at most the last one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = open(path, "ab")  # noqa: SIM115 - closed with the run

    def append(self, row: Row) -> None:
        line = json.dumps({k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()})
        try:
            self._file.write(line.encode() + b"\n")
            self._file.flush()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error

    def position(self) -> int:
        """Length in bytes, all of them on the disk: a checkpoint will rest on them."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        return self._file.tell()

    def truncate(self, length: int) -> None:
        """Cut what came after a checkpoint: it will be written again. Says so on stderr if that much is not there."""
        if length > self.path.stat().st_size:
            print(f"{self.path} is shorter than when the checkpoint was written: rows are missing", file=sys.stderr)
            length = self.path.read_bytes().rfind(b"\n") + 1
        self._file.truncate(length)
        self._file.seek(length)

    def close(self) -> None:
        self._file.close()


class NoHistory(History):
    """Of all ranks but the first: it writes."""

    def __init__(self) -> None: ...

    def append(self, row: Row) -> None: ...

    def position(self) -> int:
        return 0

    def truncate(self, length: int) -> None: ...

    def close(self) -> None: ...


def read_history(path: Path) -> list[dict[str, Any]]:
    """The rows of a history.jsonl; a torn last line (the run was killed while writing it) is left out."""
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:  # noqa: PERF203
            break
    return rows


def numbers(row: Row) -> dict[str, float]:
    """What of a row a logger of scalars can take: finite numbers, and not `step`, which is their axis."""
    return {k: v for k, v in row.items() if isinstance(v, int | float) and math.isfinite(v) and k != "step"}
