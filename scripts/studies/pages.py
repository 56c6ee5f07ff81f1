"""Tables in docs pages, and the files of docs/data they are made of: a line per run.

Each table stands between <!-- begin NAME --> and <!-- end NAME -->, all else is written by hand.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import pandas as pd
from pandas import DataFrame

from lifelong.runs.atomic import atomic_write
from lifelong.runs.folder import RunFolder


def markdown(table: DataFrame) -> str:
    """A table of text; nan is an empty cell."""
    rows = [list(table), ["---"] * len(table.columns), *table.fillna("").astype(str).to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def renew(page: Path, tables: Mapping[str, str]) -> None:
    """Put each table between its marks; one that the page has no marks for is named on stderr."""
    text = page.read_text(encoding="utf-8")
    for name, table in tables.items():
        begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
        pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
        if not pattern.search(text):
            print(f"{page} has no place for a table: write {begin} and {end} in it", file=sys.stderr)
        text = pattern.sub((f"{begin}\n{table}\n{end}").replace("\\", r"\\"), text)
    with atomic_write(page) as file:
        file.write(text)


TEXTS = ("protocol", "data", "compat", "method", "ablation", "arm", "x", "run_id", "changed", "chosen_with", "chosen",
         "at_edge", "commit", "code", "environment", "command", "failed")  # fmt: skip


def read_csv(path: Path | TextIO) -> DataFrame:
    """With text as text: what a run failed of is "" if it did not."""
    table = pd.read_csv(path, dtype=dict.fromkeys(TEXTS, str), na_values=[""])
    return table.fillna(dict.fromkeys(table.columns.intersection(TEXTS), ""))


def write_csv(path: Path, rows: DataFrame) -> None:
    with atomic_write(path) as file:
        file.write(rows.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


DIVERGED = ("DivergedError", "PenaltyError", "ExemplarError")
"""Of its own numbers a run fails of these each time; of a full disk, say, it does not."""


def is_over(run: Mapping[str, Any]) -> bool:
    """Whether a row of `read_runs` is finished or has diverged; any other one is still wanted."""
    return run["state"] == "finished" or (run["state"] == "failed" and run["reason"].startswith(DIVERGED))


def kept(runs: DataFrame) -> DataFrame:
    """Those of `runs` that are over; their seeds are integers, though a damaged run has none."""
    over = [is_over(run) for run in runs[["state", "reason"]].to_dict("records")]
    return runs[pd.Series(over, runs.index, dtype=bool)].astype({"seed": int})


def collected(runs: DataFrame, columns: Sequence[str], **more: Any) -> DataFrame:
    """Those of `runs` that are over as rows of a file in docs/data, with `more` columns."""
    rows = kept(runs)
    more |= {"run_id": [path.name for path in rows["path"]], "code": [_code(path) for path in rows["path"]]}
    return rows.assign(failed=rows["reason"], **more).reindex(columns=list(columns))


def _code(path: Path) -> str:
    """The hash of the whole code of a run, where it is known."""
    folder = RunFolder(path)
    return str(folder.read_metrics().get("code", "")) if folder.finished else ""


def renewed(old: DataFrame, found: DataFrame, keys: list[str]) -> DataFrame:
    """The rows found, and those of the old ones of which no row with the same `keys` was found again."""
    fresh = pd.MultiIndex.from_frame(found[keys])
    parts = [old[~pd.MultiIndex.from_frame(old[keys]).isin(fresh)], found]
    return pd.concat([part for part in parts if len(part)] or [old], ignore_index=True)


def power(value: float) -> str:
    """A strength: 0.01, 1000, 1e4, 1e-5."""
    digit, exponent = f"{value:.0e}".split("e")
    short = f"{digit}e{int(exponent)}"
    return short if float(short) == value and not 1e-3 < value < 1e4 and value else f"{value:g}"
