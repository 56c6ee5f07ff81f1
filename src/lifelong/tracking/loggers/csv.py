"""metrics.csv: the history's numbers as a table."""

import warnings

from lightning.pytorch.loggers import CSVLogger

from lifelong.tracking.about import About
from lifelong.tracking.history import numbers, read_history


def csv_logger(about: About) -> CSVLogger:
    """Lightning's CSVLogger: metrics.csv in the run folder. It begins anew: a resumed run's earlier rows come first,
    from the history, which has no costs."""
    logger = CSVLogger(about.folder, name="", version="")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Experiment logs directory .* exists and is not empty")
        logger.experiment  # noqa: B018 - makes the writer, which warns
    for row in read_history(about.folder / "history.jsonl"):
        logger.log_metrics(dict(numbers(row)), row["step"])
    return logger
