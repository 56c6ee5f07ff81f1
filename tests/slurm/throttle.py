"""A logger that holds a run where it is to be disturbed, however busy the machine. Moves no number."""

import os
import select
import signal

from lightning.pytorch.loggers import CSVLogger

from lifelong.runs.interrupted import SIGNALS
from lifelong.tracking.about import About

TASK = "THROTTLE_TASK"
"""Environment variable: index of the task after whose first epoch the run waits for a signal."""
PATIENCE = "THROTTLE_SECONDS"
"""Environment variable: how long each row waits for it."""


class Throttle(CSVLogger):
    """Waits where others write, unless a signal has come or the job has been queued again."""

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self._signals, woken = os.pipe()
        os.set_blocking(woken, False)
        signal.set_wakeup_fd(woken)  # Python writes the numbers of all signals there that have a handler, SIGCONT too
        self._waits = "SLURM_RESTART_COUNT" not in os.environ

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        there = metrics["task"] >= int(os.environ[TASK]) and metrics.get("epoch", 0) >= 1
        while there and self._waits and select.select([self._signals], [], [], float(os.environ[PATIENCE]))[0]:
            self._waits = os.read(self._signals, 1)[0] not in SIGNALS

    def finalize(self, status: str) -> None:
        pass


def throttled(about: About) -> Throttle:
    return Throttle(str(about.folder))
