"""Weights & Biases; the only module that imports wandb."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only


def wandb_logger(
    folder: Path, run_id: str, config: dict[str, Any], project: str, entity: str | None, tags: Sequence[str]
) -> list[Logger]:
    """Weights & Biases: online if the machine is logged in (or WANDB_MODE says so), else offline in the run folder.

    The W&B run id is the run id, so a resumed run goes on in the same W&B run.
    """
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    class StreamLogger(WandbLogger):
        """Logs on the stream's own step axis."""

        @rank_zero_only
        def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
            self.experiment.log({**metrics, "step": step})

    mode = os.environ.get("WANDB_MODE") or ("online" if wandb.login(prompt=False) else "offline")
    settings = wandb.Settings(silent=True, init_timeout=60, console="off", x_disable_stats=True)
    logger = StreamLogger(
        name=run_id, id=run_id, save_dir=folder, project=project, entity=entity, tags=list(tags), config=config,
        resume="allow", mode=mode, settings=settings,
    )  # fmt: skip
    logger._wandb_init.pop("anonymous")  # Lightning hands on an option that W&B warns of
    logger.experiment.define_metric("step")
    logger.experiment.define_metric("*", step_metric="step")
    return [logger]
