"""Run folders as a report reads them: what each run was to do, and what became of it."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from lifelong.runs.folder import RunFolder, RunFolderError, run_id, whole
from lifelong.runs.identity import setting

Metrics = Mapping[str, Any]
VAL = "val/accuracy/"


@dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
        path: its folder.
        state: finished; failed (it left the reason in error.txt); unfinished (interrupted, or still running); damaged.
        reason: one line of why it is not finished; empty if it is.
        config: config.yaml without the seed and what does not touch the numbers, flat: "method.strength" → 100. Empty
            if it cannot be read.
        seed: None if config.yaml cannot be read.
        metrics: the content of metrics.json; empty unless finished.
    """

    path: Path
    state: str
    reason: str
    config: dict[str, Any] = field(repr=False)
    seed: int | None
    metrics: dict[str, Any] = field(repr=False)

    @property
    def finished(self) -> bool:
        return self.state == "finished"

    @cached_property
    def setting(self) -> str:
        """Hash of `config`: runs that share it differ in the seed alone."""
        return run_id("setting", self.config)

    @cached_property
    def matrix(self) -> tuple[list[str], list[list[float]]]:
        """Names of the T tasks and the rows of the accuracy matrix."""
        return RunFolder(self.path).read_matrix()


def read_runs(folder: Path) -> list[Run]:
    """All runs below `folder`, by path.

    Raises:
        FileNotFoundError: no run below `folder`.
    """
    runs = [read_run(path.parent) for path in sorted(folder.glob("**/config.yaml"))]
    if not runs:
        raise FileNotFoundError(f"no run folder below {folder}")
    return runs


def read_run(path: Path) -> Run:
    """The run in this folder, whatever its state."""
    paths = RunFolder(path)
    flat: dict[str, Any] = {}
    seed, metrics = None, {}
    try:
        with whole(paths.config):
            config = OmegaConf.create(paths.config.read_text(encoding="utf-8"))
            flat, seed = flattened(setting(config)), config.seed  # type: ignore[arg-type]
        if paths.finished:
            metrics = paths.read_metrics()
            paths.read_matrix()
    except RunFolderError as error:
        return Run(path, "damaged", str(error), flat, seed, {})
    if metrics:
        return Run(path, "finished", "", flat, seed, metrics)
    return Run(path, *_why_unfinished(path), flat, seed, {})


def _why_unfinished(path: Path) -> tuple[str, str]:
    """(state, reason) of a run that has no metrics.json."""
    error = path / "error.txt"
    if error.exists():
        lines = error.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return "failed", lines[0] if lines else "its error.txt is empty"
    history = path / "history.jsonl"
    num_learned = history.read_text(encoding="utf-8").count('"test/average_accuracy"') if history.exists() else 0
    return "unfinished", f"interrupted or still running: {num_learned} tasks learned"


def flattened(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one with dotted keys; lists stay values."""
    flat: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            flat.update(flattened(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def grouped(runs: Iterable[Metrics], keys: Sequence[str]) -> dict[tuple[Any, ...], list[Metrics]]:
    """Runs that share the values of `keys`, in the order in which those were met."""
    groups: dict[tuple[Any, ...], list[Metrics]] = defaultdict(list)
    for run in runs:
        groups[tuple(run.get(key) for key in keys)].append(run)
    return dict(groups)


def validation_curves(run: Run) -> dict[str, dict[float, float]]:
    """Of each task by name: validation accuracy in [0, 1] by position in the stream, 1.5 = half of the second task's
    optimiser steps are done. Methods that take different numbers of steps for a task compare on this axis."""
    lines = (run.path / "history.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines if VAL in line]
    ends = {row["task"]: row["step"] for row in rows}
    curves: dict[str, dict[float, float]] = defaultdict(dict)
    for row in rows:
        task, start = row["task"], ends.get(row["task"] - 1, 0)
        position = task + (row["step"] - start) / (ends[task] - start)
        for key, value in row.items():
            if key.startswith(VAL) and value is not None:
                curves[key.removeprefix(VAL)][position] = value
    return dict(curves)
