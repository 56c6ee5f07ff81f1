"""What a run says while it works: the same rows on one step axis, wherever they go."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
import wandb

from lifelong.experiment import Result
from lifelong.tracking import DivergedError, History, read_history
from runs import NUM_STEPS, at_every_batch, run
from wandb_log import rows, run_record, summary

WANDB = ("logger=wandb", "logger.tags=[tiny]")


class Killed(BaseException):
    """As kill -9."""


@pytest.fixture(autouse=True)
def _without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lifelong.result.draw", lambda *_: None)


def history(result: Result) -> list[dict[str, Any]]:
    return read_history(result.folder / "history.jsonl")


def numbers(row: dict[str, Any]) -> dict[str, float]:
    return {key: value for key, value in row.items() if value is not None}


def kill_at(patch: pytest.MonkeyPatch, step: int) -> None:
    def kill(_: Any, done: int) -> None:
        if done == step:
            raise Killed

    at_every_batch(patch, kill)


# history.jsonl ------------------------------------------------------------------------------------------------------


def test_steps_run_on_through_the_stream(tmp_path: Path) -> None:
    """Losses every 2 steps, validation of all tasks so far at each epoch's end, tests at each task's end."""
    found = history(run(tmp_path))
    assert [row["step"] for row in found] == [2, 3, 4, 6, 6, 6, 8, 9, 10, 12, 12, 12]
    assert [row["step"] for row in found if "train/loss" in row] == [2, 4, 6, 8, 10, 12]
    assert [(row["step"], "val/accuracy/rot30" in row) for row in found if "val/accuracy/rot0" in row] == [
        (3, False),
        (6, False),
        (9, True),
        (12, True),
    ]
    assert [row["step"] for row in found if "test/average_accuracy" in row] == [6, 12]


def test_loss_of_a_row_is_the_mean_since_the_row_before_and_starts_anew_with_each_task(tmp_path: Path) -> None:
    every = [row["train/loss"] for row in history(run(tmp_path / "1", "log_every_n_steps=1")) if "train/loss" in row]
    fourth = {
        row["step"]: row["train/loss"]
        for row in history(run(tmp_path / "4", "log_every_n_steps=4"))
        if "train/loss" in row
    }
    assert len(every) == NUM_STEPS
    assert fourth == {4: pytest.approx(sum(every[:4]) / 4), 10: pytest.approx(sum(every[6:10]) / 4)}


def test_penalty_is_zero_for_the_first_task_and_then_not(tmp_path: Path) -> None:
    penalties = [row["train/penalty"] for row in history(run(tmp_path, "method=l2")) if "train/penalty" in row]
    assert penalties[:3] == [0.0] * 3
    assert all(value > 0 for value in penalties[3:])


def test_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "history.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"st')
    assert read_history(path) == [{"step": 1}, {"step": 2}]


def test_history_is_flushed_line_by_line_and_cut_to_a_checkpoint(tmp_path: Path) -> None:
    history = History(tmp_path / "history.jsonl")
    history.append({"step": 1, "a": math.nan})
    position = history.position()
    history.append({"step": 2})
    assert read_history(history.path) == [{"step": 1, "a": None}, {"step": 2}]
    history.truncate(position)
    history.append({"step": 3})
    history.close()
    assert read_history(history.path) == [{"step": 1, "a": None}, {"step": 3}]


def test_diverged_run_ends_with_the_step_and_the_task(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"^train/loss is (nan|inf) at step 2 \(task 1, rot0\)$"):
        run(tmp_path, "optimizer=sgd", "optimizer.lr=1e30")


# csv ----------------------------------------------------------------------------------------------------------------


def csv_rows(folder: Path) -> list[dict[str, float]]:
    with open(folder / "metrics.csv", newline="") as file:
        return [{k: float(v) for k, v in row.items() if v != ""} for row in csv.DictReader(file)]


def test_csv_has_the_rows_of_the_history(tmp_path: Path) -> None:
    result = run(tmp_path, "logger=csv")
    assert csv_rows(result.folder) == [numbers(row) for row in history(result)]


@pytest.mark.filterwarnings("error")
def test_csv_of_a_killed_and_resumed_run_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        kill_at(patch, 8)
        with pytest.raises(Killed):
            run(tmp_path, "logger=csv", "checkpoint_seconds=1e-9")
    result = run(tmp_path, "logger=csv", "checkpoint_seconds=1e-9")
    assert csv_rows(result.folder) == [numbers(row) for row in history(result)]
    assert len(history(result)) == 12


# W&B ----------------------------------------------------------------------------------------------------------------


def wandb_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))


def test_offline_wandb_has_the_rows_configuration_and_measures_in_the_run_folder(tmp_path: Path) -> None:
    result = run(tmp_path, *WANDB)
    (path,) = wandb_files(result.folder)
    logged = rows(path)
    assert logged == [numbers(row) for row in history(result)]
    steps = [row["step"] for row in logged]
    assert steps == sorted(steps)
    record = run_record(path)
    assert record.run_id == record.display_name == result.folder.name
    assert (record.project, list(record.tags)) == ("lifelong", ["tiny"])
    config = {item.key: json.loads(item.value_json) for item in record.config.update}
    assert config["method"]["strength"] == result.metrics["strength"]
    assert summary(path)["average_accuracy"] == result.metrics["average_accuracy"]
    assert wandb.run is None


def test_killed_and_resumed_run_goes_on_in_the_same_wandb_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        kill_at(patch, 8)
        with pytest.raises(Killed):
            run(tmp_path, *WANDB, "checkpoint_seconds=1e-9")
    assert wandb.run is None
    result = run(tmp_path, *WANDB, "checkpoint_seconds=1e-9")
    logged = [(run_record(path).run_id, rows(path)) for path in wandb_files(result.folder)]
    assert {identifier for identifier, _ in logged} == {result.folder.name}
    together = [row for _, segment in logged for row in segment]
    assert all(numbers(row) in together for row in history(result))
    assert all(row in [numbers(row) for row in history(result)] for row in together)
    last = max((segment for _, segment in logged), key=lambda segment: segment[-1]["step"])
    assert min(row["step"] for row in last) == 8


def test_failed_run_is_closed_so_that_the_next_one_does_not_log_into_it(tmp_path: Path) -> None:
    with pytest.raises(DivergedError):
        run(tmp_path, *WANDB, "optimizer=sgd", "optimizer.lr=1e30")
    assert wandb.run is None
    result = run(tmp_path, *WANDB, "seed=1")
    (path,) = wandb_files(result.folder)
    assert run_record(path).run_id == result.folder.name
    assert len(rows(path)) == len(history(result))
