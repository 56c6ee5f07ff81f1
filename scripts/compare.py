"""Print two or more finished runs side by side: python scripts/compare.py runs/a/RUN runs/b/RUN.

What differs in their configurations, their measures, the final accuracy on each task, and costs.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from lifelong.config.schema import ConfigError
from lifelong.experiment.errors import one_line_errors
from lifelong.plots.report.runs import Run, read_run
from lifelong.plots.report.tables import MEASURES, PHASES
from lifelong.runs.folder import RunFolderError

ABSENT = "–"
BYTES = ("peak_memory_bytes", "penalty_state_bytes", "memory_bytes")


def finished_run(path: Path) -> Run:
    """Raises RunFolderError if there is none, or it is not finished."""
    if not (path / "config.yaml").exists():
        raise RunFolderError(f"{path} is no run folder: it has no config.yaml")
    run = read_run(path)
    if not run.finished:
        raise RunFolderError(f"{path} is {run.state}: {run.reason}")
    return run


def differences(runs: Sequence[Run]) -> dict[str, list[Any]]:
    """Of every key of the configuration that differs, the seed too: its value in each run, ABSENT where it has none."""
    configs = [{"seed": run.seed, **run.config} for run in runs]
    keys = dict.fromkeys(key for config in configs for key in config)
    found = {key: [config.get(key, ABSENT) for config in configs] for key in keys}
    return {key: values for key, values in found.items() if any(value != values[0] for value in values)}


def numbers(values: Sequence[float | None], scale: float, digits: int) -> list[str]:
    """Of each run; of two runs, the second less the first behind them."""
    cells = [ABSENT if value is None else f"{scale * value:.{digits}f}" for value in values]
    if len(values) == 2:
        first, second = values
        cells.append(
            ABSENT
            if first is None or second is None
            else f"{round(scale * (second - first), digits) + 0.0:+.{digits}f}"
        )
    return cells


def comparison(runs: Sequence[Run]) -> Table:
    """A column per run, and for two of them their difference."""
    table = Table(caption="measures and accuracies in points of 100", caption_justify="left")
    table.add_column("")
    labels = [run.path.name for run in runs]
    if len(set(labels)) < len(labels):
        labels = [str(run.path) for run in runs]
    for label in [*labels, *(["second − first"] if len(runs) == 2 else [])]:
        table.add_column(label, justify="right", overflow="fold")
    for key, values in differences(runs).items():
        table.add_row(key, *map(str, values))
    table.add_section()
    for key, name in MEASURES.items():
        table.add_row(name, *numbers([run.metrics.get(key) for run in runs], 100, 1))
    table.add_section()
    finals = [final_accuracies(run) for run in runs]
    for task in dict.fromkeys(name for final in finals for name in final):
        table.add_row(f"final accuracy, {task}", *numbers([final.get(task) for final in finals], 100, 1))
    table.add_section()
    for label, costs in _costs([run.metrics for run in runs]).items():
        table.add_row(label, *numbers(costs, 1, 2))
    return table


def final_accuracies(run: Run) -> dict[str, float]:
    """Of each task by name: the last row of the accuracy matrix."""
    names, rows = run.matrix
    return dict(zip(names, rows[-1], strict=True))


def _costs(metrics: Sequence[Mapping[str, Any]]) -> dict[str, list[float | None]]:
    seconds = {f"{phase} (s)": [m.get(f"{phase}_seconds") for m in metrics] for phase in PHASES}
    sizes = {key: [m.get(key) for m in metrics] for key in BYTES}
    return seconds | {
        f"{key.removesuffix('_bytes').replace('_', ' ')} (MB)": [None if v is None else v / 1e6 for v in values]
        for key, values in sizes.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, two or more")
    paths = parser.parse_args().runs
    if len(paths) < 2:
        raise ConfigError(f"RUN must be two or more run folders, got {paths[0]}")
    table = comparison([finished_run(path) for path in paths])
    console = Console()
    console.width = max(console.width, 40 + 44 * len(paths))  # a line may wrap, a number may not be cut
    console.print(table)


if __name__ == "__main__":
    with one_line_errors():
        main()
