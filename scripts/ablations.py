"""Renew tables and figures of ablations and studies: python scripts/ablations.py [NAME ... | all] [--run --jobs 2]

With names: print the sweeps of those ablations, a few dozen runs of seconds each, or --run them first (--stacked: small
networks train side by side). What is found below ROOT/ablations goes to docs/data/ablations.csv, a line per run, of
which tables and figures are made. A table is on docs/ablations.md unless docs/data/ablations.yaml says another page.
"""

import argparse
import itertools
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import seaborn as sns
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame, Series

from lifelong.config.schema import ConfigError
from lifelong.experiment.errors import one_line_errors
from lifelong.plots.figures import COLOURS, empty_figure, save_figure
from lifelong.plots.report.runs import read_run, read_runs
from lifelong.plots.report.tables import interval, number, plus_minus
from lifelong.runs.identity import identifier
from studies.pages import collected, is_over, kept, markdown, read_csv, renew, renewed, write_csv
from studies.protocols import BOUNDS, DATA, ROOT, command_line, launch, sweep, with_seed

ACCURACY, CRITERION = "average_accuracy", "val_average_accuracy"


@dataclass(frozen=True)
class Ablation:
    """A question and its runs: every arm at every strength or order, at every seed (see the head of the yaml)."""

    name: str
    question: str
    base: list[str]
    arms: dict[str, list[str]]
    reference: str
    seeds: list[int]
    decades: list[int] = field(default_factory=list)
    orders: list[str] = field(default_factory=list)
    own_decades: dict[str, list[int]] = field(default_factory=dict)
    measures: list[str] = field(default_factory=lambda: [ACCURACY])
    page: str = "ablations"

    def has_strengths(self, arm: str) -> bool:
        """Whether λ varies for this arm."""
        return bool(self.decades) and self.arms[arm][0].removeprefix("method=") not in BOUNDS

    def powers(self, arm: str) -> list[str]:
        """The strengths of an arm for which λ varies."""
        first, last = self.own_decades.get(arm, self.decades)
        return [f"1e{decade}" for decade in range(first, last + 1)]

    def command(self, arm: str, root: str, jobs: int, *, stacked: bool = False) -> list[str]:
        """The sweep of an arm: its strengths or orders, and its seeds."""
        grid = [f"seed={','.join(map(str, self.seeds))}"]
        if self.has_strengths(arm):
            grid.append(f"method.strength={','.join(self.powers(arm))}")
        if self.orders:
            grid.append(f"dataset.order={','.join(self.orders)}")
        place = [f"name=ablations/{self.name}/{folder(arm)}", f"root={root}", "num_threads=1"]
        return sweep([*self.base, *self.arms[arm], *grid, *place], jobs, stacked=stacked)

    def planned(self, arm: str) -> dict[str, tuple[str, str]]:
        """run id → (x, command) of every run of an arm."""
        base, found = [*self.base, *self.arms[arm]], {}
        strengths = [float(power) for power in self.powers(arm)] if self.has_strengths(arm) else [None]
        for order, strength, seed in itertools.product(self.orders or [""], strengths, self.seeds):
            at = [f"dataset.order={order}"] if order else []
            x = order or ("" if not self.decades else f"{strength or 0:g}")
            of_strength = [] if strength is None else [f"method.strength={strength!r}"]
            run_id = identifier(with_seed([*base, *at], seed, strength))
            found[run_id] = x, command_line([*base, *at, *of_strength, f"seed={seed}"])
        return found

    def place(self, runs: Path, arm: str) -> Path:
        """Where the runs of an arm are."""
        return runs / "ablations" / self.name / folder(arm)

    def rows(self, runs: Path, columns: Sequence[str]) -> DataFrame:
        """The runs below `runs`/ablations that are over and as the plan is now, as rows of docs/data/ablations.csv."""
        found = [DataFrame(columns=list(columns))]
        for arm in self.arms:
            place = self.place(runs, arm)
            if any(place.rglob("config.yaml")):  # some job of its sweep has begun
                planned, over = self.planned(arm), kept(read_runs(place))
                known = over[over["path"].map(lambda path: path.name).isin(planned)]
                told = DataFrame([planned[path.name] for path in known["path"]], known.index, ["x", "command"])
                found.append(collected(known.assign(**told, arm=arm, ablation=self.name), columns))
        return pd.concat(found[1:] or found)

    def check_runs(self, runs: Path) -> None:
        """Raises ConfigError if a run of the plan is neither finished nor diverged."""
        folders = [self.place(runs, arm) / run_id for arm in self.arms for run_id in self.planned(arm)]
        lacking = [path for path in folders if not path.exists() or not is_over(read_run(path))]
        if lacking:
            of = f"{len(lacking)} of {len(folders)} runs"
            raise ConfigError(f"{self.name}: {of} neither finished nor diverged: see what they say, {lacking[0]} first")

    def compared(self, rows: DataFrame, arm: str) -> DataFrame:
        """The arm's runs; where λ varies those at the λ best on validation data, none of which failed.

        Among those with the most seeds: a mean that lacks a hard seed would win.
        """
        own = rows[rows["arm"] == arm]
        if not self.decades:
            return own[own["failed"] == ""]
        sound = own.groupby("x").filter(lambda members: (members["failed"] == "").all())
        seeds = sound.groupby("x")["seed"].nunique()
        scores = sound.groupby("x")[CRITERION].mean()[seeds == seeds.max()]
        return sound[sound["x"] == scores.idxmax()] if len(scores) else sound

    def difference(self, rows: DataFrame, arm: str) -> Series:
        """Accuracy less that of the reference, one for each seed; orders are paired first. Empty for the reference."""
        beside = self.reference.startswith(",")
        reference = arm.split(",")[0] + self.reference if beside else self.reference
        if arm == reference:
            return Series(dtype=float)
        keys = ["seed", "x"] if self.orders else ["seed"]
        ours, theirs = (self.compared(rows, a).set_index(keys)[ACCURACY] for a in (arm, reference))
        return (ours - theirs).dropna().groupby("seed").mean()

    def table(self, rows: DataFrame) -> DataFrame:
        """Cells of text, a row per arm."""
        shown = []
        for arm in dict.fromkeys(rows["arm"]):
            own, best = rows[rows["arm"] == arm], self.compared(rows, arm)
            row = {"": arm}
            if self.decades:
                tried = own["x"].astype(float)
                at = float(best["x"].iloc[0]) if len(best) else None
                end = at in (tried.min(), tried.max()) and tried.nunique() > 1
                row["best λ"] = "" if at is None else f"{at:g}" + " (end of grid)" * bool(end)
            by_seed = best.groupby("seed")[[ACCURACY, "forgetting"]].mean()
            row |= {"average accuracy": plus_minus(by_seed[ACCURACY]), "forgetting": plus_minus(by_seed["forgetting"])}
            pairs = self.difference(rows, arm)
            sign = "+" if len(pairs) and pairs.mean() >= 0 else ""
            row[f"less that of {self.reference.lstrip(', ')}"] = sign + plus_minus(pairs) if len(pairs) else ""
            if self.decades:
                row["runs that diverged"] = f"{(own['failed'] != '').sum()} of {len(own)}"
            shown.append(row)
        return DataFrame(shown)

    def figure(self, rows: DataFrame) -> Figure:
        """Accuracy over λ, or a row of points for each arm (and order), a point per seed."""
        if self.decades:
            figure = empty_figure(8 if len(self.measures) == 1 else 11, 3.8, self.question)
            panels = figure.subplots(1, len(self.measures), squeeze=False)[0]
            for axes, measure in zip(panels, self.measures, strict=True):
                _curves(axes, rows, measure)
            for axes in panels[:-1]:
                axes.get_legend().remove()
            if len(panels) > 1:  # each is too narrow for the whole label
                for axes in panels:
                    axes.set_xlabel("λ")
        else:
            place = rows["arm"].where(rows["x"] == "", rows["arm"] + ", " + rows["x"])
            figure = empty_figure(8, 1.0 + 0.19 * place.nunique(), self.question)
            _points(figure.add_subplot(), rows.assign(place=place))
        return figure


def read_ablations(path: Path = DATA / "ablations.yaml") -> dict[str, Ablation]:
    found = yaml.safe_load(path.read_text(encoding="utf-8"))["ablations"]
    return {name: Ablation(name, **entry) for name, entry in found.items()}


def folder(arm: str) -> str:
    return re.sub(r"\W+", "-", arm)


def order_spread(rows: DataFrame) -> DataFrame:
    """Of each arm the standard deviation of accuracy between orders, of their means, and between seeds within one."""
    by_order = rows.groupby(["arm", "x"], sort=False)[ACCURACY]
    between = 100 * by_order.mean().groupby("arm", sort=False).std()
    within = 100 * by_order.var().groupby("arm", sort=False).mean() ** 0.5
    return DataFrame({
        "": between.index,
        "standard deviation between orders": between.map(number),
        "between seeds within an order": within.map(number),
    })  # fmt: skip


def _curves(axes: Axes, rows: DataFrame, measure: str) -> None:
    """Mean of a measure over λ, without a λ at which a run diverged; an arm whose λ is 0 is a level line."""
    rows = rows.assign(percent=100 * rows[measure], x=rows["x"].astype(float))
    sound = rows.groupby(["arm", "x"], sort=False).filter(lambda members: (members["failed"] == "").all())
    arms = list(dict.fromkeys(rows.loc[rows["x"] > 0, "arm"]))
    families = list(dict.fromkeys(arm.split(",")[0] for arm in arms))
    colours = {arm: COLOURS[families.index(arm.split(",")[0])] for arm in arms}
    dashes = {arm: (4, 2) if arm.endswith("proximal") else "" for arm in arms}
    sns.lineplot(sound[sound["x"] > 0], x="x", y="percent", errorbar=("pi", 100), hue="arm", style="arm",
                 hue_order=arms, palette=colours, dashes=dashes, markers=dict.fromkeys(arms, "o"), ax=axes)  # fmt: skip
    for arm, own in sound[sound["x"] == 0].groupby("arm"):
        axes.axhline(own["percent"].mean(), label=arm, color="0.3", linestyle=":")
    xlabel = "λ (mean over seeds, lowest to highest; none where a run diverged)"
    axes.set(xscale="log", xlabel=xlabel, ylabel=f"{measure.replace('_', ' ')} (%)", axisbelow=True)
    axes.grid(color="0.93")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5), handlelength=3.5)


def _points(axes: Axes, rows: DataFrame) -> None:
    """A row of points for each place, with the interval of their mean."""
    rows = rows.assign(accuracy=100 * rows[ACCURACY], family=rows["arm"].str.rsplit(",", n=1).str[0])
    how = {"x": "accuracy", "y": "place", "hue": "family", "palette": COLOURS[: rows["family"].nunique()]}
    sns.stripplot(rows, **how, jitter=False, alpha=0.35, legend=False, ax=axes)
    sns.pointplot(rows, **how, errorbar=interval, linestyle="none", marker="|", capsize=0.3, legend=False, ax=axes)
    axes.set(xlabel="average accuracy (%); points: seeds; bar: 95 % interval of their mean", ylabel="")
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(axis="x", color="0.93")


def main(arguments: Sequence[str] | None = None) -> Path:
    """Returns the folder of the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="all, or some of those in docs/data/ablations.yaml")
    parser.add_argument("--run", action="store_true", help="run the sweeps")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--stacked", action="store_true", help="hydra/launcher=stacked")
    parser.add_argument("--root", default="runs", help="where runs go, seen from the checkout")
    parser.add_argument("--docs", type=Path, default=DATA.parent, help="where the pages and data/ are")
    args = parser.parse_args(arguments)
    ablations = read_ablations()
    for name in list(ablations) if args.names == ["all"] else args.names:
        if name not in ablations:
            raise ConfigError(f"names must be all or some of {', '.join(ablations)}, got {name!r}")
        plan, how = ablations[name], (args.root, args.jobs)
        commands = [plan.command(arm, *how, stacked=args.stacked) for arm in plan.arms]
        launch(commands, run=args.run, jobs=args.jobs, stacked=args.stacked)
        if args.run:
            plan.check_runs(ROOT / args.root)
    path = args.docs / "data" / "ablations.csv"
    rows, tables = read_csv(path), defaultdict[str, dict[str, str]](dict)
    for name, ablation in ablations.items():
        found = ablation.rows(ROOT / args.root, list(rows))
        rows = renewed(rows, found, ["ablation", "arm", "x", "seed"])
        of = rows[rows["ablation"] == name]
        own = pd.concat([of[of["arm"] == arm] for arm in ablation.arms])
        if len(own):
            head = f"{own['seed'].nunique()} seeds, {len(own)} runs."
            table = f"{head}\n\n{markdown(ablation.table(own))}"
            if ablation.orders:
                table += f"\n\n{markdown(order_spread(own))}"
            tables[ablation.page][name] = table
            save_figure(ablation.figure(own), args.docs / f"ablation_{name}.png")
    write_csv(path, rows)
    for page, its_tables in tables.items():
        renew(args.docs / f"{page}.md", its_tables)
    return Path(args.docs)


if __name__ == "__main__":
    with one_line_errors():
        print(main())
