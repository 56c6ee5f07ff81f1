"""The end of a run that was asked to stop."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
"""Those that ask a run to stop; the last is a scheduler's warning of its time limit."""


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGUSR2 came. Not an Exception: a multirun is to stop too, not to go on with its next job."""

    def __init__(self, signum: int, then: str = "") -> None:
        super().__init__(signum, then)
        self.signum, self.then = signum, then

    def __str__(self) -> str:
        return f"interrupted by {signal.Signals(self.signum).name}" + (f"; {self.then}" if self.then else "")


@contextmanager
def handlers_put_back(handler: Callable[[int, FrameType | None], None] | None = None) -> Iterator[bool]:
    """Within the block `handler`, if there is one, handles SIGNALS; afterwards they are handled as before.

    Yields whether this is the main thread: elsewhere Python allows no handlers.
    """
    here = threading.current_thread() is threading.main_thread()
    before = {signum: signal.getsignal(signum) for signum in SIGNALS if here}
    try:
        for signum in before if handler else ():
            signal.signal(signum, handler)
        yield here
    finally:
        for signum, old in before.items():
            signal.signal(signum, old)
