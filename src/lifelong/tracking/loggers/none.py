"""No logger."""

from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger


def no_logger(folder: Path, run_id: str, config: dict[str, Any]) -> list[Logger]:
    """history.jsonl alone."""
    return []
