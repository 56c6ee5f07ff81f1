"""The jobs of a multirun, as the command that started them sees them."""

import math
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any


class Objectives(float):
    """What a job returns to its sweeper: its first objective as a number, all of them to whoever iterates."""

    values: tuple[float, ...]
    trained: bool

    def __new__(cls, values: Sequence[float | None], trained: bool) -> "Objectives":
        known = tuple(math.nan if value is None else value for value in values)
        number = super().__new__(cls, known[0])
        number.values, number.trained = known, trained
        return number

    def __reduce__(self) -> tuple[Any, ...]:
        return Objectives, (self.values, self.trained)

    def __iter__(self) -> Iterator[float]:
        return iter(self.values)


def chosen_by_objectives() -> bool:
    """Whether a sweeper that optimises asks for the running job."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    if not HydraConfig.initialized() or HydraConfig.get().mode != RunMode.MULTIRUN:
        return False
    return not HydraConfig.get().sweeper._target_.endswith(".BasicSweeper")


def multirun_job() -> str | None:
    """The overrides of the running job of a multirun, as typed; None outside one."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

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


@contextmanager
def job_results(failed: Callable[[Sequence[str], Exception], Any]) -> Iterator[list[Objectives]]:
    """Within the block the results of a multirun's jobs are collected, each once.

    The result of a job that failed is failed(overrides, error); Hydra itself prints and raises.
    """
    from hydra.core.utils import JobReturn, JobStatus
    from hydra.types import RunMode

    original = JobReturn.return_value
    results: list[Objectives] = []

    def result(job: JobReturn) -> Any:
        if job.status is JobStatus.FAILED:
            return failed(job.overrides or [], job._return_value)
        value = original.fget(job)
        if (
            job.hydra_cfg.hydra.mode == RunMode.MULTIRUN
            and isinstance(value, Objectives)
            and not any(value is known for known in results)
        ):
            results.append(value)  # a sweeper may ask twice
        return value

    JobReturn.return_value = property(result, original.fset)
    try:
        yield results
    finally:
        JobReturn.return_value = original
