"""Weights & Biases, offline: what lies in the run folder is what the history says."""

import json
from pathlib import Path

import numpy as np
import pytest
import wandb
from PIL import Image

from lifelong.tracking import DivergedError
from lifelong.tracking.loggers.wandb import kept_rows
from runs import run, run_killed
from wandb_log import rows, run_record, summary
from wandb_session import WANDB, history, scalars, wandb_file


def test_offline_run_has_all_there_is(tmp_path: Path, wandb_afresh: None, capfd: pytest.CaptureFixture[str]) -> None:
    result = run(tmp_path, *WANDB, "name=my_sweep", "logger.wandb.notes=without decay")
    assert wandb.run is None
    path = wandb_file(result.folder)
    logged = rows(path)
    assert scalars(logged) == history(result)
    costs = [row for row in logged if "train/loss" in row]
    assert all(row["cost/samples_per_second"] > 0 and row["cost/peak_memory_bytes"] > 1e6 for row in costs)
    record = run_record(path)
    assert (record["run_id"], record["display_name"]) == (result.folder.name, "ewc λ=1000 · rotated digits · seed 0")
    assert (record["project"], record["tags"], record["notes"]) == ("lifelong", ["tiny"], "without decay")
    assert (record["run_group"], record["job_type"]) == ("my_sweep", "ewc")
    config = record["config"]["update"]
    assert config["method.strength"] == result.metrics["strength"]
    assert config["dataset.angles"] == [0, 30]
    assert not any(isinstance(value, dict) and value for key, value in config.items() if key != "_wandb")
    kept = summary(path)
    assert {key: kept[key] for key in result.metrics} == result.metrics
    said = f"W&B is offline (WANDB_MODE=offline): the rows are in {result.folder}/wandb, make sync uploads them\n"
    assert capfd.readouterr().err == said


def assert_matrix_and_importance_of_each_task(path: Path, names: list[str], matrix: list[list[float]]) -> None:
    """As a table and as a picture; and a histogram of log10 Ω for each layer, of the entries that are positive."""
    media = path.parent / "files"
    after = [row for row in rows(path) if "accuracy_matrix.path" in row]
    assert [row["step"] for row in after] == [6, 12]
    for k, row in enumerate(after):
        table = json.loads((media / row["accuracy_matrix.path"]).read_text())
        assert table["columns"] == ["after learning", *names]
        assert table["data"] == [[names[i], *matrix[i]] for i in range(k + 1)]
        picture = np.asarray(Image.open(media / row["accuracy_matrix_image.path"]))
        assert picture.shape[:2] == tuple(row[f"accuracy_matrix_image.{side}"] for side in ("height", "width"))
        assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 20
        for layer in ("body.1.weight", "body.1.bias", "head.weight", "head.bias"):
            bins, values = (row[f"importance/log10/{layer}.{part}"] for part in ("bins", "values"))
            assert len(bins) == len(values) + 1 == 33
            assert sum(values) > 0
        assert sum(key.startswith("importance/") and key.endswith(".bins") for key in row) == 4


def test_killed_and_resumed_run_has_all_rows_costs_and_media_once(tmp_path: Path) -> None:
    """Also those of before the kill, which W&B itself may not have written yet."""
    run_killed(tmp_path, *WANDB, "checkpoint_seconds=1e-9")
    assert wandb.run is None
    result = run(tmp_path, *WANDB, "logger.wandb.group=other", "checkpoint_seconds=1e-9")
    path = wandb_file(result.folder)
    assert (run_record(path)["run_id"], run_record(path)["run_group"]) == (result.folder.name, "other")
    assert scalars(rows(path)) == history(result)
    assert all("cost/samples_per_second" in row for row in rows(path) if "train/loss" in row)
    assert_matrix_and_importance_of_each_task(path, list(result.names), result.matrix.tolist())


def test_run_that_begins_anew_takes_the_place_of_what_it_had_logged(tmp_path: Path) -> None:
    first = run(tmp_path, *WANDB)
    again = run(tmp_path, *WANDB, "rerun=true")
    assert again.folder == first.folder
    assert scalars(rows(wandb_file(again.folder))) == history(again)


def test_failed_run_is_closed_so_that_the_next_one_does_not_log_into_it(tmp_path: Path) -> None:
    with pytest.raises(DivergedError):
        run(tmp_path, *WANDB, "optimizer=sgd", "optimizer.lr=1e30")
    assert wandb.run is None
    result = run(tmp_path, *WANDB, "seed=1")
    path = wandb_file(result.folder)
    assert (run_record(path)["run_id"], len(rows(path))) == (result.folder.name, len(history(result)))


COST, FROM_A_CALLBACK = {"cost": 1.0}, {"step": 1, "mine": 1.0}
ROWS = [{"step": step, "task": 0} for step in range(4)]


@pytest.mark.parametrize(
    ("kept", "history", "expected"),
    {
        "whole": ([ROWS[0] | COST, ROWS[1]], ROWS[:2], [ROWS[0] | COST, ROWS[1]]),
        "lost": ([ROWS[0] | COST], ROWS[:3], [ROWS[0] | COST, *ROWS[1:3]]),
        "past the checkpoint": ([ROWS[0], ROWS[1] | COST, ROWS[2]], ROWS[:2], [ROWS[0], ROWS[1] | COST]),
        "of a callback": ([ROWS[0], FROM_A_CALLBACK, ROWS[1]], ROWS[:1], [ROWS[0], FROM_A_CALLBACK]),
        "of another logger": ([], ROWS, ROWS),
        "begun anew": ([ROWS[0] | COST], [], []),
    }.values(),
)
def test_rows_kept_for_wandb_are_those_of_the_history_with_what_they_have_besides(
    tmp_path: Path, kept: list[dict[str, float]], history: list[dict[str, float]], expected: list[dict[str, float]]
) -> None:
    path = tmp_path / "wandb" / "rows.jsonl"
    path.parent.mkdir()
    path.write_text("".join(f"{json.dumps(row)}\n" for row in kept) + '{"torn')
    (tmp_path / "history.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in history))
    assert kept_rows(tmp_path) == kept_rows(tmp_path) == expected
