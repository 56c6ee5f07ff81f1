"""Renew the tables of docs/results.md, and of all methods in docs/methods.md: python scripts/results.py [runs]

The runs below RUNS/results that scripts/tune.py had trained go to docs/data/results.csv (a line per reported run) and
docs/data/tuning.csv (a line per run that chose a strength). Those in PROTOCOL/DATA/tried/ROW are in no table. A cell of
which any run is found is renewed as a whole, the others stay as they were. The tables are made of those two files
alone, so they are redrawn without any run folder. The prose between them is written by hand.

--compare A B: print the means that differ between docs/data/results.csv at two git commits instead.
"""

import argparse
import io
import itertools
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from pandas import DataFrame, Series

from compare import differences
from lifelong.config.options import spelled
from lifelong.config.schema import COMPATS, ConfigError, choice
from lifelong.experiment.errors import one_line_errors
from lifelong.plots.report.runs import read_runs
from lifelong.plots.report.tables import DASH, number, plus_minus
from lifelong.runs.identity import added, flattened, setting
from studies.pages import collected, markdown, power, read_csv, renew, renewed, write_csv
from studies.protocols import (
    DATA,
    ROOT,
    Protocol,
    Published,
    command_line,
    composition,
    default_strength,
    protocol,
    read_protocols,
)
from terminal import print_table

CELL = ["protocol", "data", "compat", "method"]
SITE = ["protocol", "data", "method"]
TRIED = "tried"
"""In the place of a column: runs that depart from a row as published to find a reason. They are in no table."""
NEAR = 2.0
"""Combined standard errors within which a cell agrees with the published one."""


def rows_of(runs: DataFrame, columns: Sequence[str], plan: Protocol, compat: str, row: str) -> DataFrame:
    """The finished and the failed of `runs` as rows of a file in docs/data."""
    known = runs[runs["state"].isin(["finished", "failed"])]
    has_strength = default_strength(plan.method(row)) is not None
    chosen = known["strength"] if has_strength and compat == "right" else [None] * len(known)
    bases = [tuple(plan.of_row(row, compat, strength)) for strength in chosen]
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


def with_choice(grid: DataFrame, reported: DataFrame) -> DataFrame:
    """`grid` with its columns chosen, at_edge: "yes" at the reported strength, and where that is the grid's end."""
    ours = grid[SITE].join(reported.groupby(SITE)["strength"].first(), on=SITE)["strength"]
    of_site = grid.groupby(SITE)["strength"]
    chosen, at_edge = grid["strength"] == ours, (ours == of_site.transform("min")) | (ours == of_site.transform("max"))
    words = {True: "yes", False: ""}
    return grid.assign(chosen=chosen.map(words), at_edge=at_edge.map(words))


def distance(ours: Series, published: Published) -> float:
    """|mean of `ours` − published| over the standard error of the difference; accuracies in percent.

    A side whose spread is unknown, for the source prints none or one run was made, is taken to spread as the other;
    nan where neither is known.
    """
    spreads = [ours.std(), published.sem * published.n**0.5]
    known = [spread for spread in spreads if not np.isnan(spread)]
    ours_spread, published_spread = (known[0] if np.isnan(s) and known else s for s in spreads)
    error = np.sqrt(ours_spread**2 / len(ours) + published_spread**2 / published.n)
    return float(abs(ours.mean() - published.value) / error) if error > 0 else float("nan")


def with_error(value: float, sem: float, n: int) -> str:
    """mean ± its standard error (n), in percent."""
    return number(value, 2) + ("" if np.isnan(sem) else f" ± {number(sem, 2)}") + f" ({n})"


def _ours(rows: DataFrame) -> str:
    done, lost = _accuracies(rows), (rows["failed"] != "").sum()
    mean = with_error(done.mean(), done.sem(), len(done)) if len(done) else ""
    return f"{mean}, {lost} diverged".removeprefix(", ") if lost else mean


def _accuracies(rows: DataFrame) -> Series:
    """Of the runs that finished, in percent."""
    return 100 * rows.loc[rows["failed"] == "", "average_accuracy"]


def _strength(rows: DataFrame) -> str:
    known = rows["strength"].dropna()
    return power(known.iloc[0]) if len(known) else ""


def results_table(plan: Protocol, rows: DataFrame, tuning: DataFrame) -> DataFrame:
    """Cells of text: a row per row of the protocol that was published or run."""
    shown = []
    for row in plan.every:
        ours, cell = rows[rows["method"] == row], plan.published.get(row)
        published, right = (ours[ours["compat"] == compat] for compat in COMPATS)
        if ours.empty and cell is None:
            continue
        if right.empty and len(published) and plan.place(row, "right") == plan.place(row, "published"):
            right = published
        tried = tuning.loc[tuning["method"] == row, "strength"]
        far, last = _distance(published, cell), ours if right.empty else right
        shown.append({
            "row": row,
            plan.source or "published": "" if cell is None else with_error(cell.value, cell.sem, cell.n),
            "as published": _ours(published),
            "λ": _strength(published),
            "distance": "" if np.isnan(far) else number(far, 2),
            "done right": _ours(right),
            "λ (tried)": _strength(right) + (f" ({power(tried.min())}–{power(tried.max())})" if len(tried) else ""),
            "forgetting": number(100 * last["forgetting"].mean(), 1) if len(ours) else "",
            "seconds": number(last["seconds"].mean(), 0) if len(ours) else "",
        })  # fmt: skip
    return DataFrame(shown)


def _distance(published: DataFrame, cell: Published | None) -> float:
    accuracies = _accuracies(published)
    return distance(accuracies, cell) if cell and len(accuracies) else float("nan")


def overview(tables: dict[tuple[str, str], tuple[DataFrame, DataFrame]]) -> DataFrame:
    """A row per protocol: how many published cells ours is near, with how many seeds, and the hours of all runs."""
    shown = []
    for (name, data), (rows, tuning) in tables.items():
        plan = protocol(name, data)
        as_published = rows[rows["compat"] == "published"]
        far = [_distance(as_published[as_published["method"] == row], cell) for row, cell in plan.published.items()]
        known = [value for value in far if not np.isnan(value)]
        near = sum(value <= NEAR for value in known)
        hours = (rows["seconds"].sum() + tuning["seconds"].sum()) / 3600
        shown.append({
            "protocol": name,
            "data": plan.data_title.split(" (")[0],
            "published cells": str(len(plan.published)),
            "compared": str(len(known)),
            "within 2 standard errors": f"{near} ({100 * near / len(known):.0f} %)" if known else "",
            "seeds, as published": _seeds(as_published),
            "seeds, done right": _seeds(rows[rows["compat"] == "right"]),
            "hours": number(hours, 1),
        })  # fmt: skip
    return DataFrame(shown)


def _seeds(rows: DataFrame) -> str:
    """How many a row of the table has: 5, or 3–10."""
    counts = rows.groupby("method")["seed"].nunique()
    return "–".join(map(str, sorted({counts.min(), counts.max()}))) if len(counts) else ""


def described(plan: Protocol, rows: DataFrame, tuning: DataFrame) -> str:
    """What was run, above a table."""
    pairs = dict.fromkeys(zip(rows["method"], rows["changed"], strict=True))
    changed = "; ".join(f"{method} `{how}`" for method, how in pairs if how)
    lines = [f"`{' '.join(plan.overrides)}`" + f"; **changed here:** {changed}" * bool(changed)]
    if len(tuning):
        known = sorted(tuning["seed"].unique())
        seeds = f"at seed {known[0]}" if len(known) == 1 else f"mean over seeds {', '.join(map(str, known))}"
        edge = ", ".join(dict.fromkeys(tuning.loc[tuning["at_edge"] == "yes", "method"]))
        at_edge = f"; at the end of all that may be tried: {edge}" if edge else ""
        how = f"validation accuracy with `{tuning['chosen_with'].iloc[0]}`, {seeds}"
        lost = (tuning["failed"] != "").sum()
        lines.append(f"Strengths: {len(tuning)} runs, {lost} of them diverged; {how}{at_edge}.")
    return "\n\n".join(lines)


def page_tables(results: DataFrame, tuning: DataFrame) -> dict[str, str]:
    """name → markdown, of every protocol and data there are rows of, and of the overview."""
    known, tables, found = read_protocols(), {}, {}
    for name, data in itertools.product(known["protocols"], known["sources"]):
        rows, grid = (table[(table["protocol"] == name) & (table["data"] == data)] for table in (results, tuning))
        rows = rows[rows["compat"] != TRIED]
        plan = protocol(name, data)
        if len(rows) and not plan.family:
            tables[name, data] = rows, grid
            found[f"{name} {data}"] = f"{described(plan, rows, grid)}\n\n{markdown(results_table(plan, rows, grid))}"
    return {"overview": markdown(overview(tables)), **found}


def all_methods(results: DataFrame) -> DataFrame:
    """Cells of text: a row per method, a column per stream that all methods were run on."""
    plans = [plan for name in read_protocols()["protocols"] if (plan := protocol(name, "mnist5k")).family]
    ours = results[results["protocol"].isin([plan.name for plan in plans])]
    shown = []
    for method in dict.fromkeys(row for plan in plans for row in plan.rows_of("right")):
        rows = ours[ours["method"] == method]
        if rows.empty:
            continue
        cells = {plan.family: _cell(rows[rows["protocol"] == plan.name]) for plan in plans}
        seconds, kept = number(rows["seconds"].mean(), 0), number(rows["kept_bytes"].max() / 1e6)
        shown.append({"method": method, **cells, "seconds": seconds, "kept, MB": kept})
    return DataFrame(shown)


def _cell(rows: DataFrame) -> str:
    """accuracy ± its interval, forgetting in brackets, and λ."""
    if rows.empty:
        return ""
    at = "" if rows["strength"].isna().all() else f", λ {power(rows['strength'].iloc[0])}"
    return f"{plus_minus(rows['average_accuracy'])} ({number(100 * rows['forgetting'].mean())}){at}"


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
        name, data, compat, row = folder.parts[-4:]
        found, plan = read_runs(folder), protocol(name, data)
        chose = found["path"].map(lambda path: path.parent.name == "choose")
        column = "published" if compat == TRIED else compat
        rows = rows_of(found[~chose], list(results), plan, column, row).assign(compat=compat)
        reported = rows if compat == TRIED else current(rows)
        grid = with_choice(rows_of(found[chose], list(tuning), plan, compat, row), reported)
        results, tuning = renewed(results, reported, CELL), renewed(tuning, grid, SITE)
    results = results.sort_values([*CELL, "strength", "seed"], ignore_index=True)
    return results, tuning.sort_values([*SITE, "strength", "seed"], ignore_index=True)


def main(arguments: Sequence[str] | None = None) -> Path | None:
    """Returns the page's path, None where commits are compared."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="?", default=Path("runs"))
    parser.add_argument("--docs", type=Path, default=DATA.parent, help="where results.md and data/ are")
    parser.add_argument("--compare", nargs=2, metavar="COMMIT", help="of docs/data/results.csv")
    args = parser.parse_args(arguments)
    if args.compare:
        print_table(changes(*map(at_commit, args.compare)), caption="mean average accuracy in percent")
        return None
    paths = {name: args.docs / "data" / f"{name}.csv" for name in ("results", "tuning")}
    for path, table in zip(paths.values(), collect(args.runs, *map(read_csv, paths.values())), strict=True):
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
