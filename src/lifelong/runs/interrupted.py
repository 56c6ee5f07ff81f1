"""The end of a run that was asked to stop."""

import signal

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
"""Those that ask a run to stop; the last is a scheduler's warning of its time limit."""


class Interrupted(BaseException):
    """SIGINT, SIGTERM or SIGUSR2 came. Not an Exception: a multirun is to stop too, not to go on with its next job."""

    def __init__(self, signum: int, then: str = "") -> None:
        super().__init__(signum, then)
        self.signum, self.then = signum, then

    def __str__(self) -> str:
        return f"interrupted by {signal.Signals(self.signum).name}" + (f"; {self.then}" if self.then else "")
