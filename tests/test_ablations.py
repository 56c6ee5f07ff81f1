"""The script-only methods do what they say, and an ablation's page is made of its table."""

import json
import math
import shlex
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from pandas import DataFrame

import ablations
import homework
import tiny
from ablated import MovingFisher, PathScore
from ablations import Ablation, order_spread, read_ablations
from lifelong.config.checks import check
from lifelong.config.schema import ConfigError
from lifelong.experiment.errors import composed
from lifelong.methods.rwalk import RWalk
from lifelong.runs.identity import identifier
from run_folders import finished, finished_as
from studies.pages import read_csv
from studies.protocols import DATA, protocol

ABLATIONS = read_ablations()
SWEPT = ("seed=", "method.strength=", "dataset.order=")


def test_rwalks_parts_add_up_to_the_whole() -> None:
    stream = tiny.permuted(2)
    held = {}
    for method in (RWalk, MovingFisher, PathScore):
        learner, penalty = tiny.make_learner(stream), method(0.0, interval=3)
        tiny.fit(learner, penalty, stream.task(0).train, penalty)
        tiny.keep(learner, penalty, stream.task(0).train)
        held[method] = penalty.importance
    for name, whole in held[RWalk].items():
        torch.testing.assert_close(held[MovingFisher][name] + held[PathScore][name], whole)


@pytest.mark.system
def test_every_arm_composes() -> None:
    for ablation in ABLATIONS.values():
        assert any(arm.endswith(ablation.reference) for arm in ablation.arms)
        for arm in ablation.arms:
            command = [a for a in ablation.command(arm, "runs", 1) if not a.startswith("-")]
            check(composed([a.split(",")[0] if a.startswith(SWEPT) else a for a in command]))


def rows(arm: str, x: str, val: float, *tests: float) -> DataFrame:
    """A row per seed; nan: diverged."""
    frame = DataFrame({"average_accuracy": tests, "val_average_accuracy": val, "forgetting": 0.1})
    failed = ["DivergedError" if math.isnan(test) else "" for test in tests]
    return frame.assign(arm=arm, x=x, seed=range(len(tests)), failed=failed)


def ablation(reference: str = "b", **options: Any) -> Ablation:
    return Ablation("any", "?", [], {"a": ["method=ewc"], "b": ["method=mas"]}, reference, [0, 1], **options)


def test_arms_are_compared_at_the_strength_that_is_best_on_validation_data() -> None:
    found = pd.concat([rows("a", "1", 0.5, 0.9), rows("a", "10", 0.6, 0.1), rows("a", "100", 0.9, math.nan)])
    table = ablation(decades=[0, 2]).table(found)
    assert table.iloc[0].tolist() == ["a", "10", "10.0", "10.0", "", "1 of 3"]


def test_strengths_are_compared_among_those_with_the_most_seeds() -> None:
    """At λ = 10 the hard seed is not there yet."""
    found = pd.concat([rows("a", "1", 0.7, 0.9, 0.5), rows("a", "10", 0.85, 0.85)])
    assert ablation(decades=[0, 1]).compared(found, "a")["x"].tolist() == ["1", "1"]


def test_runs_of_an_earlier_plan_are_left_out_and_commands_are_of_their_runs(tmp_path: Path) -> None:
    base = ["dataset/source=digits", "trainer.max_epochs=5"]
    plan = Ablation("any", "?", base, {"a": ["method=ewc"]}, "a", [0], decades=[1, 2])
    columns = list(read_csv(DATA / "ablations.csv"))
    for strength, more in ((10.0, base), (100.0, base), (10.0, base[:1])):
        config = composed([*more, "logger=none", "method=ewc", f"method.strength={strength}", "seed=0"])
        finished_as(plan.place(tmp_path, "a"), config)
    found = plan.rows(tmp_path, columns).sort_values("x")
    assert found["x"].tolist() == ["10", "100"]
    for row in found.itertuples():
        assert identifier(composed(shlex.split(row.command)[2:])) == row.run_id
    plan.check_runs(tmp_path)
    shutil.rmtree(plan.place(tmp_path, "a") / found["run_id"].iloc[0])
    with pytest.raises(ConfigError, match=r"^any: 1 of 2 runs neither finished nor diverged: see what they say, "):
        plan.check_runs(tmp_path)


def test_homework_is_tested_every_step_or_less_often(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--every must be an integer >= 1, got 0$"):
        homework.main(["--run", "--every", "0", "--root", str(tmp_path), "--docs", str(tmp_path)])


def test_rows_that_are_not_found_again_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep that was cut short does not take the rows of its whole arm."""
    shutil.copytree(DATA, tmp_path / "data")
    for page in {f"{ablation.page}.md" for ablation in ABLATIONS.values()}:
        shutil.copy(DATA.parent / page, tmp_path)
    before = read_csv(DATA / "ablations.csv")
    again = before[before["ablation"] == "homework"].iloc[[3]].assign(average_accuracy=0.5)
    monkeypatch.setattr(Ablation, "rows", lambda self, *_: again if self.name == "homework" else before[:0])
    ablations.main(["--root", str(tmp_path), "--docs", str(tmp_path)])
    after = read_csv(tmp_path / "data" / "ablations.csv")
    assert len(after) == len(before)
    assert (after["average_accuracy"] == 0.5).sum() == (before["average_accuracy"] == 0.5).sum() + 1


def test_differences_are_paired_by_seed_and_order() -> None:
    """With orders the mean over those of a seed: (0.1 + 0.3) / 2 and (0.2 + 0) / 2."""
    plain = pd.concat([rows("a", "", 0, 0.5, 0.8), rows("b", "", 0, 0.4, 0.6)])
    assert ablation().difference(plain, "a").tolist() == pytest.approx([0.1, 0.2])
    assert ablation().difference(plain, "b").empty
    ordered = pd.concat([
        rows("a", "given", 0, 0.5, 0.8), rows("b", "given", 0, 0.4, 0.6),
        rows("a", "reversed", 0, 0.7, 0.5), rows("b", "reversed", 0, 0.4, 0.5),
    ])  # fmt: skip
    assert ablation(orders=["given", "reversed"]).difference(ordered, "a").tolist() == pytest.approx([0.2, 0.1])
    spread = order_spread(ordered).set_index("")  # of a: means 0.65, 0.6; within: variances 0.045, 0.02
    assert spread.loc["a"].tolist() == ["3.5", "18.0"]


def test_an_arm_may_have_decades_of_its_own() -> None:
    plan = ablation(decades=[0, 1], own_decades={"b": [-2, -1]})
    grids = [next(a for a in plan.command(arm, "runs", 1) if a.startswith("method.strength=")) for arm in "ab"]
    assert grids == ["method.strength=1e0,1e1", "method.strength=1e-2,1e-1"]


def test_curve_is_the_mean_over_the_tasks_seen_so_far(tmp_path: Path) -> None:
    """Rows of history.jsonl: an epoch of task 1; two epochs of task 2, which tests both tasks."""
    history = [
        {"task": 0, "step": 4, "within/a": 0.8},
        {"task": 1, "step": 6, "within/a": 0.6, "within/b": 0.2},
        {"task": 1, "step": 8, "within/a": 0.4, "within/b": 0.7},
    ]
    (tmp_path / "history.jsonl").write_text("\n".join(map(json.dumps, history)) + "\n")
    found = homework.mean_over_seen(tmp_path)
    assert found.to_numpy().tolist() == [[1.0, 0.8], [1.5, pytest.approx(0.4)], [2.0, pytest.approx(0.55)]]


def test_figure_leaves_out_runs_of_before_and_those_without_points(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / protocol("homework", "mnist5k").place("mas", "published")
    for seed, within in enumerate((True, True, False)):
        finished(place, "method=mas", f"seed={seed}", within=within).rename(place / f"mas-s{seed}")
    monkeypatch.setattr(homework, "_id_now", lambda *_: "mas-s0")
    assert set(homework.curves("mnist5k", ["mas"], tmp_path)["seed"]) == {0}
    monkeypatch.setattr(homework, "_id_now", lambda *_: "mas-s2")
    assert homework.curves("mnist5k", ["mas"], tmp_path).empty
    assert "mas-s2 was not tested within its tasks" in capsys.readouterr().err


def test_figure_keeps_the_methods_whose_runs_are_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(DATA, tmp_path / "data")
    before = read_csv(DATA / "homework.csv")
    place = tmp_path / protocol("homework", "mnist").place("mas", "published")
    finished(place, "method=mas", "seed=0", within=True).rename(place / "mas-s0")
    monkeypatch.setattr(homework, "_id_now", lambda *_: "mas-s0")
    homework.main(["--root", str(tmp_path), "--docs", str(tmp_path)])
    after = read_csv(tmp_path / "data" / "homework.csv")
    new, kept = (after[after["method"] == "mas"], after[after["method"] != "mas"])
    assert len(new) == 6  # two evaluations of each of three tasks
    assert kept.to_numpy().tolist() == before[before["method"] != "mas"].to_numpy().tolist()


def test_docs_hold_the_tables_that_their_file_makes(tmp_path: Path) -> None:
    """Every ablation of the plan was run, and `make results` without runs changes nothing."""
    shutil.copytree(DATA, tmp_path / "data")
    pages = {f"{ablation.page}.md" for ablation in ABLATIONS.values()}
    for page in pages:
        shutil.copy(DATA.parent / page, tmp_path)
    ablations.main(["--root", str(tmp_path), "--docs", str(tmp_path)])
    homework.main(["--root", str(tmp_path), "--docs", str(tmp_path)])
    for page in pages:
        assert (tmp_path / page).read_text() == (DATA.parent / page).read_text()
    assert {path.stem.removeprefix("ablation_") for path in tmp_path.glob("*.png")} == {*ABLATIONS, "homework"}


@pytest.mark.system
def test_ablation_is_run_by_its_sweeps_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = ["dataset=rotated", "dataset/source=digits", "dataset.source.test_fraction=0.8", "dataset.angles=[0,30]"]
    base += ["backbone.widths=[8]", "trainer=cpu", "trainer.max_epochs=1", "log_every_n_steps=2", "optimizer=sgd"]
    own = ["method=rwalk", "method._target_=ablated.PathScore", "trusted=[ablated]"]
    arms = {"ewc": ["method=ewc"], "path score": own}
    small = Ablation("anchors", "A question?", base, arms, "ewc", [0, 1], decades=[30, 30])
    monkeypatch.setattr(ablations, "read_ablations", lambda: {"anchors": small})
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ablations.csv").write_text((DATA / "ablations.csv").read_text().partition("\n")[0] + "\n")
    (tmp_path / "ablations.md").write_text("<!-- begin anchors --><!-- end anchors -->")
    arguments = ["--root", str(tmp_path / "runs"), "--docs", str(tmp_path)]
    page = ablations.main(["anchors", "--run", *arguments]) / "ablations.md"
    text = page.read_text()
    assert "2 seeds, 4 runs." in text
    assert "| ewc |  | – | – |  | 2 of 2 |" in text
    assert "| path score |" in text
    assert (tmp_path / "ablation_anchors.png").exists()
    ablations.main(["--root", str(tmp_path), *arguments[2:]])
    assert page.read_text() == text
