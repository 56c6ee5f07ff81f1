"""Upload W&B runs below a folder that are not there yet: python scripts/sync.py runs (make sync)

Offline runs, and online ones whose server went away: W&B is handed the rows it lacks, each with its media, and the
measures. Run it again as often as you like: what the server has is not sent again.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import OmegaConf

from lifelong.config.checks import check_group
from lifelong.experiment.errors import one_line_errors
from lifelong.experiment.loggers import log_again
from lifelong.runs.folder import RunFolder
from lifelong.tracking.loggers.wandb import is_uploaded


def upload(folder: Path) -> str:
    """Upload the run unless it is there; what became of it."""
    config: Any = OmegaConf.load(folder / "config.yaml")
    if is_uploaded(folder) or "wandb" not in config.logger:
        return "uploaded before"
    check_group(config, "logger.wandb")  # a stranger's config.yaml could name any function
    try:
        with FileLock(folder / ".lock", blocking=False):
            log_again(config, RunFolder(folder))
    except Timeout:
        return "in work"
    return "uploaded" if is_uploaded(folder) else "not uploaded"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs"))
    root: Path = parser.parse_args(arguments).folder
    if not root.is_dir():
        sys.exit(f"error: {root} is not a folder")
    os.environ["WANDB_MODE"] = "online"
    with one_line_errors():
        outcomes = [upload(path.parents[1]) for path in sorted(root.glob("**/wandb/rows.jsonl"))]
    words = ("uploaded", "uploaded before", "not uploaded", "in work")
    print(f"{root}: {', '.join(f'{outcomes.count(word)} {word}' for word in words)}")
    return 1 if "not uploaded" in outcomes else 0


if __name__ == "__main__":
    sys.exit(main())
