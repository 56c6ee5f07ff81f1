"""Whole sweeps of small networks by each launcher of one machine, and how far stacked runs are from runs alone."""

import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from benchmarks.table import Cell, Settings, Table, in_turn, ratio, spread
from lifelong.config.schema import ConfigError
from lifelong.experiment.result import read_result
from lifelong.runs.folder import RunFolder

TRAIN = str(Path(__file__).parents[2] / "train.py")
SWEEPS = {
    "digits, 64-128-64-10, batches of 32": ("dataset/source=digits", "backbone.widths=[128,64]", "batch_size=32"),
    "mnist5k, 784-256-256-10, batches of 10": ("backbone.widths=[256,256]", "batch_size=10", "trainer.max_epochs=2"),
    "digits, default MLP": ("dataset/source=digits", "trainer.max_epochs=2"),
}
LAUNCHERS = {
    "basic": ("hydra/launcher=basic",),
    "parallel, 2 workers": ("hydra/launcher=parallel", "hydra.launcher.n_jobs=2"),
    "stacked": ("hydra/launcher=stacked",),
}
GRID = ("method=ewc,mas,si", "strength_factor=0.01,0.1,1,10,100", "seed=0,1,2")
FEW = ("method=ewc,mas,si", "strength_factor=1,10", "seed=0")
COLUMNS = {"": "", "whole sweep, s": ".1f", "× stacked": ".2f", "weights": ".0e", "cells": ""}


def measure(settings: Settings) -> Table:
    repetitions, grid = settings.repetitions or 1, GRID if settings.shrink == 1 else FEW
    rows = [row for name, options in SWEEPS.items() for row in rows_of(name, (*options, *grid), repetitions)]
    return Table(
        f"`python train.py -m {' '.join(grid)}`, from the command's start to its end, on one CPU thread a run, without "
        f"loggers but the history: median (lowest–highest) of {repetitions} in turn. Weights: largest relative "
        "difference, in norm, of a run's from those of the basic launcher. Cells: of all accuracy matrices, how many "
        "are not the same, as a tie among two logits was broken otherwise.",
        COLUMNS,
        rows,
    )


def rows_of(name: str, options: tuple[str, ...], repetitions: int) -> list[list[Cell]]:
    """One for each launcher on one sweep."""
    with TemporaryDirectory() as root:
        roots = {launcher: Path(root) / launcher.partition(",")[0] for launcher in LAUNCHERS}
        runs = {launcher: partial(swept, roots[launcher], (*options, *LAUNCHERS[launcher])) for launcher in LAUNCHERS}
        seconds = in_turn(runs, repetitions, warm_up=False)
        rows: list[list[Cell]] = []
        for launcher, times in seconds.items():
            apart, cells = differences(roots[launcher], roots["basic"])
            rows.append([f"{name}: {launcher}", spread(times), ratio(times, seconds["stacked"]), apart, cells])
    return rows


def swept(root: Path, options: tuple[str, ...]) -> float:
    """Seconds of a sweep, all of whose runs are trained; raises ConfigError with its last line if a run fails."""
    command = [sys.executable, TRAIN, "-m", *options, "trainer=cpu", "logger=none", "progress=false", "rerun=true"]
    start = time.perf_counter()
    done = subprocess.run([*command, f"root={root}"], capture_output=True, text=True)
    if done.returncode:
        said = ["nothing", *done.stdout.splitlines(), *done.stderr.splitlines()]
        raise ConfigError(f"a sweep that is timed failed, it said last: {said[-1]}")
    return time.perf_counter() - start


def differences(root: Path, alone: Path) -> tuple[float, str]:
    """Largest relative difference of any run's weights, and the unequal cells of the accuracy matrices of all."""
    apart, cells, num = 0.0, 0, 0
    for path in sorted(alone.glob("*/*/metrics.json")):
        folders = [RunFolder(path.parent), RunFolder(root / path.parent.relative_to(alone))]
        matrices = [read_result(folder).matrix for folder in folders]
        expected, found = (torch.load(folder.model, weights_only=True)["state_dict"] for folder in folders)
        far = [float((found[n] - w).norm() / w.norm()) for n, w in expected.items()]
        apart = float(torch.tensor([apart, *far]).max())  # nan if one is
        cells, num = cells + int((matrices[0] != matrices[1]).sum()), num + matrices[0].numel()
    return apart, f"{cells} of {num}"
