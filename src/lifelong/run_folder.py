"""runs/<name>/<run id>/: what a run leaves behind, and whether it is finished, interrupted or new."""

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lifelong.atomic import atomic_write


class RunFolderError(RuntimeError):
    """The folder cannot be written, or another process works in it."""


def run_id(prefix: str, config: Mapping[str, Any]) -> str:
    """Readable prefix and 8 hex digits of the configuration's hash: the same in every process and every retry."""
    canonical = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return f"{prefix}-{hashlib.sha256(canonical.encode()).hexdigest()[:8]}"


class RunFolder:
    """Paths and state of one run.

    metrics.json is written last and atomically: its presence means finished.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.checkpoint = path / "last.ckpt"
        self.history = path / "history.jsonl"
        self.matrix = path / "accuracy_matrix.csv"
        self.metrics = path / "metrics.json"
        self.model = path / "model.pt"

    @property
    def finished(self) -> bool:
        return self.metrics.exists()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder and hold it for this process; a dead owner's lock is free.

        Raises:
            RunFolderError: no permission, or another process works in the folder.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with atomic_write(self.path / ".writable") as file:
                file.write(str(os.getpid()))
            lock = FileLock(self.path / ".lock")
            lock.acquire(blocking=False)
        except Timeout:
            raise RunFolderError(f"run folder {self.path} is in use: another process is training this run") from None
        except OSError as error:
            raise RunFolderError(f"run folder {self.path} cannot be written: {error.strerror}") from error
        try:
            yield
        finally:
            lock.release()

    def start_over(self) -> None:
        """Forget an earlier result and checkpoint (rerun=true)."""
        for path in (self.metrics, self.checkpoint, self.history):
            path.unlink(missing_ok=True)

    def write_text(self, path: Path, text: str) -> None:
        with atomic_write(path) as file:
            file.write(text)

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Flat JSON; what is undefined (nan) is null."""
        plain = {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in metrics.items()}
        self.write_text(self.metrics, json.dumps(plain, indent=2) + "\n")

    def read_metrics(self) -> dict[str, Any]:
        metrics: dict[str, Any] = json.loads(self.metrics.read_text())
        return metrics

    def read_matrix(self) -> tuple[list[str], list[list[float]]]:
        """Task names and the rows of accuracy_matrix.csv."""
        header, *rows = self.matrix.read_text().splitlines()
        return header.split(","), [[float(cell) for cell in row.split(",")] for row in rows]
