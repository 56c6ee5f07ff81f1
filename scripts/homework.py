"""Renew docs/homework.md and its figures: python scripts/homework.py [--data mnist --seeds 0 --run --jobs 2]

--run: train the methods of the protocol `homework` as published, tested after every epoch (the runs of the table on
docs/results.md), and the ablation `homework`, which is small. The first figure has 50 points a method: the mean test
accuracy over the tasks seen so far. They go to docs/data/homework.csv, of which the figure is made without run folders;
rows of other data than --data leave it.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from pandas import DataFrame

import ablations
import tune
from lifelong.config.schema import ConfigError
from lifelong.experiment.errors import one_line_errors
from lifelong.plots.figures import COLOURS, empty_figure, save_figure
from lifelong.plots.report.runs import WITHIN, accuracy_curves
from lifelong.runs.folder import RunFolder
from lifelong.runs.identity import identifier
from studies.pages import read_csv, renewed, write_csv
from studies.protocols import DATA, ROOT, Protocol, protocol, with_seed

NAME, COMPAT, KEYS = "homework", "published", ["data", "method", "seed"]
EPOCH = {"mnist": 469, "mnist5k": 32}
"""Optimiser steps of an epoch: 60,000 digits or 4,000, 128 a batch."""


def mean_over_seen(path: Path) -> DataFrame:
    """A row per evaluation of the run in `path`: position in the stream (1.5: half of task 2), accuracy in [0, 1]."""
    return accuracy_curves(path, WITHIN).groupby("position", as_index=False)["accuracy"].mean()


def curves(data: str, rows: Sequence[str], root: Path) -> DataFrame:
    """Columns KEYS, position, accuracy, of the finished runs below `root` as the protocol is now; one that was not
    tested within its tasks is named on stderr."""
    plan, found = protocol(NAME, data), []
    for row in rows:
        for folder in sorted((root / plan.place(row, COMPAT)).glob("*-s*")):
            run = RunFolder(folder)
            if run.finished and folder.name == _id_now(plan, row, seed := run.read_config().seed):
                if (points := mean_over_seen(folder)).empty:
                    print(f"{folder} was not tested within its tasks: put it aside and run it here", file=sys.stderr)
                else:
                    found.append(points.assign(data=plan.data_title, method=row, seed=seed))
    columns = [*KEYS, "position", "accuracy"]
    return pd.concat(found)[columns] if found else DataFrame(columns=columns)


def _id_now(plan: Protocol, row: str, seed: int) -> str:
    """The run id that the row has as the protocol is now."""
    return identifier(with_seed(plan.of_row(row, COMPAT), seed))


def figure(points: DataFrame) -> Figure:
    """A line per method, over seeds: mean, lowest to highest."""
    shown = points.assign(percent=100 * points["accuracy"])
    drawn = empty_figure(8, 4, f"Mean accuracy over the tasks seen so far, {points['data'].iloc[0]}")
    axes = drawn.add_subplot()
    sns.lineplot(shown, x="position", y="percent", hue="method", palette=COLOURS[: shown["method"].nunique()],
                 errorbar=("pi", 100), marker=".", ax=axes)  # fmt: skip
    axes.set(xlabel="tasks learned", ylabel="test accuracy (%)", axisbelow=True)
    axes.grid(color="0.93")
    axes.legend(fontsize=8, loc="lower left")
    return drawn


def main(arguments: Sequence[str] | None = None) -> Path:
    """Returns the page's path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist", help="a source of docs/data/protocols.yaml")
    parser.add_argument("--seeds", default="0", help="trained with --run; all that are found are drawn")
    parser.add_argument("--every", type=int, help="optimiser steps between points of the first figure; an epoch's")
    parser.add_argument("--run", action="store_true", help="run the sweeps")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--root", type=Path, default=Path("runs"), help="where runs go, seen from the checkout")
    parser.add_argument("--docs", type=Path, default=DATA.parent, help="where the pages and data/ are")
    args = parser.parse_args(arguments)
    rows = [row for row in protocol(NAME, args.data).rows_of(COMPAT) if row != "joint"]
    if args.run:
        every = EPOCH.get(args.data) if args.every is None else args.every
        if every is None:
            raise ConfigError(f"--every must be given with --data {args.data}: how many steps an epoch has")
        if every < 1:
            raise ConfigError(f"--every must be an integer >= 1, got {every}")
        tested = [f"evaluate_every_n_steps={every}", "evaluate_samples=10000"]
        jobs = ["--seeds", args.seeds, "--root", str(args.root), "--jobs", str(args.jobs), "--run"]
        tune.main([NAME, "--data", args.data, "--compat", COMPAT, "--methods", ",".join(rows), *jobs, *tested])
        where = ["--root", str(args.root), "--docs", str(args.docs)]
        ablations.main([NAME, "--run", "--stacked", "--jobs", str(args.jobs), *where])
    path = args.docs / "data" / f"{NAME}.csv"
    if len(points := curves(args.data, rows, ROOT / args.root)):
        held = read_csv(path) if path.exists() else points[:0]
        write_csv(path, renewed(held[held["data"].isin(points["data"])], points, KEYS))  # one figure: of one data set
    save_figure(figure(read_csv(path)), args.docs / f"{NAME}.png")
    page: Path = args.docs / f"{NAME}.md"
    return page


if __name__ == "__main__":
    with one_line_errors():
        print(main())
