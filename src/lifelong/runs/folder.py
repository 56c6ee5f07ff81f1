"""runs/<name>/<run id>/: what a run writes, and whether it is finished, interrupted or new."""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig, OmegaConf

from lifelong.runs.atomic import atomic_write, remove_leftovers


class RunFolderError(RuntimeError):
    """The folder cannot be written, another process works in it, or what it holds is missing or damaged."""


class DamagedError(RunFolderError):
    """A file is not what was written."""


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
        self.previous_checkpoint = path / "previous.ckpt"
        self.history = path / "history.jsonl"
        self.matrix = path / "accuracy_matrix.csv"
        self.val_matrix = path / "val_accuracy_matrix.csv"
        self.error = path / "error.txt"
        self.metrics = path / "metrics.json"
        self.model = path / "model.pt"
        self.analysis = path / "analysis.json"
        self.importance_picture = path / "importance.png"
        self.weights = path / "weights"
        self.importances = path / "importances"

    @property
    def finished(self) -> bool:
        return self.metrics.exists()

    @contextmanager
    def locked(self, *, wait: bool = False) -> Iterator[None]:
        """Make the folder and hold it for this process; a dead owner's lock is free.

        wait: for another process that works in the folder to end, and say so.

        Raises:
            RunFolderError: no permission, or another process works in the folder.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock")
            try:
                lock.acquire(blocking=False)
            except Timeout:
                if not wait:
                    raise
                print(f"waiting for another process, which is training this run: {self.path}", flush=True)
                lock.acquire()
        except Timeout:
            raise RunFolderError(f"run folder {self.path} is in use: another process is training this run") from None
        except OSError as error:
            raise RunFolderError(f"run folder {self.path} cannot be written: {error.strerror}") from error
        except NotImplementedError as error:
            raise RunFolderError(f"run folder {self.path} cannot be locked: its file system has no flock") from error
        try:
            for folder in (self.path, self.weights, self.importances):
                remove_leftovers(folder)
            yield
        finally:
            lock.release()

    @contextmanager
    def failures_told(self) -> Iterator[None]:
        """Within the block, an error's message is written to error.txt; one from an earlier try goes."""
        self.error.unlink(missing_ok=True)
        try:
            yield
        except Exception as error:
            with suppress(OSError):  # the disk may be what failed
                self.write_text(self.error, f"{type(error).__name__}: {' '.join(str(error).split())}\n")
            raise

    def start_over(self) -> None:
        """Forget a finished result (rerun=true); checkpoints first: killed in between, the run is still finished."""
        made = [*self.weights.glob("*.pt"), *self.importances.glob("*.pt"), *self.path.glob("*.png")]
        made += (self.path / "evaluations").glob("*.json")  # of the weights before
        for path in (self.previous_checkpoint, self.checkpoint, self.metrics, self.history, self.analysis, *made):
            path.unlink(missing_ok=True)

    def weights_after(self, task: int) -> Path:
        """Where the model after a task, counted from 0, is kept; what model.pt is after the last one."""
        return self.weights / f"task{task + 1}.pt"

    def importance_of(self, task: int) -> Path:
        """Where a task's own importance is kept, float32 tensors by parameter name."""
        return self.importances / f"task{task + 1}.pt"

    def write_text(self, path: Path, text: str) -> None:
        with atomic_write(path) as file:
            file.write(text)

    def write_metrics(self, metrics: Mapping[str, Any]) -> None:
        """Flat JSON; what is undefined (nan, or not finite) is null."""
        plain = {key: _json(value) for key, value in metrics.items()}
        self.write_text(self.metrics, json.dumps(plain, indent=2, allow_nan=False) + "\n")
        self.previous_checkpoint.unlink(missing_ok=True)  # of use to an interrupted run alone

    def read_metrics(self) -> dict[str, Any]:
        """Raises RunFolderError if metrics.json is damaged."""
        with whole(self.metrics):
            metrics: dict[str, Any] = json.loads(self.metrics.read_text(encoding="utf-8"))
            if metrics["run_id"] != self.path.resolve().name:
                raise ValueError(f"it belongs to {metrics['run_id']}")
            return metrics

    def read_analysis(self) -> dict[str, Any]:
        """What analysis.json holds, by measure; {} without one. Raises RunFolderError if it is damaged."""
        if not self.analysis.exists():
            return {}
        with whole(self.analysis):
            found: dict[str, Any] = json.loads(self.analysis.read_text(encoding="utf-8"))
            return found

    def write_analysis(self, measures: Mapping[str, Any]) -> None:
        """Add measures to analysis.json, or put them in the place of those of that name; undefined numbers are null."""
        plain = _json({**self.read_analysis(), **measures})
        self.write_text(self.analysis, json.dumps(plain, allow_nan=False) + "\n")

    def read_config(self) -> DictConfig:
        """Raises RunFolderError if config.yaml is missing or damaged."""
        with whole(self.config):
            config: DictConfig = OmegaConf.create(self.config.read_text(encoding="utf-8"))  # type: ignore[assignment]
            return config

    def read_matrix(self, path: Path | None = None) -> tuple[list[str], list[list[float]]]:
        """Task names and the rows of accuracy_matrix.csv, or `path`; raises RunFolderError if it is damaged."""
        path = path or self.matrix
        with whole(path):
            header, *lines = path.read_text(encoding="utf-8").splitlines()
            names, rows = header.split(","), [[float(cell) for cell in line.split(",")] for line in lines]
            if {len(rows), *map(len, rows)} != {len(names)}:
                raise ValueError("it is not square")
            return names, rows


@contextmanager
def whole(path: Path) -> Iterator[None]:
    """Around the reading of a finished run's file: DamagedError if it is not what was written."""
    try:
        yield
    except FileNotFoundError as error:
        own = RunFolder(path.parent)
        if path in (own.config, own.metrics) and not (own.config.exists() or own.metrics.exists()):
            raise RunFolderError(f"{own.path} is no run folder: config.yaml and metrics.json are missing") from error
        raise RunFolderError(f"{path} is missing: the run is not finished, or rerun=true trains it again") from error
    except (OSError, RunFolderError):
        raise
    except Exception as error:  # of whichever parser
        reason = " ".join(str(error).split())
        raise DamagedError(f"{path} is damaged ({reason}): rerun=true trains the run again") from error


def _json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _json(v) for key, v in value.items()}
    if isinstance(value, list):
        return [_json(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
