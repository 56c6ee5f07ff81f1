"""The jobs of a multirun: what each comes to, and how the command that started them hears of it."""

import json
import math
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from lifelong.runs.atomic import atomic_write


@dataclass(frozen=True)
class Outcome:
    """What a job returns to its sweeper: its first objective as a number, all of them to whoever iterates.

    Attributes:
        values: the objectives; None where undefined.
        trained: False if the run was finished before.
        failed: what it failed of, in one line; it has no values then.
    """

    values: tuple[float | None, ...] = ()
    trained: bool = False
    failed: str | None = None

    def __float__(self) -> float:
        return next(iter(self))

    def __iter__(self) -> Iterator[float]:
        if self.failed:
            raise TypeError(self.failed)  # a sweeper that optimises counts the trial as failed
        return (math.nan if value is None else value for value in self.values)


class Jobs(Callback):
    """Hears of every job of a multirun, whichever process and machine it runs in.

    A job of the command's own process is heard at once. Others get a copy of this object and leave a file each.
    """

    current: ClassVar["Jobs | None"] = None
    """Those of the running command."""

    def __init__(self) -> None:
        self.command: int | None = None
        self.folder = Path()
        self.heard: dict[int, Outcome] = {}

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        self.command = os.getpid()
        self.folder = Path(config.hydra.sweep.dir).resolve() / f".jobs-{uuid4().hex}"
        Jobs.current = self

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """Nothing to hear of a defect: the command ends in its traceback."""
        if self.command is None or job_return.status is not JobStatus.COMPLETED:
            return
        overrides, outcome = job_return.overrides or [], job_return.return_value
        if self.command == os.getpid():
            return self.hear(config.hydra.job.num, overrides, outcome)
        self.folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.folder / f"{config.hydra.job.num}.json") as file:
            json.dump({"overrides": list(overrides), "trained": outcome.trained, "failed": outcome.failed}, file)

    def hear(self, number: int, overrides: Sequence[str], outcome: Outcome) -> None:
        """Once of each job; of one that failed say a line."""
        if number not in self.heard and outcome.failed:
            print(f"error: {' '.join(o.lstrip('+') for o in overrides)}: {outcome.failed}", file=sys.stderr)
        self.heard.setdefault(number, outcome)

    def hear_others(self) -> None:
        """Of the jobs of other processes, from their files."""
        for path in sorted(self.folder.glob("*.json")):
            job = json.loads(path.read_text(encoding="utf-8"))
            self.hear(int(path.stem), job["overrides"], Outcome(trained=job["trained"], failed=job["failed"]))
        shutil.rmtree(self.folder, ignore_errors=True)

    def all_failed(self) -> bool:
        self.hear_others()
        return bool(self.heard) and all(outcome.failed for outcome in self.heard.values())

    def sum_up(self) -> None:
        """Print the count; exit code 1 if a job failed."""
        self.hear_others()
        num, trained = len(self.heard), sum(outcome.trained for outcome in self.heard.values())
        failed = sum(outcome.failed is not None for outcome in self.heard.values())
        print(f"{num} jobs: {trained} trained, {num - trained - failed} finished before, {failed} failed")
        if failed:
            sys.exit(1)


def chosen_by_objectives() -> bool:
    """Whether a sweeper that optimises asks for the running job."""
    return multirun_job() is not None and HydraConfig.get().runtime.choices["hydra/sweeper"] != "basic"


def multirun_job() -> str | None:
    """The overrides of the running job of a multirun, as typed; None outside one."""
    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return None
    return " ".join(HydraConfig.get().overrides.task)


@contextmanager
def ended_with(parent: int, every_seconds: float = 1.0) -> Iterator[None]:
    """Around a job in a worker process of the command `parent`: if that dies, the run is saved and the process ends.

    Else the worker would train on unseen, and then wait for minutes for jobs that no one sends.
    """
    done, orphaned = threading.Event(), threading.Event()

    def watch() -> None:
        while not done.wait(every_seconds):
            if os.getppid() != parent:
                orphaned.set()
                os.kill(os.getpid(), signal.SIGTERM)
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        if orphaned.is_set():
            os._exit(128 + signal.SIGTERM)
