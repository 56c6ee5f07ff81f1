"""The end of a run that was asked to stop."""

import signal


class Interrupted(BaseException):
    """SIGINT or SIGTERM came. Not an Exception: a multirun is to stop as well, not to go on with its next job."""

    def __init__(self, signum: int, then: str = "") -> None:
        super().__init__(f"interrupted by {signal.Signals(signum).name}" + (f"; {then}" if then else ""))
        self.signum = signum
