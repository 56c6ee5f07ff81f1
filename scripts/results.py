"""Renew the tables of docs/results.md, and of all methods in docs/methods.md: python scripts/results.py [runs]

The runs below RUNS/results that scripts/tune.py had trained go to docs/data/results.csv (a line per reported run) and
docs/data/tuning.csv (a line per run that chose a strength); what is not found stays there as it was. The tables are
made of those two files alone, so they are redrawn without any run folder. The prose between them is written by hand.
"""

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pandas import DataFrame, Series

from compare import differences
from lifelong.experiment.errors import composed, one_line_errors
from lifelong.plots.report.runs import read_runs
from lifelong.plots.report.tables import half_width, number, plus_minus
from lifelong.runs.identity import flattened, setting
from studies.pages import collected, markdown, power, read_csv, renew, renewed, write_csv
from studies.protocols import BOUNDS, DATA, METHODS, Protocol, default_strength, protocol, read_protocols

HELD = [method for method in METHODS if method not in BOUNDS]
SITE = ["protocol", "data", "method"]


def rows_of(runs: DataFrame, columns: Sequence[str], plan: Protocol) -> DataFrame:
    """The finished and the failed of `runs` as rows of a file in docs/data."""
    known = runs[runs["state"].isin(["finished", "failed"])]
    strength = known["strength"].where([default_strength(method) is not None for method in known["method"]])
    composed_of = {method: composed(plan.of_method(method, 1.0)) for method in known["method"].unique()}
    protocols = {method: flattened(setting(config)) for method, config in composed_of.items()}
    changes = [changed(protocols[run.method], run.config) for run in known.itertuples()]
    kept = known[["method_state_bytes", "memory_bytes"]].sum(axis=1)
    more = {"protocol": plan.name, "data": plan.data, "chosen_with": " ".join(plan.choose), "kept_bytes": kept}
    return collected(known, columns, strength=strength, changed=changes, **more)


def changed(plan: dict, config: dict) -> str:
    """The overrides that make a run's configuration of its protocol's, but for the strength."""
    found = differences([plan, config])
    return " ".join(
        f"{key.removesuffix('._target_')}={_typed(ours)}"
        for key, (_, ours) in found.items()
        if key != "method.strength"
    )


def _typed(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value).replace(" ", "")


def with_choice(grid: DataFrame, reported: DataFrame) -> DataFrame:
    """`grid` with its columns chosen, at_edge: "yes" at the reported strength, and where that is the grid's end."""
    ours = grid[SITE].join(reported.groupby(SITE)["strength"].first(), on=SITE)["strength"]
    of_site = grid.groupby(SITE)["strength"]
    chosen, at_edge = grid["strength"] == ours, (ours == of_site.transform("min")) | (ours == of_site.transform("max"))
    words = {True: "yes", False: ""}
    return grid.assign(chosen=chosen.map(words), at_edge=at_edge.map(words))


def gap_closed(rows: DataFrame, method: str) -> str:
    """100 (accuracy − finetune) / (joint − finetune), a ratio of means over the seeds that all three have.

    Its interval is Student's of the ratio's linearisation, (gain − share · way) / mean way for each seed. Empty where a
    bound was not run, a seed of the method failed, or joint is not above finetune.
    """
    if (rows.loc[rows["method"] == method, "failed"] != "").any():
        return ""
    table = rows.pivot(index="seed", columns="method", values="average_accuracy")
    if not {method, *BOUNDS} <= set(table):
        return ""
    table = table[[method, *BOUNDS]].dropna()
    gain, way = table[method] - table["finetune"], table["joint"] - table["finetune"]
    if table.empty or way.mean() <= 0:
        return ""
    share = gain.mean() / way.mean()
    half = 100 * half_width((gain - share * way) / way.mean())
    return number(100 * share, 0) + ("" if np.isnan(half) else f" ± {number(half, 0)}")


def results_table(plan: Protocol, rows: DataFrame, tuning: DataFrame) -> DataFrame:
    """Cells of text: a row per method that was run, on the protocol's data."""
    shown = []
    for method in METHODS:
        ours = rows[rows["method"] == method]
        if ours.empty:
            continue
        done, tried = ours[ours["failed"] == ""], tuning.loc[tuning["method"] == method, "strength"]
        around = f" ({power(tried.min())}–{power(tried.max())})" if len(tried) else ""
        lost = f" ({len(ours) - len(done)} diverged)" if len(done) < len(ours) else ""
        shown.append({
            "method": method,
            "λ (tried)": "" if default_strength(method) is None else power(ours["strength"].iloc[0]) + around,
            "average accuracy": plus_minus(done["average_accuracy"]),
            "forgetting": plus_minus(done["forgetting"]),
            "learning accuracy": plus_minus(done["learning_accuracy"]),
            "gap closed, %": "" if method in BOUNDS else gap_closed(rows, method),
            "seconds": number(done["seconds"].mean(), 0),
            "seeds": f"{len(done)}{lost}",
            f"published ({plan.source}; MNIST)": f"{plan.published[method]:g}" if method in plan.published else "",
        })  # fmt: skip
    return DataFrame(shown)


def overview(tables: dict[tuple[str, str], DataFrame]) -> DataFrame:
    """The shares of the gap closed: a row per protocol, a column per method."""
    shown = []
    for (name, data), rows in tables.items():
        cells = {}
        for method in HELD:
            lost: Series = rows.loc[rows["method"] == method, "failed"] != ""
            cells[method] = f"{lost.sum()} of {len(lost)} diverged" if lost.any() else gap_closed(rows, method)
        if any(cells.values()):
            title = protocol(name, data).data_title.split(" (")[0]
            shown.append({"gap closed, %": f"{name}, {title}", **cells, "seeds": str(rows["seed"].nunique())})
    return DataFrame(shown)


def described(plan: Protocol, rows: DataFrame, tuning: DataFrame) -> str:
    """What was run, above a table."""
    changed = "; ".join(dict.fromkeys(filter(None, rows["changed"])))
    lines = [f"`{' '.join([*plan.overrides, *plan.penalties])}`" + f"; **changed here:** `{changed}`" * bool(changed)]
    if len(tuning):
        seeds = ", ".join(map(str, sorted(tuning["seed"].unique())))
        edge = ", ".join(dict.fromkeys(tuning.loc[tuning["at_edge"] == "yes", "method"]))
        at_edge = f"; at the end of all that may be tried: {edge}" if edge else ""
        how = f"validation accuracy with `{tuning['chosen_with'].iloc[0]}`, mean over seeds {seeds}"
        lost = (tuning["failed"] != "").sum()
        lines.append(f"Strengths: {len(tuning)} runs, {lost} of them diverged; {how}{at_edge}.")
    return "\n\n".join(lines)


def page_tables(results: DataFrame, tuning: DataFrame) -> dict[str, str]:
    """name → markdown, of every protocol and data there are rows of, and of the overview."""
    known, tables, found = read_protocols(), {}, {}
    for name, data in itertools.product(known["protocols"], known["sources"]):
        rows, grid = (table[(table["protocol"] == name) & (table["data"] == data)] for table in (results, tuning))
        plan = protocol(name, data)
        if len(rows) and not plan.own:
            tables[name, data] = rows
            found[f"{name} {data}"] = f"{described(plan, rows, grid)}\n\n{markdown(results_table(plan, rows, grid))}"
    return {"overview": markdown(overview(tables)), **found}


def all_methods(results: DataFrame) -> DataFrame:
    """Cells of text: a row per method, a column per stream that all methods were run on."""
    plans = [protocol(name, "mnist5k") for name, entry in read_protocols()["protocols"].items() if "own" in entry]
    ours = results[results["protocol"].isin([plan.name for plan in plans])]
    shown = []
    for method in dict.fromkeys(method for plan in plans for method in plan.methods):
        rows = ours[ours["method"] == method]
        if rows.empty:
            continue
        cells = {plan.name.removeprefix("families_"): _cell(rows[rows["protocol"] == plan.name]) for plan in plans}
        seconds, kept = number(rows["seconds"].mean(), 0), number(rows["kept_bytes"].max() / 1e6)
        shown.append({"method": method, **cells, "seconds": seconds, "kept, MB": kept})
    return DataFrame(shown)


def _cell(rows: DataFrame) -> str:
    """accuracy ± its interval, forgetting in brackets, and λ."""
    if rows.empty:
        return ""
    at = "" if rows["strength"].isna().all() else f", λ {power(rows['strength'].iloc[0])}"
    return f"{plus_minus(rows['average_accuracy'])} ({number(100 * rows['forgetting'].mean())}){at}"


def main(arguments: Sequence[str] | None = None) -> Path:
    """Returns the page's path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="?", default=Path("runs"))
    parser.add_argument("--docs", type=Path, default=DATA.parent, help="where results.md and data/ are")
    args = parser.parse_args(arguments)
    paths = {name: args.docs / "data" / f"{name}.csv" for name in ("results", "tuning")}
    results, tuning = (read_csv(path) for path in paths.values())
    for folder in sorted(args.runs.glob("results/*/*/")):
        runs, plan = read_runs(folder), protocol(*folder.parts[-2:])
        chose = runs["path"].map(lambda path: path.parent.name == "choose")
        reported = rows_of(runs[~chose], list(results), plan)
        grid = with_choice(rows_of(runs[chose], list(tuning), plan), reported)
        results, tuning = renewed(results, reported, SITE), renewed(tuning, grid, SITE)
    results, tuning = (table.sort_values([*SITE, "strength", "seed"], ignore_index=True) for table in (results, tuning))
    write_csv(paths["results"], results)
    write_csv(paths["tuning"], tuning)
    results, tuning = (read_csv(path) for path in paths.values())  # as rounded there: so no table depends on the runs
    page: Path = args.docs / "results.md"
    renew(page, page_tables(results, tuning))
    if len(table := all_methods(results)):
        renew(args.docs / "methods.md", {"all methods": markdown(table)})
    return page


if __name__ == "__main__":
    with one_line_errors():
        print(main())
