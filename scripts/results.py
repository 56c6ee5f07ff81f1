"""Renew the tables of docs/results.md: python scripts/results.py [runs]

The runs below RUNS/results that scripts/tune.py had trained go to docs/data/results.csv (a line per reported run) and
docs/data/tuning.csv (a line per run that chose a strength); what is not found stays there as it was. The tables are
made of those two files alone, so they are redrawn without any run folder. The prose between them is written by hand.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from pandas import DataFrame

from compare import differences
from lifelong.experiment.errors import composed, one_line_errors
from lifelong.plots.report.runs import flattened, read_runs
from lifelong.runs.identity import setting
from studies.pages import read_csv, renew, write_csv
from studies.protocols import BOUNDS, DATA, Protocol, protocol
from studies.results import page_tables

SITE = ["protocol", "data", "method"]


def collected(runs: DataFrame, columns: Sequence[str], plan: Protocol) -> DataFrame:
    """The finished and the failed of `runs` as rows of a file in docs/data."""
    rows = runs[runs["state"].isin(["finished", "failed"])].copy()
    rows["protocol"], rows["data"], rows["failed"] = plan.name, plan.data, rows["reason"]
    rows["run_id"] = rows["path"].map(lambda path: path.name)
    rows["strength"] = rows["strength"].where(~rows["method"].isin(BOUNDS))
    rows["chosen_with"] = " ".join(plan.choose)
    protocols = {method: _protocol_config(plan, method) for method in rows["method"].unique()}
    rows["changed"] = [changed(protocols[run.method], run.config) for run in rows.itertuples()]
    return rows.reindex(columns=list(columns))


def _protocol_config(plan: Protocol, method: str) -> dict:
    return flattened(setting(composed(plan.of_method(method, None if method in BOUNDS else 1.0))))


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
    strengths = reported.groupby(SITE)["strength"].first()
    ours = pd.Series([strengths.get(tuple(site)) for site in grid[SITE].to_numpy()], index=grid.index, dtype=float)
    ends = grid.groupby(SITE)["strength"].agg(["min", "max"])
    at_end = [strengths.get(site) in ends.loc[site].tolist() for site in map(tuple, grid[SITE].to_numpy())]
    chosen = (grid["strength"] == ours).map({True: "yes", False: ""})
    return grid.assign(chosen=chosen, at_edge=["yes" if end else "" for end in at_end])


def renewed(old: DataFrame, found: DataFrame) -> DataFrame:
    """The old rows, but for those of a protocol, data and method that were found again."""
    fresh = set(map(tuple, found[SITE].to_numpy()))
    kept = old[[tuple(site) not in fresh for site in old[SITE].to_numpy()]]
    rows = pd.concat([part for part in (kept, found) if len(part)]) if len(found) else old
    return rows.sort_values([*SITE, "strength", "seed"], ignore_index=True)


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
        reported = collected(runs[~chose], list(results), plan)
        results = renewed(results, reported)
        tuning = renewed(tuning, with_choice(collected(runs[chose], list(tuning), plan), reported))
    write_csv(paths["results"], results)
    write_csv(paths["tuning"], tuning)
    page: Path = args.docs / "results.md"
    renew(page, page_tables(results, tuning))
    return page


if __name__ == "__main__":
    with one_line_errors():
        print(main())
