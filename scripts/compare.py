"""Print two or more finished runs side by side: python scripts/compare.py runs/a/RUN runs/b/RUN.

What differs in their configurations, their measures, the final accuracy on each task, and costs.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pandas import DataFrame, Series

from lifelong.config.schema import ConfigError
from lifelong.experiment.errors import one_line_errors
from lifelong.plots.report.runs import BYTES, MEASURES, PHASES, read_run
from lifelong.plots.report.tables import DASH, number
from lifelong.runs.folder import RunFolderError
from terminal import print_table

Run = dict[str, Any]


def finished_run(path: Path) -> Run:
    """Raises RunFolderError if there is none, or it is not finished."""
    run = read_run(path)
    if run["state"] != "finished":
        raise RunFolderError(f"{path} is {run['state']}: {run['reason']}")
    return run


def differences(configs: Sequence[Run]) -> dict[str, list[Any]]:
    """Of every key that differs, its value in each flat configuration; a dash where it has none."""
    keys = dict.fromkeys(key for config in configs for key in config)
    found = {key: [config.get(key, DASH) for config in configs] for key in keys}
    return {key: values for key, values in found.items() if any(value != values[0] for value in values)}


def comparison(runs: Sequence[Run]) -> DataFrame:
    """Cells of text: a column per run, and for two of them their difference."""
    labels = [run["path"].name for run in runs]
    if len(set(labels)) < len(labels):
        labels = [str(run["path"]) for run in runs]
    changes = differences([{"seed": run["seed"], **run["config"]} for run in runs])
    rows = {key: [*map(str, values), ""] for key, values in changes.items()}
    final = [dict(zip(run["tasks"], run["matrix"][-1], strict=True)) for run in runs]
    tasks = dict.fromkeys(name for accuracies in final for name in accuracies)
    found = [
        *((name, [run.get(key) for run in runs], 100, 1) for key, name in MEASURES.items()),
        *((f"final accuracy, {task}", [accuracies.get(task) for accuracies in final], 100, 1) for task in tasks),
        *((f"{phase} (s)", [run.get(f"{phase}_seconds") for run in runs], 1, 2) for phase in PHASES),
        *((name, [run.get(key) for run in runs], 1e-6, 2) for key, name in BYTES.items()),
    ]
    for name, values, scale, digits in found:
        column = Series(values, dtype=float) * scale
        change = number(column.iloc[-1] - column.iloc[0], digits)
        if column.notna().any():
            rows[name] = [*(number(v, digits) for v in column), "+" * (not change.startswith(("-", DASH))) + change]
    table = DataFrame([[name, *cells] for name, cells in rows.items()], columns=["", *labels, "second − first"])
    return table if len(runs) == 2 else table.drop(columns="second − first")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, two or more")
    paths = parser.parse_args(arguments).runs
    if len(paths) < 2:
        raise ConfigError(f"RUN must be two or more run folders, got {paths[0]}")
    runs = [finished_run(path) for path in paths]
    print_table(comparison(runs), caption="measures and accuracies in points of 100")


if __name__ == "__main__":
    with one_line_errors():
        main()
