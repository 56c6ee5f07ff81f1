"""Renew the tables of docs/results.md, and of all methods in docs/methods.md: python scripts/results.py [runs]

The runs below RUNS/results that scripts/tune.py had trained go to docs/data/results.csv (a line per reported run) and
docs/data/tuning.csv (a line per run that chose a strength). Those in PROTOCOL/DATA/tried/ROW are in no table. A cell of
which any run is found is renewed; its lines of further seeds stay if their runs are as the protocol is now, so that
seeds may be run on several machines. The other cells stay as they were. The tables are made of those two files alone,
so they are redrawn without any run folder. The prose between them is written by hand.

--compare A B: print the means that differ between docs/data/results.csv at two git commits instead.
"""

import argparse
import io
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from pandas import DataFrame

from compare import differences
from lifelong.config.options import spelled
from lifelong.config.schema import ConfigError, choice
from lifelong.experiment.errors import one_line_errors
from lifelong.plots.report.runs import read_runs
from lifelong.plots.report.tables import DASH, number
from lifelong.runs.identity import added, flattened, identifier, setting
from studies.pages import collected, kept, markdown, read_csv, renew, renewed, write_csv
from studies.protocols import DATA, ROOT, Protocol, command_line, composition, default_strength, protocol, with_seed
from studies.tables import TRIED, all_methods, page_tables
from terminal import print_table

CELL = ["protocol", "data", "compat", "method"]
SITE = ["protocol", "data", "method"]


def rows_of(runs: DataFrame, columns: Sequence[str], plan: Protocol, compat: str, row: str) -> DataFrame:
    """Those of `runs` that are over as rows of a file in docs/data."""
    known = kept(runs)
    has_strength = default_strength(plan.method(row)) is not None
    bases = _bases(known, plan, compat, row)
    changes = [_changed(*pair) for pair in zip(bases, known["config"], strict=True)]
    more = {
        "protocol": plan.name,
        "data": plan.data,
        "compat": compat,
        "strength": known["strength"] if has_strength else float("nan"),
        "chosen_with": " ".join(plan.choose),
        "changed": [" ".join(words) for words in changes],
        "command": [
            command_line([*base, *words, f"seed={seed}"])
            for base, words, seed in zip(bases, changes, known["seed"], strict=True)
        ],
        "kept_bytes": known[["method_state_bytes", "memory_bytes"]].sum(axis=1),
    }
    return collected(known, [*columns], **more, method=row)


def _bases(runs: DataFrame, plan: Protocol, compat: str, row: str) -> list[tuple[str, ...]]:
    """The row's overrides for each of `runs`: right at the strength that was chosen, published at the source's."""
    chosen = compat == "right" and default_strength(plan.method(row)) is not None
    strengths = runs["strength"] if chosen else [None] * len(runs)
    return [tuple(plan.of_row(row, compat, strength)) for strength in strengths]


def _changed(base: tuple[str, ...], config: dict) -> list[str]:
    """The overrides that make a run's configuration of its row's. A key that it has no word of was at its default, or
    came later and changes nothing."""
    wanted = composition(base)
    found, defaults = differences([flattened(setting(wanted)), config]), added(choice(wanted, "method"))
    ours = {key: defaults.get(key, value) if value == DASH else value for key, (_, value) in found.items()}
    return [f"{key.removesuffix('._target_')}={_typed(value)}" for key, value in ours.items() if value != DASH]


def _typed(value: object) -> str:
    return value if isinstance(value, str) else spelled(value).replace(" ", "")


def current(rows: DataFrame) -> DataFrame:
    """Without the runs of before the protocol changed whose seed has one that is as the protocol is now."""
    as_asked = rows["changed"] == ""
    return rows[as_asked | ~rows["seed"].isin(rows.loc[as_asked, "seed"])]


def at_one_strength(rows: DataFrame, folder: Path) -> DataFrame:
    """`rows`; raises ConfigError if those as the protocol is now have several strengths, of choices of before."""
    strengths = rows.loc[rows["changed"] == "", "strength"].dropna().unique()
    if len(strengths) > 1:
        got = ", ".join(f"{strength:g}" for strength in sorted(strengths))
        raise ConfigError(f"{folder} must have reported runs at one strength, got {got}: put the others aside")
    return rows


def of_further_seeds(old: DataFrame, found: DataFrame, plan: Protocol, compat: str, row: str) -> DataFrame:
    """The `old` rows of a cell at other seeds than `found`, of runs as the protocol is now, at the strength found."""
    further = old[~old["seed"].isin(found["seed"])]
    bases = set(_bases(found, plan, compat, row))
    return further[further["run_id"].isin({identifier(with_seed(b, seed)) for b in bases for seed in further["seed"]})]


def with_choice(grid: DataFrame, reported: DataFrame) -> DataFrame:
    """`grid` with its columns chosen, at_edge: "yes" at the reported strength, and where that is the grid's end."""
    ours = grid[SITE].join(reported.groupby(SITE)["strength"].first(), on=SITE)["strength"]
    of_site = grid.groupby(SITE)["strength"]
    chosen, at_edge = grid["strength"] == ours, (ours == of_site.transform("min")) | (ours == of_site.transform("max"))
    words = {True: "yes", False: ""}
    return grid.assign(chosen=chosen.map(words), at_edge=at_edge.map(words))


def changes(before: DataFrame, after: DataFrame) -> DataFrame:
    """Cells of text: a row per cell whose mean accuracy differs between two results.csv, or that one of them lacks."""
    tables = [before, after]
    means = [100 * table.groupby(CELL)["average_accuracy"].mean() for table in tables]
    both = pd.concat(means, axis=1, keys=["before", "after"]).sort_index()
    moved = both[(both["before"] != both["after"]) & both.notna().any(axis=1)]
    shown = {"cell": [" ".join(cell) for cell in moved.index]}
    shown |= {key: [number(value, 2) for value in moved[key]] for key in moved}
    shown["change"] = [number(change, 2) for change in moved["after"] - moved["before"]]
    return DataFrame(shown)


def at_commit(commit: str) -> DataFrame:
    """docs/data/results.csv of a git commit; raises ConfigError if there is none."""
    place = f"{commit}:docs/data/results.csv"
    shown = subprocess.run(["git", "show", place], cwd=ROOT, capture_output=True, text=True)
    if shown.returncode:
        raise ConfigError(f"--compare must be two git commits that have docs/data/results.csv, got {commit!r}")
    table = read_csv(io.StringIO(shown.stdout))
    return table if "compat" in table else table.assign(compat="right")


def collect(runs: Path, results: DataFrame, tuning: DataFrame) -> tuple[DataFrame, DataFrame]:
    """Both tables with the rows found below `runs` in the place of those of the same cell."""
    for folder in sorted(runs.glob("results/*/*/*/*/")):
        if not any(folder.rglob("config.yaml")):  # no job of its sweep has begun
            continue
        name, data, compat, row = folder.parts[-4:]
        found, plan = read_runs(folder), protocol(name, data)
        found["state"] = found["state"].replace("copy", "finished")  # one that chose may be a reported one, too
        chose = found["path"].map(lambda path: path.parent.name == "choose")
        column = "published" if compat == TRIED else compat
        rows = rows_of(found[~chose], list(results), plan, column, row).assign(compat=compat)
        reported = rows if compat == TRIED else at_one_strength(current(rows), folder)
        cell = results[(results[CELL] == [name, data, compat, row]).all(axis=1)]
        stay = cell if compat == TRIED else of_further_seeds(cell, reported, plan, compat, row)
        reported = renewed(stay, reported, ["run_id"])
        grid = rows_of(found[chose], list(tuning), plan, compat, row)
        grid = with_choice(grid, reported if len(reported) else cell)
        results, tuning = renewed(results, reported, CELL), renewed(tuning, grid, SITE)
    results = results.sort_values([*CELL, "strength", "seed"], ignore_index=True)
    return results, tuning.sort_values([*SITE, "strength", "seed"], ignore_index=True)


def main(arguments: Sequence[str] | None = None) -> Path | None:
    """Returns the page's path, None where commits are compared."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="?", help="folder of all runs; the checkout's, unless said otherwise")
    parser.add_argument("--docs", type=Path, default=DATA.parent, help="where results.md and data/ are")
    parser.add_argument("--compare", nargs=2, metavar="COMMIT", help="of docs/data/results.csv")
    args = parser.parse_args(arguments)
    if args.compare:
        print_table(changes(*map(at_commit, args.compare)), caption="mean average accuracy in percent")
        return None
    if args.runs and not args.runs.is_dir():
        raise ConfigError(f"runs must be a folder, got {args.runs}")
    paths = {name: args.docs / "data" / f"{name}.csv" for name in ("results", "tuning")}
    found = collect(args.runs or ROOT / "runs", *map(read_csv, paths.values()))
    for path, table in zip(paths.values(), found, strict=True):
        write_csv(path, table)
    results, tuning = map(read_csv, paths.values())  # as rounded there: so no table depends on the runs
    page: Path = args.docs / "results.md"
    renew(page, page_tables(results, tuning))
    if len(table := all_methods(results)):
        renew(args.docs / "methods.md", {"all methods": markdown(table)})
    return page


if __name__ == "__main__":
    with one_line_errors():
        if (page := main()) is not None:
            print(page)
