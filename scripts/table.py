"""Print the runs below a folder, mean ± 95 % interval over seeds: python scripts/table.py runs/methods.

--orders: a row for each order of the tasks as well, and below each method the mean over its orders.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pandas import DataFrame
from rich.console import Console
from rich.table import Table

from lifelong.plots.report.runs import MEASURES, notes, read_runs
from lifelong.plots.report.tables import plus_minus, result_table, summary

TRANSFER = ("backward_transfer", "forward_transfer")
"""In the report alone: they would make the terminal's table too wide."""
ORDER_MEASURES = ("average_accuracy", "forgetting")


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
        label = {"method": method, "memory": memory, "λ": f"{strength:g}"}
        orders = [group for _, group in members.groupby("order")]
        means = DataFrame([group[list(ORDER_MEASURES)].mean() for group in orders])
        for name, found in [*((g["order"].iloc[0], g) for g in orders), (f"all {len(orders)}", means)]:
            cells = {key.replace("_", " "): plus_minus(found[key]) for key in ORDER_MEASURES}
            rows.append({**label, "order": name, "seeds": str(len(found)) if "seed" in found else "", **cells})
    return DataFrame(rows)


def order_name(order: Sequence[int]) -> str:
    """given, reversed, or the numbers of the given tasks in the order in which they came."""
    known = {tuple(sorted(order, reverse=True)): "reversed", tuple(sorted(order)): "given"}
    return known.get(tuple(order), " ".join(map(str, order)))


def printed(title: str, rows: DataFrame) -> Table:
    caption = "points of 100; ± 95 % confidence interval of the mean"
    result = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    for heading in rows:
        result.add_column(heading, justify="left" if heading in ("method", "memory", "order") else "right")
    for row in rows.to_numpy().tolist():
        result.add_row(*row)
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="runs/<name>, or any folder above run folders")
    parser.add_argument("--orders", action="store_true", help="keep the orders of the tasks apart")
    args = parser.parse_args(arguments)
    console = Console()
    console.width = max(console.width, 130)  # in a file or a narrow window: a line may wrap, a number may not be cut
    try:
        runs = read_runs(args.folder)
    except FileNotFoundError as error:
        parser.exit(1, f"error: {error}\n")
    finished = runs[runs["state"] == "finished"]
    shown = {"": order_table(finished)} if args.orders else tables(finished)
    for title, rows in shown.items():
        console.print(printed(title, rows))
    for note in notes(runs):
        console.print(note, highlight=False, soft_wrap=True)
    for run in runs[runs["state"] != "finished"].itertuples():
        console.print(f"{run.state}: {run.path} ({run.reason})", highlight=False)


if __name__ == "__main__":
    main()
