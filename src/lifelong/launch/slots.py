"""Which GPU a job of a parallel multirun takes: the one at which the fewest jobs of this user sit."""

import getpass
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from filelock import FileLock, Timeout


@contextmanager
def gpu_slot(num_gpus: int, folder: Path | None = None) -> Iterator[int]:
    """Hold a seat at one of `num_gpus` GPUs; a process that dies gives its seat back.

    folder: of the seats' locks; by default one for the user on this machine.
    """
    folder = folder or Path(tempfile.gettempdir()) / f"lifelong-gpus-{getpass.getuser()}"
    folder.mkdir(parents=True, exist_ok=True)
    for seat, gpu in ((seat, gpu) for seat in count() for gpu in range(num_gpus)):
        lock = FileLock(folder / f"gpu{gpu}-seat{seat}.lock")
        try:
            lock.acquire(blocking=False)
        except Timeout:
            continue
        try:
            yield gpu
        finally:
            lock.release()
        return
