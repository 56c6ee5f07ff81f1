"""Print how accuracy and forgetting depend on the order of the tasks: python scripts/task_order.py runs/task_order."""

import math
import statistics
from collections.abc import Sequence

from rich.table import Table

from lifelong.plots.report.interval import mean_and_std
from lifelong.plots.report.runs import Metrics, grouped
from table import print_runs

KEYS = ("dataset", "source", "scenario", "cycles", "method", "memory", "strength")
MEASURES = ("average_accuracy", "forgetting")


def order_name(order: Sequence[int]) -> str:
    """given, reversed, or the numbers of the given tasks in the order in which they came."""
    known = {tuple(sorted(order, reverse=True)): "reversed", tuple(sorted(order)): "given"}
    return known.get(tuple(order), " ".join(map(str, order)))


def mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def points(values: Sequence[float | None]) -> str:
    """mean ± std in points of 100; the mean alone of a single value. None (forgetting of a single task): undefined."""
    known = [100 * value for value in values if value is not None]
    if not known:
        return "undefined"
    centre, std = mean_and_std(known)
    return f"{centre:.1f}" + ("" if math.isnan(std) else f" ± {std:.1f}")


def table(runs: Sequence[Metrics]) -> Table:
    """A row per order, mean ± std over its seeds; below the orders of a method, mean ± std over them."""
    runs = [run for run in runs if "order" in run]
    shown = [key for key in KEYS if len({run.get(key) for run in runs}) > 1 or key == "method"]
    result = Table(caption="points of 100; ± sample standard deviation, over seeds or over orders")
    for heading in (*shown, "order", "seeds", "ACC", "forgetting"):
        result.add_column(heading, justify="left" if heading in (*KEYS, "order") else "right")
    for values, members in grouped(runs, shown).items():
        labels = [f"{v:g}" if isinstance(v, float) else str(v) for v in values]
        orders = grouped([{**run, "order": order_name(run["order"])} for run in members], ["order"])
        for (order,), same in sorted(orders.items(), key=lambda item: (item[0][0][0].isdigit(), item[0])):
            cells = [points([run[key] for run in same]) for key in MEASURES]
            result.add_row(*labels, order, str(len(same)), *cells)
        over = [points([mean([run[key] for run in same]) for same in orders.values()]) for key in MEASURES]
        result.add_row(*labels, f"all {len(orders)}", "", *over, style="bold", end_section=True)
    return result


if __name__ == "__main__":
    print_runs(__doc__, table)
