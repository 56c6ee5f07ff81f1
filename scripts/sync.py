"""Upload W&B runs below a folder that are not there yet: python scripts/sync.py runs --jobs 4 (make sync)

Offline runs, and online ones whose server went away: W&B is handed the rows it lacks, each with its media, and the
measures. Run it again as often as you like: what the server has is not sent again. An upload that fails for the moment
(429, 5xx, no answer) is tried again, each time after about twice as long.
"""

import argparse
import os
import random
import re
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import OmegaConf

from lifelong.config.checks import check_group
from lifelong.experiment.errors import one_line_errors
from lifelong.experiment.loggers import log_again
from lifelong.runs.folder import RunFolder
from lifelong.tracking.loggers.wandb import is_uploaded, try_online_again

PASSING = re.compile(r"\b(429|5\d\d)\b|timed? ?out|no answer|connect|reset|unreachable", re.IGNORECASE)
"""What W&B says of failures that another try may mend."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds before the second try, and the most before any."""


def upload(folder: Path, retries: int) -> tuple[str, str]:
    """Upload the run unless it is there: what became of it, and why if it was not uploaded."""
    config: Any = OmegaConf.load(folder / "config.yaml")
    if is_uploaded(folder) or "wandb" not in config.logger:
        return "uploaded before", ""
    check_group(config, "logger.wandb")  # a stranger's config.yaml could name any function
    reason = ""
    try:
        with FileLock(folder / ".lock", blocking=False):
            for number in range(retries + 1):
                try_online_again()
                reason = log_again(config, RunFolder(folder))
                if is_uploaded(folder):
                    return "uploaded", ""
                if not PASSING.search(reason) or number == retries:
                    break
                time.sleep(wait(number))
    except Timeout:
        return "in work", ""
    return "not uploaded", reason


def wait(number: int) -> float:
    """Seconds before try `number` + 2: doubled each time, and by chance up to half as short or as long again.

    So uploads that failed together do not come back together.
    """
    return min(FIRST_WAIT * 2**number, LONGEST_WAIT) * random.uniform(0.5, 1.5)


def uploads(folders: Sequence[Path], jobs: int, retries: int) -> Iterator[tuple[Path, str, str]]:
    """(folder, outcome, reason) as each is done; in `jobs` processes, as W&B keeps its settings for a process."""
    if jobs == 1:
        yield from ((folder, *upload(folder, retries)) for folder in folders)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        begun = {pool.submit(partial(upload, folder, retries)): folder for folder in folders}
        yield from ((begun[done], *done.result()) for done in as_completed(begun))


def at_least(lowest: int, text: str) -> int:
    """The number; raises ArgumentTypeError for one below `lowest`, and for other texts."""
    if not text.isdecimal() or int(text) < lowest:
        raise argparse.ArgumentTypeError(f"must be an integer >= {lowest}, got {text!r}")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs"))
    jobs, retries = partial(at_least, 1), partial(at_least, 0)
    parser.add_argument("--jobs", type=jobs, default=1, metavar="N", help="uploads at a time, 1 or more")
    parser.add_argument("--retries", type=retries, default=5, metavar="N", help="further tries of an upload")
    args = parser.parse_args(arguments)
    root: Path = args.folder
    if not root.is_dir():
        sys.exit(f"error: {root} is not a folder")
    os.environ["WANDB_MODE"] = "online"
    outcomes = []
    with one_line_errors():
        folders = [path.parents[1] for path in sorted(root.glob("**/wandb/rows.jsonl"))]
        for folder, outcome, reason in uploads(folders, args.jobs, args.retries):
            outcomes.append(outcome)
            print(f"{outcome}: {folder}" + f" ({reason})" * bool(reason), flush=True)
    words = ("uploaded", "uploaded before", "not uploaded", "in work")
    print(f"{root}: {', '.join(f'{outcomes.count(word)} {word}' for word in words)}")
    return int("not uploaded" in outcomes)


if __name__ == "__main__":
    sys.exit(main())
