"""Run folders as one table: a row per run, from config.yaml and metrics.json, and what each row is called."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pandas import DataFrame, Series

from lifelong.metrics import intransigence
from lifelong.plots.report.names import ENTRY, entry_name, named
from lifelong.runs.folder import RunFolder, RunFolderError, run_id, whole
from lifelong.runs.identity import flattened, setting

MEASURES = {
    "average_accuracy": "test ACC",
    "val_average_accuracy": "val ACC",
    "forgetting": "forgetting",
    "intransigence": "intransigence",
    "learning_accuracy": "learning ACC",
    "backward_transfer": "BWT",
    "forward_transfer": "FWT",
    "within_min_accuracy": "min-ACC within tasks",
    "within_worst_case_accuracy": "WC-ACC within tasks",
    "within_average_anytime_accuracy": "AAA",
    "within_stability_gap": "stability gap",
}
PHASES = ("train", "importance", "memory", "evaluation")
BYTES = {
    "peak_memory_bytes": "peak memory (MB)",
    "method_state_bytes": "method state (MB)",
    "memory_bytes": "exemplars (MB)",
}
VAL, WITHIN = "val/accuracy/", "within/"


def read_runs(folder: Path) -> DataFrame:
    """A row per run below `folder`, by path.

    Columns: path; state (finished, failed, unfinished, damaged, or copy: of a finished run in another folder, so that
    no seed counts twice) and the reason, one line; seed; config, flat and
    without the seed: "method.strength" → 100 (empty if it cannot be read); setting, its hash: runs that share it differ
    in the seed alone; tasks, T names; matrix, (T, T) test accuracies in [0, 1]; analysis, what analysis.json holds; all
    keys of metrics.json, undefined as nan; seconds, of all phases; intransigence, against the joint run that
    differs in method and memory alone; and those of `named`.

    Raises:
        FileNotFoundError: no run below `folder`.
    """
    holding = {path.parent for path in folder.glob("**/config.yaml")}
    found = [read_run(path) for path in sorted(holding) if holding.isdisjoint(path.parents)]  # W&B's folders are inside
    if not found:
        raise FileNotFoundError(f"no run folder below {folder}")
    return tabulated(found)


def tabulated(found: Sequence[dict[str, Any]]) -> DataFrame:
    """The rows of some runs as `read_runs` has them."""
    runs = DataFrame(found)
    numbers = [*MEASURES, *(f"{phase}_seconds" for phase in PHASES), *BYTES]
    runs = runs.reindex(columns=list(dict.fromkeys([*runs, *numbers, "stream", "method_code"])))
    runs[numbers] = runs[numbers].apply(pd.to_numeric)
    runs["seconds"] = runs[[f"{phase}_seconds" for phase in PHASES]].sum(axis=1, min_count=1)
    runs["intransigence"] = _intransigence(runs)
    runs = named(runs)
    copies = runs[runs["state"] == "finished"].duplicated([*ENTRY, "seed"])
    runs.loc[copies.index[copies], "state"] = "copy"
    return runs


def read_run(path: Path) -> dict[str, Any]:
    """The row of one run, whatever its state."""
    paths = RunFolder(path)
    row: dict[str, Any] = {"path": path, "state": "finished", "reason": "", "seed": None, "config": {}, "setting": ""}
    try:
        with whole(paths.config):
            config = paths.read_config()
            plain = setting(config)
            row |= {"config": flattened(plain), "seed": config.seed, "setting": run_id("setting", plain)}
        if paths.finished:
            metrics, (names, rows) = paths.read_metrics(), paths.read_matrix()
            return {**metrics, **row, "tasks": names, "matrix": np.array(rows), "analysis": paths.read_analysis()}
        row["state"], row["reason"] = _why_unfinished(path)
    except RunFolderError as error:
        row["state"], row["reason"] = "damaged", str(error)
    return row


def _why_unfinished(path: Path) -> tuple[str, str]:
    """(state, reason) of a run that has no metrics.json."""
    error, history = path / "error.txt", path / "history.jsonl"
    if error.exists():
        lines = error.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return "failed", lines[0] if lines else "its error.txt is empty"
    num_learned = history.read_text(encoding="utf-8").count('"test/average_accuracy"') if history.exists() else 0
    return "unfinished", f"interrupted or still running; tasks learned: {num_learned}"


def _intransigence(runs: DataFrame) -> Series:
    """Of each finished run, nan for joint itself and where no finished joint run differs in method and memory alone.

    Joint learning of all tasks at once is no reference: that is accuracy after tasks 1..k.
    """
    known = runs[runs["stream"].notna() & (runs["state"] == "finished")]
    is_joint = known["method"] == "joint" if len(known) else known["stream"].isna()
    joint = {
        run.stream: torch.tensor(run.matrix).diagonal()
        for run in known[is_joint].itertuples()
        if run.config.get("method.schedule") != "once"
    }
    values = {
        run.Index: intransigence(torch.tensor(run.matrix), joint[run.stream]).item()
        for run in known[~is_joint].itertuples()
        if run.stream in joint
    }
    return Series(values, index=runs.index, dtype=float)


def notes(runs: DataFrame) -> list[str]:
    """A line for each thing a reader of the numbers must know: mixed method code, copies, missing joint runs."""
    finished, copies = (runs[runs["state"] == state] for state in ("finished", "copy"))
    lines = []
    for (section, line), codes in finished.groupby(["section", "base_line"], sort=False)["code"]:
        if codes.nunique() > 1:
            hashes = ", ".join(dict.fromkeys(codes))
            lines.append(f"warning: {line} ({section}) was run with different method code ({hashes}): kept apart")
    if len(copies):
        paths = ", ".join(map(str, copies["path"]))
        lines.append(f"{len(copies)} copies of runs in other folders are counted once: {paths}")
    lacking = finished[(finished["method"] != "joint") & finished["intransigence"].isna()]
    if len(lacking):
        of = f"{len(lacking)} of {len(finished)} runs"
        lines.append(f"no intransigence for {of}: no finished run of method=joint differs in method and memory alone")
    return lines


def problems(runs: DataFrame) -> DataFrame:
    """Those that are not finished, whatever the reason."""
    return runs[~runs["state"].isin(["finished", "copy"])]


def missing(section: DataFrame) -> list[str]:
    """A line for each entry that lacks seeds others of its section have, whatever became of them."""
    lines = []
    for (line, strength), runs in section.groupby(["line", "strength"]):
        if lacking := sorted(set(section["seed"].dropna()) - set(runs["seed"])):
            lines.append(f"{entry_name(line, strength)}: no run of seed {', '.join(f'{seed:g}' for seed in lacking)}")
    return lines


def accuracy_curves(path: Path, prefix: str) -> DataFrame:
    """Accuracy in [0, 1] of the run in `path`: columns task (its name), position, accuracy; maybe no row.

    prefix: of the names in the history, VAL or WITHIN. position: place in the stream, 1.5 = half of the second task's
    optimiser steps are done. Methods that take different numbers of steps for a task compare on this axis.
    """
    history = path / "history.jsonl"
    lines = history.read_text(encoding="utf-8").splitlines() if history.exists() else []
    rows = [json.loads(line) for line in lines if prefix in line and line.endswith("}")]
    ends = {row["task"]: row["step"] for row in rows}
    points = []
    for row in rows:
        start, end = ends.get(row["task"] - 1, 0), ends[row["task"]]
        position = row["task"] + (row["step"] - start) / max(end - start, 1)
        points += [(key.removeprefix(prefix), position, value) for key, value in row.items() if key.startswith(prefix)]
    curves = DataFrame(points, columns=["task", "position", "accuracy"]).dropna()
    return curves.drop_duplicates(["task", "position"], keep="last")
