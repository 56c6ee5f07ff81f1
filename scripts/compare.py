"""Print two or more finished runs side by side: python scripts/compare.py runs/a/RUN runs/b/RUN.

What differs in their configurations, their measures, the final accuracy on each task, and costs.

--seeds: runs that differ in the seed alone are one row, and rows are tested against that of the first run, paired by
seed: python scripts/compare.py --seeds runs/methods/ewc-* runs/methods/mas-*
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pandas import DataFrame, Series

from lifelong.config.schema import ConfigError
from lifelong.experiment.errors import one_line_errors
from lifelong.plots.report.names import entry_name
from lifelong.plots.report.runs import BYTES, MEASURES, PHASES, read_run, tabulated
from lifelong.plots.report.significance import LEVEL, pairs_needed
from lifelong.plots.report.tables import DASH, comparison_table, number, shown_measures
from lifelong.runs.folder import RunFolder, RunFolderError
from terminal import print_table

Run = dict[str, Any]


def finished_run(path: Path) -> Run:
    """Raises RunFolderError if there is none, or it is not finished."""
    RunFolder(path).read_config()  # says so if this is no run folder
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


def over_seeds(runs: Sequence[Run]) -> tuple[DataFrame, str]:
    """(runs, as read_runs has them, a line per method and strength; the line of the first run).

    Raises:
        ConfigError: runs of several streams, or of a single line.
    """
    table = tabulated(runs)
    if table["section"].nunique() > 1:
        raise ConfigError(f"RUN must be runs of one stream, got {'; '.join(table['section'].unique())}")
    names = [entry_name(line, strength) for line, strength in zip(table["line"], table["strength"], strict=True)]
    table = table.assign(line=names)
    if table["line"].nunique() < 2:
        raise ConfigError(f"RUN must be runs of two or more methods or strengths, got {names[0]} alone")
    return table, table.loc[table["path"] == runs[0]["path"], "line"].iloc[0]


def print_tests(table: DataFrame, first: str) -> None:
    """A table per measure that some run has, and how many seeds a small p-value takes."""
    caption = f"points of 100; difference: from {first} over pairs of runs of one seed, p: paired permutation test"
    for key in shown_measures(table):
        print_table(comparison_table(table, first, key), MEASURES[key], caption)
    num_tests = table["line"].nunique() - 1
    print(f"The smallest p of n pairs is 2/2ⁿ: one below {LEVEL:g} takes {pairs_needed()} seeds or more,", end=" ")
    print(f"after Holm's correction for {num_tests} comparison(s) {pairs_needed(num_tests)}.")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run folders, two or more")
    parser.add_argument("--seeds", action="store_true", help="average and test runs that differ in the seed alone")
    args = parser.parse_args(arguments)
    paths = args.runs
    if len(paths) < 2:
        raise ConfigError(f"RUN must be two or more run folders, got {paths[0]}")
    runs = [finished_run(path) for path in paths]
    if args.seeds:
        print_tests(*over_seeds(runs))
    else:
        print_table(comparison(runs), caption="measures and accuracies in points of 100")


if __name__ == "__main__":
    with one_line_errors():
        main()
