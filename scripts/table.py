"""Print mean ± std over seeds of the runs below a folder: python scripts/table.py runs/methods."""

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from lifelong.plots.report.interval import mean_and_std
from lifelong.plots.report.runs import Metrics, grouped, read_runs

KEYS = ("dataset", "source", "scenario", "order", "cycles", "method", "memory", "strength")
POINTS = ("average_accuracy", "val_average_accuracy", "forgetting", "learning_accuracy")


def seconds(run: Metrics) -> float:
    return sum(value for key, value in run.items() if key.endswith("_seconds"))


def cell(values: list[float], scale: float, digits: int) -> str:
    if any(value is None for value in values):
        return "undefined"
    mean, std = mean_and_std([scale * value for value in values])
    return f"{mean:.{digits}f}" + ("" if math.isnan(std) else f" ± {std:.{digits}f}")


def table(runs: Sequence[Metrics]) -> Table:
    """One row per group of KEYS, best average accuracy first; columns of KEYS that do not vary are left out."""
    runs = [{**run, "order": str(run.get("order"))} for run in runs]
    shown = [key for key in KEYS if len({run.get(key) for run in runs}) > 1 or key == "method"]
    if len(grouped(runs, [*shown, "setting"])) > len(grouped(runs, shown)):
        shown.append("setting")  # runs that differ in what no other column shows are no seeds of one another
    result = Table(caption="points of 100; mean ± sample standard deviation over seeds", caption_justify="left")
    headings = [*shown, "seeds", "test ACC", "val ACC", "forgetting", "learning ACC", "seconds"]
    for heading in headings:
        result.add_column(heading, justify="left" if heading in ("method", "memory", "dataset") else "right")
    groups = grouped(runs, shown)
    for values, members in sorted(groups.items(), key=lambda g: -mean_and_std([r[POINTS[0]] for r in g[1]])[0]):
        measures = [cell([run[key] for run in members], 100, 1) for key in POINTS]
        labels = [f"{v:g}" if isinstance(v, float) else str(v) for v in values]
        result.add_row(*labels, str(len(members)), *measures, cell([seconds(r) for r in members], 1, 0))
    return result


def print_runs(description: str | None, table: Callable[[Sequence[Metrics]], Table]) -> None:
    """The command line of a table: the folder it reads, the finished runs as `table` shows them, the others by name."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("folder", type=Path, help="runs/<name>, or any folder above run folders")
    console = Console()
    console.width = max(console.width, 130)  # in a file or a narrow window: a line may wrap, a number may not be cut
    try:
        runs = read_runs(parser.parse_args().folder)
    except FileNotFoundError as error:
        parser.exit(1, f"error: {error}\n")
    if finished := [run.metrics for run in runs if run.finished]:
        console.print(table(finished))
    for run in runs:
        if not run.finished:
            console.print(f"{run.state}: {run.path} ({run.reason})", highlight=False)


if __name__ == "__main__":
    print_runs(__doc__, table)
