"""A logger that takes its time: a run as short as it may be, and yet long enough to be disturbed. Moves no number."""

import os
import time

from lightning.pytorch.loggers import CSVLogger

from lifelong.tracking.about import About

SECONDS = "THROTTLE_SECONDS"
"""Environment variable: seconds a row of the history takes, until the job is queued again."""


class Throttle(CSVLogger):
    """Sleeps where others write."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if "SLURM_RESTART_COUNT" not in os.environ:
            time.sleep(float(os.environ[SECONDS]))

    def finalize(self, status: str) -> None:
        pass


def throttled(about: About) -> Throttle:
    return Throttle(about.folder)
