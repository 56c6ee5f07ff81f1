"""A logger that takes its time: a run as short as it may be, and yet long enough to be disturbed. Moves no number."""

import os
import time

from lightning.pytorch.loggers import CSVLogger, Logger

from lifelong.tracking.about import About
from lifelong.tracking.loggers.wandb import wandb_logger

SECONDS = "THROTTLE_SECONDS"
"""Environment variable: seconds a row of the history takes, until the job is queued again."""


class Throttle(CSVLogger):
    """Sleeps where others write."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if "SLURM_RESTART_COUNT" not in os.environ:
            time.sleep(float(os.environ[SECONDS]))

    def finalize(self, status: str) -> None:
        pass


def throttled(about: About) -> list[Logger]:
    return [Throttle(about.folder)]


def throttled_wandb(about: About) -> list[Logger]:
    return [*wandb_logger(about, "tests", None, None, [], 20.0, 30.0), Throttle(about.folder)]
