"""docs/results.md from the run folders of scripts/tune.py: python scripts/results.py [runs]

What is found below runs/results goes to docs/data/results.csv (a line per reported run) and docs/data/tuning.csv (a
line per run that chose a strength); what is not found stays there as it was. The page is made of those two files alone,
so it is rebuilt without any run folder.
"""

import argparse
import csv
import io
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lifelong.experiment.errors import one_line_errors
from lifelong.runs.atomic import atomic_write
from studies.protocols import DATA, seconds
from studies.results_page import page
from studies.results_stats import Row

MEASURES = (
    "average_accuracy",
    "forgetting",
    "learning_accuracy",
    "average_incremental_accuracy",
    "backward_transfer",
    "forward_transfer",
    "min_accuracy",
    "worst_case_accuracy",
)
SITE = ("protocol", "data", "method")
TASKS = ("num_tasks", "num_steps", "seconds")
RUN = ("strength", "seed", "run_id", *MEASURES, *TASKS, "settings", "setting", "commit", "failed")
FIELDS: tuple[str, ...] = (*SITE, *RUN)
CHOICE = ("seed", "chosen_with", "strength", "val_average_accuracy", "run_id", "failed", "chosen", "at_edge", "setting")
TUNING: tuple[str, ...] = (*SITE, *CHOICE)


def collect(runs: Path) -> tuple[list[Row], list[Row]]:
    """(reported runs, grid runs) of every tuning.json below runs/results; what is not there is said on stderr."""
    reported: list[Row] = []
    grid: list[Row] = []
    for path in sorted(runs.glob("results/*/*/tuning.json")):
        tuning = json.loads(path.read_text(encoding="utf-8"))
        if "setting" not in tuning:
            warn(f"{path} is of an earlier version and left out: the same scripts/tune.py command again renews it")
            continue
        for method, members in tuning["runs"].items():
            reported += [row for run in members if (row := reported_row(path.parent, tuning, method, run))]
        for method, chosen in tuning["chosen"].items():
            grid += [grid_row(tuning, method, chosen, run) for run in chosen["grid"]]
    return reported, grid


def warn(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def reported_row(folder: Path, tuning: dict[str, Any], method: str, run: dict[str, Any]) -> Row | None:
    """None, said on stderr, if the run's folder is gone."""
    metrics = {"strength": tuning["chosen"].get(method, {}).get("strength")}  # all that is known of one that failed
    if not run["failed"]:
        path = folder / run["run_id"] / "metrics.json"
        if not path.exists():
            warn(f"{path} is not there: the run is left out")
            return None
        metrics = json.loads(path.read_text(encoding="utf-8"))
    values = {
        **{key: tuning[key] for key in ("protocol", "data", "setting")},
        "method": method,
        **{key: run[key] for key in ("seed", "run_id", "failed")},
        **{key: metrics.get(key) for key in (*MEASURES, "strength", "num_tasks", "num_steps", "commit")},
        "seconds": None if run["failed"] else f"{seconds(metrics):.1f}",
        "settings": " ".join(tuning["overrides"]),
    }
    return plain(values, FIELDS)


def grid_row(tuning: dict[str, Any], method: str, chosen: dict[str, Any], run: dict[str, Any]) -> Row:
    values = {
        **{key: tuning[key] for key in ("protocol", "data", "setting")},
        "method": method,
        "chosen_with": " ".join(chosen["chosen_with"]),
        **run,
        "chosen": "yes" if run["strength"] == chosen["strength"] else "",
        "at_edge": "yes" if chosen["at_edge"] else "",
    }
    return plain(values, TUNING)


def plain(values: dict[str, Any], fields: Iterable[str]) -> Row:
    def text(value: Any) -> str:
        return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)

    return {field: text(values[field]) for field in fields}


def read_csv(path: Path) -> list[Row]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")))) if path.exists() else []


def write_csv(path: Path, fields: Iterable[str], rows: Iterable[Row]) -> None:
    with atomic_write(path) as file:
        writer = csv.DictWriter(file, list(fields), lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def renewed(path: Path, fields: tuple[str, ...], found: list[Row]) -> list[Row]:
    """The file's rows with those that were found again replaced, and without those of older settings of a protocol."""
    settings = {(row["protocol"], row["data"]): row["setting"] for row in found}
    fresh = {tuple(row[key] for key in SITE) for row in found}

    def stays(row: Row) -> bool:
        same = settings.get((row["protocol"], row["data"]), row.get("setting")) == row.get("setting")
        return same and tuple(row[key] for key in SITE) not in fresh

    rows = [row for row in read_csv(path) if stays(row)] + found
    rows.sort(key=lambda row: (*(row[key] for key in SITE), float(row["strength"] or 0), int(row["seed"])))
    if found:
        write_csv(path, fields, rows)
    return rows


def main(arguments: list[str] | None = None) -> Path:
    """Returns the page's path."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="?", default=Path("runs"))
    parser.add_argument("--docs", type=Path, default=DATA.parent, help="where results.md and data/ are")
    args = parser.parse_args(arguments)
    reported, grid = collect(args.runs)
    (args.docs / "data").mkdir(parents=True, exist_ok=True)
    rows = renewed(args.docs / "data" / "results.csv", FIELDS, reported)
    tuning = renewed(args.docs / "data" / "tuning.csv", TUNING, grid)
    path: Path = args.docs / "results.md"
    with atomic_write(path) as file:
        file.write(page(rows, tuning))
    return path


if __name__ == "__main__":
    with one_line_errors():
        print(main())
