"""Print the runs below a folder, mean ± 95 % interval over seeds: python scripts/table.py runs/methods.

--orders: a row for each order of the tasks as well, and below each method the mean over its orders.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pandas import DataFrame

from lifelong.experiment.errors import one_line_errors
from lifelong.plots.report.runs import MEASURES, notes, read_runs
from lifelong.plots.report.tables import plus_minus, result_table, summary
from terminal import print_table

TRANSFER = ("backward_transfer", "forward_transfer")
"""In the report alone: they would make the terminal's table too wide."""
ORDER_MEASURES = ["average_accuracy", "forgetting"]


def tables(runs: DataFrame) -> dict[str, DataFrame]:
    """stream → a row of text per method and strength, best test accuracy first."""
    found = {}
    for section, members in runs.groupby("section"):
        best_first = summary(members)["average_accuracy"].to_numpy().argsort()[::-1]
        shown = [key for key in MEASURES if key not in TRANSFER and members[key].notna().any()]
        found[section] = result_table(members, shown).iloc[best_first]
    return found


def order_table(runs: DataFrame) -> DataFrame:
    """A row per method, strength and order of the tasks, over seeds; and one over the means of the orders."""
    runs = runs.assign(order=runs["order"].map(order_name))
    rows = []
    for (method, memory, strength), members in runs.groupby(["method", "memory", "strength"]):
        means = members.groupby("order")[ORDER_MEASURES].mean()
        for name, found in [*members.groupby("order"), (f"all {len(means)}", means)]:
            row = {"method": method, "memory": memory, "λ": f"{strength:g}", "order": name}
            row["seeds"] = str(len(found)) if "seed" in found else ""
            rows.append(row | {key.replace("_", " "): plus_minus(found[key]) for key in ORDER_MEASURES})
    return DataFrame(rows)


def order_name(order: Sequence[int]) -> str:
    """given, reversed, or the numbers of the given tasks in the order in which they came."""
    known = {tuple(sorted(order, reverse=True)): "reversed", tuple(sorted(order)): "given"}
    return known.get(tuple(order), " ".join(map(str, order)))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="runs/<name>, or any folder above run folders")
    parser.add_argument("--orders", action="store_true", help="keep the orders of the tasks apart")
    args = parser.parse_args(arguments)
    runs = read_runs(args.folder)
    finished = runs[runs["state"] == "finished"]
    shown = {"": order_table(finished)} if args.orders else tables(finished)
    for title, rows in shown.items():
        print_table(rows, title, "points of 100; ± 95 % confidence interval of the mean")
    for note in notes(runs):
        print(note)
    for run in runs[runs["state"] != "finished"].itertuples():
        print(f"{run.state}: {run.path} ({run.reason})")


if __name__ == "__main__":
    with one_line_errors():
        main()
