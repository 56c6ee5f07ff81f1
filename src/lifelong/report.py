"""Tables from run folders: what is finished is averaged over seeds, what is not is listed."""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

Metrics = Mapping[str, Any]
Cell = tuple[float, float]


def read_runs(folder: Path) -> tuple[list[dict[str, Any]], list[Path]]:
    """(metrics of the finished runs below `folder`, folders of the unfinished ones), each sorted by path.

    Raises:
        FileNotFoundError: no run below `folder`.
    """
    configs = sorted(folder.glob("**/config.yaml"))
    if not configs:
        raise FileNotFoundError(f"no run folder below {folder}")
    finished = [json.loads((c.parent / "metrics.json").read_text()) for c in configs if _is_finished(c.parent)]
    return finished, [c.parent for c in configs if not _is_finished(c.parent)]


def _is_finished(run: Path) -> bool:
    return (run / "metrics.json").exists()


def grouped(runs: Iterable[Metrics], keys: Sequence[str]) -> dict[tuple[Any, ...], list[Metrics]]:
    """Runs that share the values of `keys`, in the order in which those were met."""
    groups: dict[tuple[Any, ...], list[Metrics]] = defaultdict(list)
    for run in runs:
        groups[tuple(run.get(key) for key in keys)].append(run)
    return dict(groups)


def mean_and_std(values: Sequence[float]) -> Cell:
    """Mean and sample standard deviation (nan for a single value)."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else float("nan")
