"""Print the runs below a folder, mean ± 95 % interval over seeds: python scripts/table.py runs/methods.

--orders: a row for each order of the tasks as well, and below each method the mean over its orders.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from pandas import DataFrame

from lifelong.experiment.errors import one_line_errors
from lifelong.plots.report.names import ENTRY, has_strength, named
from lifelong.plots.report.runs import MEASURES, notes, problems, read_runs
from lifelong.plots.report.tables import DASH, plus_minus, result_table, summary
from terminal import print_table

TRANSFER = ("backward_transfer", "forward_transfer")
"""In the report alone: they would make the terminal's table too wide."""
ORDER, ORDER_MEASURES = "dataset.order", ["average_accuracy", "forgetting"]


def tables(runs: DataFrame) -> dict[str, DataFrame]:
    """stream → a row of text per method and strength, best test accuracy first."""
    found = {}
    for section, members in runs.groupby("section"):
        best_first = summary(members)["average_accuracy"].to_numpy().argsort()[::-1]
        shown = [key for key in MEASURES if key not in TRANSFER and members[key].notna().any()]
        found[section] = result_table(members, shown).iloc[best_first]
    return found


def order_tables(runs: DataFrame) -> dict[str, DataFrame]:
    """stream, whatever its order → a row of text per method, strength and order of the tasks, over seeds; and below
    them one over the means of the orders."""
    if runs.empty:
        return {}
    configs = [{key: value for key, value in config.items() if key != ORDER} for config in runs["config"]]
    runs = named(runs.assign(config=configs, order=runs["order"].map(order_name)))
    runs = runs.drop_duplicates([*ENTRY, "order", "seed"])  # one order may be spelled in several ways
    swept = has_strength(runs)
    found: dict[str, list[dict[str, str]]] = {}
    for (section, line, strength), members in runs.groupby(ENTRY):
        means = members.groupby("order")[ORDER_MEASURES].mean()
        for name, own in [*members.groupby("order"), (f"all {len(means)}", means)]:
            row = {"method": line, "λ": f"{strength:g}" if swept[line] else DASH, "order": name}
            row["seeds"] = str(len(own)) if "seed" in own else ""
            measured = {key.replace("_", " "): plus_minus(own[key]) for key in ORDER_MEASURES}
            found.setdefault(section, []).append(row | measured)
    return {section: DataFrame(rows) for section, rows in found.items()}


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
    shown = order_tables(finished) if args.orders else tables(finished)
    for title, rows in shown.items():
        print_table(rows, title, "points of 100; ± 95 % confidence interval of the mean")
    for note in notes(runs):
        print(note)
    for run in problems(runs).itertuples():
        print(f"{run.state}: {run.path} ({run.reason})")


if __name__ == "__main__":
    with one_line_errors():
        main()
