"""Renew docs/homework.md and its figures: python scripts/homework.py [--run --stacked --jobs 2]

--run: run the sweeps of the ablation `homework` first. A figure has the validation accuracy after every epoch, the mean
over the tasks seen so far, of each method at the λ that is best on validation data. Its points go to
docs/data/homework.csv; without run folders it is drawn from them.
"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from pandas import DataFrame

import ablations
from ablations import Ablation, folder, read_ablations
from lifelong.experiment.errors import one_line_errors
from lifelong.plots.figures import COLOURS, empty_figure, save_figure
from lifelong.plots.report.runs import VAL, accuracy_curves
from studies.pages import read_csv, write_csv

NAME = "homework"


def mean_over_seen(path: Path) -> DataFrame:
    """A row per epoch of the run in `path`: position in the stream (1.5 = half of task 2), mean accuracy in [0, 1]."""
    return accuracy_curves(path, VAL).groupby("position", as_index=False)["accuracy"].mean()


def curves(plan: Ablation, rows: DataFrame, runs: Path) -> DataFrame:
    """Columns arm, x (its λ), seed, position, accuracy, of the runs that the table compares and that have a folder."""
    found = []
    for arm in plan.arms:
        for run in plan.compared(rows, arm).itertuples():
            path = runs / "ablations" / NAME / folder(arm) / run.run_id
            if path.exists():
                found.append(mean_over_seen(path).assign(arm=arm, x=run.x, seed=run.seed))
    return pd.concat(found)[["arm", "x", "seed", "position", "accuracy"]] if found else DataFrame()


def figure(points: DataFrame) -> Figure:
    """A line per method, over seeds: mean, lowest to highest."""
    strength = ", λ = " + points["x"]
    shown = points.assign(percent=100 * points["accuracy"], line=points["arm"] + strength.where(points["x"] != "0", ""))
    drawn = empty_figure(8, 4, "Mean accuracy over the tasks seen so far, after every epoch")
    axes = drawn.add_subplot()
    colours = COLOURS[: shown["line"].nunique()]
    sns.lineplot(shown, x="position", y="percent", hue="line", palette=colours, errorbar=("pi", 100), marker=".",
                 ax=axes)  # fmt: skip
    axes.set(xlabel="tasks learned", ylabel="validation accuracy (%)", axisbelow=True)
    axes.grid(color="0.93")
    axes.legend(fontsize=8, loc="lower left")
    return drawn


def main(arguments: Sequence[str] | None = None) -> Path:
    """Returns the page's path."""
    args = ablations.parsed(arguments)
    args.names = [NAME] if args.run else []
    ablations.renew_pages(args)
    rows, path = read_csv(args.docs / "data" / "ablations.csv"), args.docs / "data" / f"{NAME}.csv"
    points = curves(read_ablations()[NAME], rows[rows["ablation"] == NAME], Path(args.root))
    if len(points):
        write_csv(path, points)
    save_figure(figure(read_csv(path)), args.docs / f"{NAME}.png")
    page: Path = args.docs / f"{NAME}.md"
    return page


if __name__ == "__main__":
    with one_line_errors():
        print(main())
