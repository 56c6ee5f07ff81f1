"""A logger that takes its time: a run as short as it may be, and yet long enough to be disturbed. Moves no number."""

import os
import time
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger

from lifelong.tracking import wandb_logger

SECONDS = "THROTTLE_SECONDS"
"""Environment variable: seconds a row of the history takes."""


class Throttle(CSVLogger):
    """Sleeps where others write."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        time.sleep(float(os.environ[SECONDS]))

    def finalize(self, status: str) -> None:
        pass


def throttled(folder: Path, run_id: str, config: dict[str, Any]) -> list[Logger]:
    return [Throttle(folder)]


def throttled_wandb(folder: Path, run_id: str, config: dict[str, Any]) -> list[Logger]:
    return [*wandb_logger(folder, run_id, config, "tests", None, []), Throttle(folder)]
