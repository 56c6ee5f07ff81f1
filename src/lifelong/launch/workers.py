"""Worker processes of a command on this machine, forked: what the command has loaded and planned they have at once."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from types import FrameType
from typing import Any, TypeVar

from lifelong.launch.jobs import ended_with
from lifelong.runs.interrupted import SIGNALS, Interrupted, handlers_put_back

Found = TypeVar("Found")


class WorkerError(RuntimeError):
    """A worker process ended in the midst of its work."""


def num_cores() -> int:
    """Cores that this process may run on; 1 where the system does not say, which is where a fork is not safe either."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


@contextmanager
def in_workers(work: Callable[[int], Found], num: int) -> Iterator[Iterator[Found]]:
    """Within it work(0), …, work(num - 1) are done, each in a process of its own; a single one in this process.

    Yields what they return, in order. `work` keeps to one torch thread: the OpenMP of a process that has used several
    does not outlive a fork, nor does CUDA. A signal that asks this process to stop is passed on, and all workers end
    before it is raised here.

    Raises:
        Interrupted: a signal came.
        WorkerError: a worker was killed, or told to stop; the others are told too.
        Exception: what `work` has raised; the other workers have gone on to their end.
    """
    if num < 2:
        yield map(work, range(num))
        return
    try:
        with _signals_passed_on(), ProcessPoolExecutor(num, get_context("fork"), _begin, (work, os.getpid())) as pool:
            yield pool.map(_done, range(num))
    except BrokenProcessPool:
        raise WorkerError("a worker process was stopped; the same command continues") from None


_work: Callable[[int], Any]
"""In a worker: what it does. A closure is no message to another process, but a forked one has it."""


def _begin(work: Callable[[int], Any], parent: int) -> None:
    """In a process group of its own a worker gets a terminal's signal once: from its command."""
    global _work
    _work = ended_with(parent)(work)
    os.setpgid(0, 0)
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_DFL)


def _done(i: int) -> Any:
    try:
        return _work(i)
    except Interrupted as stop:
        sys.stdout.flush()
        os._exit(128 + stop.signum)  # to an executor it would be a result, and the worker would wait for more to do


@contextmanager
def _signals_passed_on() -> Iterator[None]:
    def stop(signum: int, _: FrameType | None) -> None:
        for worker in active_children():
            os.kill(worker.pid or 0, signum)
        raise Interrupted(signum, "the same command continues")

    with handlers_put_back(stop):
        yield
