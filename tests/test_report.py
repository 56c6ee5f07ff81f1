"""Tables from run folders: seeds are averaged, what differs is kept apart, what is unfinished is listed."""

import json
import statistics
import sys
from pathlib import Path
from typing import Any

import pytest

import table
from lifelong.config import compose, setting
from lifelong.report import grouped, mean_and_std, read_runs

RUN = {
    "dataset": "rotated", "source": "digits", "scenario": "domain", "order": [0, 1], "cycles": 1, "memory": "none",
    "average_accuracy": 0.5, "val_average_accuracy": 0.4, "forgetting": 0.1, "learning_accuracy": 0.9,
    "train_seconds": 3.0, "evaluation_seconds": 1.0, "strength": 1.0,
}  # fmt: skip


def write(folder: Path, name: str, **metrics: Any) -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "config.yaml").write_text("")
    if metrics:
        (folder / name / "metrics.json").write_text(json.dumps({**RUN, **metrics}))


def test_runs_are_read_finished_and_unfinished(tmp_path: Path) -> None:
    write(tmp_path, "a/one", method="ewc", seed=0)
    write(tmp_path, "b/two")
    finished, unfinished = read_runs(tmp_path)
    assert [run["method"] for run in finished] == ["ewc"]
    assert unfinished == [tmp_path / "b" / "two"]


def test_folder_without_runs_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no run folder below"):
        read_runs(tmp_path)


def test_groups_keep_what_differs_apart() -> None:
    runs = [{"m": "a", "s": 0}, {"m": "b", "s": 0}, {"m": "a", "s": 1}]
    assert {key: len(members) for key, members in grouped(runs, ["m"]).items()} == {("a",): 2, ("b",): 1}


def test_spread_is_the_sample_standard_deviation() -> None:
    mean, std = mean_and_std([1.0, 2.0, 4.0])
    assert mean == pytest.approx(7 / 3)
    assert std == pytest.approx(statistics.stdev([1.0, 2.0, 4.0]))
    assert str(mean_and_std([1.0])[1]) == "nan"


def test_table_averages_seeds_alone_and_names_the_unfinished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, "e0", method="ewc", seed=0, average_accuracy=0.70)
    write(tmp_path, "e1", method="ewc", seed=1, average_accuracy=0.74)
    write(tmp_path, "e2", method="ewc", seed=0, average_accuracy=0.20, order=[1, 0])
    write(tmp_path, "m0", method="mas", seed=0, average_accuracy=0.60, forgetting=None)
    write(tmp_path, "s0")
    monkeypatch.setattr(sys, "argv", ["table.py", str(tmp_path)])
    table.print_runs(None, table.table)
    lines = capsys.readouterr().out.splitlines()
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines if line.startswith("│")]
    assert [row[:4] for row in rows] == [
        ["[0, 1]", "ewc", "2", "72.0 ± 2.8"],
        ["[0, 1]", "mas", "1", "60.0"],
        ["[1, 0]", "ewc", "1", "20.0"],
    ]
    assert rows[1][5] == "undefined"
    assert any("not finished" in line for line in lines)


def test_runs_of_different_settings_are_not_averaged_as_seeds(tmp_path: Path) -> None:
    write(tmp_path, "e0", method="ewc", seed=0, setting="a")
    write(tmp_path, "e1", method="ewc", seed=1, setting="a")
    write(tmp_path, "e2", method="ewc", seed=0, setting="b")
    result = table.table(read_runs(tmp_path)[0])
    assert [column.header for column in result.columns][:3] == ["method", "setting", "seeds"]
    assert list(result.columns[2].cells) == ["2", "1"]


def test_setting_differs_with_everything_but_the_seed() -> None:
    plain, seeded, longer = (setting(compose(o)) for o in (["seed=0"], ["seed=5"], ["trainer.max_epochs=3"]))
    assert plain == seeded
    assert plain != longer
