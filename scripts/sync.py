"""Upload W&B runs below a folder that are not there yet: python scripts/sync.py runs --jobs 4 (make sync)

Offline runs, and online ones whose server went away: W&B is handed the rows it lacks, each with its media, and the
measures. Run it again as often as you like: what the server has is not sent again. W&B's client tries a request again,
after waits that double, if the server answers 429 or 5xx or not at all; one that is refused (401, 403) ends the upload.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lifelong.config.checks import check_group
from lifelong.experiment.errors import explain, one_line_errors
from lifelong.experiment.loggers import log_again
from lifelong.runs.folder import RunFolder
from lifelong.tracking.loggers.wandb import is_uploaded, try_online_again


def upload(folder: Path) -> tuple[str, str]:
    """Upload the run unless it is there: what became of it, and why if it was not uploaded."""
    try:
        return _uploaded(folder)
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        return "not uploaded", message


def _uploaded(folder: Path) -> tuple[str, str]:
    config: Any = RunFolder(folder).read_config()
    if is_uploaded(folder):
        return "uploaded before", ""
    if "wandb" not in config.logger:
        return "not uploaded", "it was resumed without logger=wandb"
    check_group(config, "logger.wandb")  # a stranger's config.yaml could name any function
    try:
        with FileLock(folder / ".lock", blocking=False):
            try_online_again()
            reason = log_again(config, RunFolder(folder))
    except Timeout:
        return "in work", ""
    return ("uploaded", "") if is_uploaded(folder) else ("not uploaded", reason)


def uploads(folders: Sequence[Path], jobs: int) -> Iterator[tuple[Path, str, str]]:
    """(folder, outcome, reason) as each is done; in `jobs` processes, as W&B keeps its settings for a process."""
    if jobs == 1:
        yield from ((folder, *upload(folder)) for folder in folders)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        begun = {pool.submit(upload, folder): folder for folder in folders}
        for done in as_completed(begun):
            lost = isinstance(done.exception(), BrokenProcessPool)
            yield begun[done], *(("not uploaded", "a process of --jobs was killed") if lost else done.result())


def at_least_one(text: str) -> int:
    """The number; raises ArgumentTypeError for one below 1, and for other texts."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be an integer >= 1, got {text!r}")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs"))
    parser.add_argument("--jobs", type=at_least_one, default=1, metavar="N", help="uploads at a time, 1 or more")
    args = parser.parse_args(arguments)
    root: Path = args.folder
    if not root.is_dir():
        sys.exit(f"error: {root} is not a folder")
    os.environ["WANDB_MODE"] = "online"
    outcomes = []
    with one_line_errors():
        folders = [path.parents[1] for path in sorted(root.glob("**/wandb/rows.jsonl"))]
        for folder, outcome, reason in uploads(folders, args.jobs):
            outcomes.append(outcome)
            print(f"{outcome}: {folder}" + f" ({reason})" * bool(reason), flush=True)
    words = ("uploaded", "uploaded before", "not uploaded", "in work")
    print(f"{root}: {', '.join(f'{outcomes.count(word)} {word}' for word in words)}")
    return int("not uploaded" in outcomes)


if __name__ == "__main__":
    sys.exit(main())
