"""Killed at random moments and at the worst ones, again and again: every run ends as if nothing had been."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

import killing
from lifelong.tracking import read_history
from wandb_log import rows
from wandb_server import KEY, wandb_server

pytestmark = [pytest.mark.system, pytest.mark.timeout(1200)]  # one busy core among seven


def killed(root: Path, kind: str, variables: Mapping[str, str]) -> list[dict[str, Any]]:
    """The cases of tests/killing.py, in a process that has never run a thread."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))} | dict(variables)
    command = [sys.executable, killing.__file__, str(root), "0", kind]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.smoke
def test_run_killed_twice_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    (case,) = killed(tmp_path, "one", {})
    assert len(case["killed"]) == 2


def test_runs_killed_fifty_times_over_all_methods_and_memories_equal_uninterrupted_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = perf_counter()
    cases = killed(tmp_path, "methods", {})
    kills = [kill for case in cases for kill in case["killed"]]
    with capsys.disabled():
        print(f"\n{len(kills)} kills of {len(cases)} runs in {perf_counter() - start:.0f} s", end=" ")
    assert len(kills) >= 50
    assert {kill.split()[0] for kill in kills} == {"SIGKILL", "SIGTERM"}
    settings = {setting for case in cases for setting in case["settings"]}
    assert settings >= {f"method={name}" for name in killing.METHODS} | {f"memory={name}" for name in killing.MEMORIES}
    assert {kill.partition(" at ")[2] for kill in kills} == {"a random moment", *(aim.place for aim in killing.AIMS)}


@pytest.mark.parametrize("mode", ["offline", "online"])
def test_wandb_of_a_killed_run_has_every_row_of_the_history_once(mode: str, tmp_path: Path) -> None:
    """A kill takes what W&B has not written yet, and the run makes again what came after its checkpoint."""
    with wandb_server() as server:
        online = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}
        (case,) = killed(tmp_path, "wandb", {"WANDB_MODE": mode, **(online if mode == "online" else {})})
    folder = Path(case["last"])
    assert case["lives"] == 1
    (path,) = folder.glob("wandb/*run-*/*.wandb")
    shown = server.runs[folder.name].rows if mode == "online" else rows(path)
    history = [{k: v for k, v in row.items() if v is not None} for row in read_history(folder / "history.jsonl")]
    assert len(history) == 162
    assert [
        {key: row[key] for key in known if key in row} for row, known in zip(shown, history, strict=True)
    ] == history
