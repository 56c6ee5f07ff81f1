"""Upload W&B runs below a folder that are not there yet: python scripts/sync.py runs (make sync)

Offline runs, and online ones whose server went away; `wandb sync` does the work. The parts of an interrupted run are
uploaded in the order in which they were made, each when those before it are. Run it again as often as you like: what is
uploaded is marked, and skipped.
"""

import argparse
import os
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

COMMAND = (sys.executable, "-m", "wandb", "sync", "--include-online")


def logs(root: Path) -> list[Path]:
    """W&B's files below `root`, oldest first; not those of online runs that the server never took up: no rows there."""
    found = root.glob("**/wandb/*run-*/run-*.wandb")
    taken_up = (p for p in found if p.parent.name.startswith("offline-") or p.with_suffix(".wandb.syncstate").exists())
    return sorted(taken_up, key=lambda path: (_stamp(path), path))


def _stamp(path: Path) -> str:
    """20260131_235959 of offline-run-20260131_235959-RUN_ID."""
    found = re.search(r"run-(\d{8}_\d{6})-", path.parent.name)
    return found.group(1) if found else ""


def uploaded(path: Path) -> bool:
    return path.with_name(f"{path.name}.synced").exists()


def rounds(paths: Iterable[Path]) -> Iterator[list[Path]]:
    """One part of each run at a time."""
    parts: dict[Path, list[Path]] = defaultdict(list)
    for path in paths:
        parts[path.parents[2]].append(path)
    for k in range(max(map(len, parts.values()), default=0)):
        yield [own[k] for own in parts.values() if k < len(own)]


def in_work(run_folder: Path) -> bool:
    """Whether a process trains the run."""
    try:
        with FileLock(run_folder / ".lock", blocking=False):
            return False
    except Timeout:
        return True


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("runs"))
    root: Path = parser.parse_args(arguments).folder
    if not root.is_dir():
        sys.exit(f"error: {root} is not a folder")
    found = logs(root)
    busy = {path for path in found if in_work(path.parents[2])}
    waiting = [path for path in found if not uploaded(path) and path not in busy]
    online = {name: value for name, value in os.environ.items() if name != "WANDB_MODE"}
    failed: list[Path] = []
    for paths in rounds(waiting):
        ready = [path for path in paths if path.parents[2] not in {p.parents[2] for p in failed}]
        if ready:
            subprocess.run([*COMMAND, *map(str, (path.parent for path in ready))], env=online, check=False)
            failed += [path for path in ready if not uploaded(path)]
    done = sum(map(uploaded, waiting))
    print(
        f"{root}: {done} uploaded, {len(found) - len(waiting) - len(busy)} uploaded before, "
        f"{len(waiting) - done} not uploaded, {len(busy)} in work"
    )
    return 1 if done < len(waiting) else 0


if __name__ == "__main__":
    sys.exit(main())
