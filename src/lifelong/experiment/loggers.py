"""The loggers of a run, from its configuration."""

import json
import os
from typing import Any

from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from lifelong.config.build import build
from lifelong.config.schema import choice
from lifelong.runs.folder import RunFolder
from lifelong.runs.identity import title
from lifelong.tracking import About

START_SECONDS, UPLOAD_SECONDS = 120.0, 600.0
"""How long W&B's client tries again to have a run taken up, and all its rows with their media."""


def make_loggers(config: DictConfig, folder: RunFolder, run_id: str | None = None) -> list[Logger]:
    """All that the configuration names; they begin with the rows that history.jsonl holds now. run_id: None: the
    folder's name."""
    plain: Any = OmegaConf.to_container(config, resolve=True)
    about = About(folder.path, run_id or folder.path.name, title(config), choice(config, "method"), plain)
    return [build(node, f"logger.{name}", about=about) for name, node in config.logger.items()]


def log_again(config: DictConfig, folder: RunFolder) -> str:
    """Hand W&B what it lacks of a run that nobody trains: rows, and the measures if the run is finished.

    A trial that a W&B agent began goes on under the id that the agent gave it. Returns why W&B did not take it, or "".
    WANDB_MODE alone says whether the run is online.
    """
    from lifelong.tracking.loggers.wandb import at_server

    alone = OmegaConf.merge(config, {})
    patient = {"mode": None, "init_timeout": START_SECONDS, "finish_timeout": UPLOAD_SECONDS}
    alone.logger = {"wandb": {**config.logger.wandb, **patient}}
    (logger,) = make_loggers(alone, folder, at_server(folder.path)[0])  # type: ignore[arg-type]
    if folder.finished:
        logger.summarise(json.loads(folder.metrics.read_text()))  # type: ignore[attr-defined]
    logger.close("success" if folder.finished else "failed")  # type: ignore[attr-defined]
    return logger.failure  # type: ignore[attr-defined]


def log_for_agent(config: DictConfig, folder: RunFolder) -> None:
    """Log a run that was finished before to the W&B run of the agent that asks for it; it waits for the objective."""
    if "WANDB_SWEEP_ID" in os.environ and "wandb" in config.logger:
        log_again(config, folder)
