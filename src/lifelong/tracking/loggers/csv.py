"""metrics.csv: the history's numbers as a table."""

import warnings
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger

from lifelong.tracking.history import numbers, read_history


def csv_logger(folder: Path, run_id: str, config: dict[str, Any]) -> list[Logger]:
    """Lightning's CSVLogger: metrics.csv in the run folder. It begins anew: a resumed run's earlier rows come first."""
    logger = CSVLogger(folder, name="", version="")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Experiment logs directory .* exists and is not empty")
        logger.experiment  # noqa: B018 - makes the writer, which warns
    for row in read_history(folder / "history.jsonl"):
        logger.log_metrics(dict(numbers(row)), row["step"])
    return [logger]
