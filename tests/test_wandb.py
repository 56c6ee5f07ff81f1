"""Weights & Biases, offline: what lies in the run folder is what the history says."""

import json
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest
import wandb
from PIL import Image

from lifelong.experiment.run import Result
from lifelong.tracking import DivergedError, read_history
from runs import at_every_batch, run
from wandb_log import rows, run_record, summary
from wandb_server import Server

WANDB = ("logger=wandb", "logger.tags=[tiny]")
MEDIA = ("accuracy_matrix", "accuracy_matrix_image", "importance/")


class Killed(BaseException):
    """As kill -9."""


def kill_at(patch: pytest.MonkeyPatch, step: int) -> None:
    def kill(_: Any, done: int) -> None:
        if done == step:
            raise Killed

    at_every_batch(patch, kill)


def fault_at(patch: pytest.MonkeyPatch, step: int, server: Server, fault: dict[str, Any]) -> None:
    """The server fails from a step on; it has taken the run up before."""

    def act(_: Any, done: int) -> None:
        deadline = monotonic() + 20
        while done == step and not server.runs and monotonic() < deadline:
            sleep(0.02)
        if done == step:
            vars(server).update(fault)

    at_every_batch(patch, act)


def wandb_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))


def scalars(row: dict[str, Any]) -> dict[str, float]:
    """Without costs, which no two runs share, and media."""
    return {k: v for k, v in row.items() if not k.startswith(("cost/", *MEDIA))}


def history(result: Result) -> list[dict[str, float]]:
    found = read_history(result.folder / "history.jsonl")
    return [{key: value for key, value in row.items() if value is not None} for row in found]


def test_offline_run_has_rows_configuration_and_measures(tmp_path: Path) -> None:
    result = run(tmp_path, *WANDB, "name=my_sweep")
    (path,) = wandb_files(result.folder)
    logged = rows(path)
    assert [scalars(row) for row in logged] == history(result)
    steps = [row["step"] for row in logged]
    assert steps == sorted(steps)
    record = run_record(path)
    assert (record.run_id, record.display_name) == (result.folder.name, "ewc λ=1000 · rotated digits · seed 0")
    assert (record.project, list(record.tags)) == ("lifelong", ["tiny"])
    assert (record.run_group, record.job_type) == ("my_sweep", "ewc")
    config = {item.key: json.loads(item.value_json) for item in record.config.update}
    assert config["method.strength"] == result.metrics["strength"]
    assert config["dataset.angles"] == [0, 30]
    assert not any(isinstance(value, dict) and value for key, value in config.items() if key != "_wandb")
    kept = summary(path)
    assert {key: kept[key] for key in result.metrics} == result.metrics
    assert wandb.run is None


def test_costs_are_in_the_rows_of_training(tmp_path: Path) -> None:
    (path,) = wandb_files(run(tmp_path, *WANDB).folder)
    costs = [row for row in rows(path) if "train/loss" in row]
    assert all(row["cost/samples_per_second"] > 0 and row["cost/peak_memory_bytes"] > 1e6 for row in costs)


def test_after_each_task_there_are_matrix_and_importance(tmp_path: Path) -> None:
    """As a table and as a picture; and a histogram of log10 Ω for each layer, of the entries that are positive."""
    result = run(tmp_path, *WANDB, "logger.group=other")
    (path,) = wandb_files(result.folder)
    assert run_record(path).run_group == "other"
    media = path.parent / "files"
    after = [row for row in rows(path) if "accuracy_matrix" in row]
    assert [row["step"] for row in after] == [6, 12]
    for k, row in enumerate(after):
        table = json.loads((media / row["accuracy_matrix"]["path"]).read_text())
        assert table["columns"] == ["after learning", "rot0", "rot30"]
        assert table["data"] == [[result.names[i], *result.matrix[i].tolist()] for i in range(k + 1)]
        picture = np.asarray(Image.open(media / row["accuracy_matrix_image"]["path"]))
        assert picture.shape[:2] == tuple(row["accuracy_matrix_image"][side] for side in ("height", "width"))
        assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 20
        layers = {key.removeprefix("importance/log10/") for key in row if key.startswith("importance/")}
        assert layers == {"body.1.weight", "body.1.bias", "head.weight", "head.bias"}
        for layer in layers:
            histogram = row[f"importance/log10/{layer}"]
            assert len(histogram["bins"]) == len(histogram["values"]) + 1 == 33
            assert sum(histogram["values"]) > 0


def test_killed_and_resumed_run_goes_on_in_the_same_wandb_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        kill_at(patch, 8)
        with pytest.raises(Killed):
            run(tmp_path, *WANDB, "checkpoint_seconds=1e-9")
    assert wandb.run is None
    result = run(tmp_path, *WANDB, "checkpoint_seconds=1e-9")
    files = sorted(wandb_files(result.folder), key=lambda path: path.stat().st_mtime)
    logged = [(run_record(path).run_id, rows(path)) for path in files]
    assert {identifier for identifier, _ in logged} == {result.folder.name}
    assert len(logged) == 2
    assert [scalars(row) for _, segment in logged for row in segment] == history(result)


def test_run_that_begins_anew_takes_the_place_of_what_it_had_logged(tmp_path: Path) -> None:
    first = run(tmp_path, *WANDB)
    again = run(tmp_path, *WANDB, "rerun=true")
    assert again.folder == first.folder
    (path,) = wandb_files(again.folder)
    assert [scalars(row) for row in rows(path)] == history(again)


def test_failed_run_is_closed_so_that_the_next_one_does_not_log_into_it(tmp_path: Path) -> None:
    with pytest.raises(DivergedError):
        run(tmp_path, *WANDB, "optimizer=sgd", "optimizer.lr=1e30")
    assert wandb.run is None
    result = run(tmp_path, *WANDB, "seed=1")
    (path,) = wandb_files(result.folder)
    assert run_record(path).run_id == result.folder.name
    assert len(rows(path)) == len(history(result))
