"""Worker processes of a command on this machine, forked: what the command has loaded and planned they have at once."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import active_children, get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.pool import ExceptionWithTraceback  # type: ignore[attr-defined]
from multiprocessing.process import BaseProcess
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
    before it is raised here. A worker ends with its work, or with this process.

    Raises:
        Interrupted: a signal came.
        WorkerError: a worker was killed, or told to stop; the others are told too.
        Exception: what `work` has raised; the other workers have gone on to their end.
    """
    if num < 2:
        yield map(work, range(num))
        return
    workers: dict[Connection, BaseProcess] = {}
    with _signals_passed_on():
        try:
            _start(workers, work, num)
            yield _received([*workers])
        finally:
            for reader in workers:  # who still sends need not wait for a reader
                reader.close()
            for worker in workers.values():
                worker.join()


def _start(workers: dict[Connection, BaseProcess], work: Callable[[int], Any], num: int) -> None:
    """Start the workers, by where their results come in. A signal meanwhile waits until all of them can be told."""
    fork = get_context("fork")
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        for i in range(num):
            reader, writer = fork.Pipe(duplex=False)
            worker = fork.Process(target=_do, args=(work, i, [*workers, reader], writer, os.getpid()))
            worker.start()
            writer.close()
            workers[reader] = worker
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _do(work: Callable[[int], Any], i: int, readers: Sequence[Connection], writer: Connection, parent: int) -> None:
    """The i-th worker. In a process group of its own it gets a terminal's signal once: from its command."""
    os.setpgid(0, 0)
    for signum in SIGNALS:
        signal.signal(signum, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    for reader in readers:
        reader.close()
    result: tuple[Any, Any] = (None, None)
    try:
        with ended_with(parent):
            result = (work(i), None)
    except Interrupted as stop:
        sys.exit(128 + stop.signum)
    except Exception as error:
        result = (None, ExceptionWithTraceback(error, error.__traceback__))
    with suppress(BrokenPipeError):
        writer.send(result)


def _received(readers: Sequence[Connection]) -> Iterator[Any]:
    found: dict[Any, Any] = {}
    while left := [reader for reader in readers if reader not in found]:
        reader: Any
        for reader in wait(left):
            try:
                found[reader], error = reader.recv()
            except EOFError:
                _tell_workers(signal.SIGTERM)
                raise WorkerError("a worker process was stopped; the same command continues") from None
            if error is not None:
                raise error
    yield from (found[reader] for reader in readers)


def _tell_workers(signum: int) -> None:
    for worker in active_children():
        os.kill(worker.pid or 0, signum)


@contextmanager
def _signals_passed_on() -> Iterator[None]:
    def stop(signum: int, _: FrameType | None) -> None:
        _tell_workers(signum)
        raise Interrupted(signum, "the same command continues")

    with handlers_put_back(stop):
        yield
