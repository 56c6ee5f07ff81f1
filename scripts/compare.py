"""Print two or more finished runs side by side: python scripts/compare.py runs/a/RUN runs/b/RUN.

What differs in their configurations, their measures, the final accuracy on each task, and costs.
"""

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from lifelong.config.schema import ConfigError
from lifelong.experiment.errors import one_line_errors
from lifelong.plots.report.runs import BYTES, MEASURES, PHASES, read_run
from lifelong.plots.report.tables import DASH, number
from lifelong.runs.folder import RunFolderError

Run = dict[str, Any]


def finished_run(path: Path) -> Run:
    """Raises RunFolderError if there is none, or it is not finished."""
    if not (path / "config.yaml").exists():
        raise RunFolderError(f"{path} is no run folder: it has no config.yaml")
    run = read_run(path)
    if run["state"] != "finished":
        raise RunFolderError(f"{path} is {run['state']}: {run['reason']}")
    return run


def differences(configs: Sequence[Run]) -> dict[str, list[Any]]:
    """Of every key that differs, its value in each flat configuration; a dash where it has none."""
    keys = dict.fromkeys(key for config in configs for key in config)
    found = {key: [config.get(key, DASH) for config in configs] for key in keys}
    return {key: values for key, values in found.items() if any(value != values[0] for value in values)}


def comparison(runs: Sequence[Run]) -> Table:
    """A column per run, and for two of them their difference."""
    labels = [run["path"].name for run in runs]
    if len(set(labels)) < len(labels):
        labels = [str(run["path"]) for run in runs]
    table = Table(caption="measures and accuracies in points of 100", caption_justify="left")
    table.add_column("")
    for label in [*labels, *(["second − first"] if len(runs) == 2 else [])]:
        table.add_column(label, justify="right", overflow="fold")

    def add(name: str, values: Iterable[float | None], scale: float, digits: int) -> None:
        column = pd.Series(values, dtype=float) * scale
        change = number(column.iloc[-1] - column.iloc[0], digits)
        signed = change if change.startswith(("-", DASH)) else f"+{change}"
        table.add_row(name, *(number(v, digits) for v in column), *([signed] if len(runs) == 2 else []))

    for key, values in differences([{"seed": run["seed"], **run["config"]} for run in runs]).items():
        table.add_row(key, *map(str, values))
    table.add_section()
    for key, name in MEASURES.items():
        if any(run.get(key) is not None for run in runs):
            add(name, [run.get(key) for run in runs], 100, 1)
    table.add_section()
    final = [dict(zip(run["tasks"], run["matrix"][-1], strict=True)) for run in runs]
    for task in dict.fromkeys(name for accuracies in final for name in accuracies):
        add(f"final accuracy, {task}", [accuracies.get(task) for accuracies in final], 100, 1)
    table.add_section()
    for phase in PHASES:
        add(f"{phase} (s)", [run.get(f"{phase}_seconds") for run in runs], 1, 2)
    for key, name in BYTES.items():
        add(name, [run.get(key) for run in runs], 1e-6, 2)
    return table


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
