"""The printed table: seeds are averaged, whatever else differs stands in a row of its own."""

from pathlib import Path

import pytest

import table
from lifelong.plots.report.page import write_report
from run_folders import finished, unfinished


def terminal(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[list[list[str]], str]:
    table.main(arguments)
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith("│")]
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines], out


def test_table_averages_seeds_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finished(tmp_path, "method=ewc", "seed=0", average_accuracy=0.70)
    finished(tmp_path, "method=ewc", "seed=1", average_accuracy=0.74, method_code="b" * 64)
    finished(tmp_path, "method=mas", "seed=0", average_accuracy=0.60, forgetting=None, strength=1000.0)
    finished(tmp_path, "method=mas", "seed=1", average_accuracy=0.62, forgetting=None, strength=1000.0)
    finished(tmp_path, "method=ewc", "seed=0", "dataset.order=reversed", average_accuracy=0.20, order=[2, 1, 0])
    unfinished(tmp_path, "method=si")
    rows, out = terminal(capsys, str(tmp_path))
    assert [row[:4] for row in rows] == [
        ["ewc code=bbbbbbbb", "1000", "1", "74.0"],
        ["ewc code=aaaaaaaa", "1000", "1", "70.0"],
        ["mas", "1", "2", "61.0 ± 12.7"],
        ["ewc", "1000", "1", "20.0"],
    ]
    assert rows[2][5] == "–"
    assert "warning: ewc" in out
    assert "no intransigence for 5 of 5 runs" in out
    assert "unfinished: " in out


def test_orders_are_averaged_over_seeds_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """given: 0.5 and 0.7; over the orders: the mean of 0.6 and 0.8, not of three runs. Other streams stay apart."""
    for seed, order, accuracy in ((0, [0, 1, 2], 0.5), (1, [0, 1, 2], 0.7), (0, [2, 1, 0], 0.8)):
        given = "given" if order[0] == 0 else "reversed"
        about = {"order": order, "average_accuracy": accuracy, "forgetting": None}
        finished(tmp_path, f"seed={seed}", f"dataset.order={given}", **about)
    finished(tmp_path, "seed=0", "dataset.angles=[0,1,2]", **about)
    rows, out = terminal(capsys, str(tmp_path), "--orders")
    assert [row[2:] for row in rows] == [
        ["reversed", "1", "80.0", "–"],
        ["all 1", "", "80.0", "–"],
        ["given", "2", "60.0 ± 127.1", "–"],
        ["reversed", "1", "80.0", "–"],
        ["all 2", "", "70.0 ± 127.1", "–"],
    ]
    assert out.count("dataset.angles=") == 2
    assert table.order_name([1, 0, 2]) == "1 0 2"


def test_method_without_a_strength_has_none_in_the_table_of_orders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished(tmp_path, "method=finetune", "seed=0")
    rows, _ = terminal(capsys, str(tmp_path), "--orders")
    assert [row[:3] for row in rows] == [["finetune", "–", "given"], ["finetune", "–", "all 1"]]


def test_seed_whose_order_is_spelled_in_two_ways_counts_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for spelled in ("null", "given", "[0,1,2]"):
        finished(tmp_path, "seed=0", f"dataset.order={spelled}", order=[0, 1, 2], average_accuracy=0.5, forgetting=None)
    rows, _ = terminal(capsys, str(tmp_path), "--orders")
    assert [row[2:4] for row in rows] == [["given", "1"], ["all 1", ""]]


def test_orders_of_no_finished_run_are_no_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unfinished(tmp_path, "seed=0")
    rows, out = terminal(capsys, str(tmp_path), "--orders")
    assert (rows, out.count("unfinished: ")) == ([], 1)


def test_damaged_runs_alone_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (unfinished(tmp_path) / "config.yaml").write_text("a: 1")
    for more in ([], ["--orders"]):
        rows, out = terminal(capsys, str(tmp_path), *more)
        assert (rows, out.count("damaged: ")) == ([], 1)
    assert "0 of 1 runs finished" in write_report(tmp_path).read_text(encoding="utf-8")
