"""Strengths are chosen on validation data, and the reported seeds are trained with them."""

import json
import math
from pathlib import Path

import pytest

import tune
from lifelong.config.schema import ConfigError
from studies.protocols import METHODS, Outcome, protocol, read_protocols
from tune import next_decades, score
from tuned import tuned


def grid(around: int, reach: int) -> tune.Search:
    return tune.Search((0,), around, reach)


def test_grid_grows_until_its_best_is_inside() -> None:
    assert next_decades({}, grid(1, 4)) == [-1, 0, 1]
    assert next_decades({}, grid(2, 4)) == [-2, -1, 0, 1, 2]
    assert next_decades({-1: 0.1, 0: 0.5, 1: 0.4}, grid(1, 4)) == []
    assert next_decades({-1: 0.1, 0: 0.5, 1: 0.6}, grid(1, 4)) == [2]
    assert next_decades({-1: 0.1, 0: 0.5, 1: 0.6, 2: 0.7}, grid(1, 2)) == []
    assert next_decades({-1: 0.5, 0: 0.5, 1: 0.5}, grid(1, 4)) == []  # of equals the one nearest the default
    failed = -math.inf
    assert next_decades({-1: failed, 0: failed, 1: failed}, grid(1, 4)) == [-2, 2]
    assert next_decades({-2: 0.3, -1: failed, 0: failed, 1: failed, 2: failed}, grid(1, 4)) == [-3]
    assert next_decades({-2: failed, 0: failed, 2: failed}, grid(1, 2)) == []


def test_score_is_validation_accuracy_whatever_the_test_says() -> None:
    low, high = (Outcome("id", {"val_average_accuracy": v, "average_accuracy": 1 - v}) for v in (0.2, 0.6))
    failed = Outcome("id", {}, "DivergedError: nan")
    assert score([low]) == 0.2
    assert score([low, high]) == pytest.approx(0.4)
    assert score([low, failed]) == score([Outcome("id", {"val_average_accuracy": None})]) == -math.inf


@pytest.mark.system
@pytest.mark.smoke
def test_choice_is_the_best_of_its_grid_and_the_reported_seeds_have_it(tuning: Path) -> None:
    content = json.loads(tuning.read_text())
    ewc = content["chosen"]["ewc"]
    scores: dict[float, list[float]] = {}
    for run in ewc["grid"]:
        scores.setdefault(run["strength"], []).append(run["val_average_accuracy"])
    assert {len(found) for found in scores.values()} == {2} == {len(ewc["seeds"])}
    assert sum(scores[ewc["strength"]]) == max(sum(found) for found in scores.values())
    assert set(content["chosen"]) == {"ewc"}  # the bounds have nothing to choose
    for run in content["runs"]["ewc"]:
        metrics = json.loads((tuning.parent / run["run_id"] / "metrics.json").read_text())
        assert (metrics["strength"], metrics["seed"]) == (ewc["strength"], run["seed"])


@pytest.mark.system
def test_same_command_trains_nothing_and_more_methods_keep_what_is_there(tuning: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in tuning.parent.glob("*/metrics.json")}
    tuned(tuning.parents[3], "finetune,l2")
    after = {path: path.stat().st_mtime_ns for path in tuning.parent.glob("*/metrics.json")}
    assert {path: after[path] for path in before} == before
    assert set(json.loads(tuning.read_text())["runs"]) >= {"finetune", "ewc", "joint", "l2"}


def test_methods_of_other_settings_do_not_stay(tmp_path: Path) -> None:
    def content(overrides: list[str], method: str, setting: str = "a") -> dict[str, object]:
        return {"overrides": overrides, "setting": setting, "chosen": {}, "runs": {method: [{"seed": 0}]}}

    path = tmp_path / "tuning.json"
    path.write_text(json.dumps(content(["trainer.max_steps=5"], "ewc")))
    assert set(tune.merged(path, content(["trainer.max_steps=5"], "si"))["runs"]) == {"ewc", "si"}
    assert set(tune.merged(path, content([], "si"))["runs"]) == {"si"}
    assert set(tune.merged(path, content(["trainer.max_steps=5"], "si", "b"))["runs"]) == {"si"}  # experiment= changed


@pytest.mark.parametrize("wrong", ["--methods=nope", "--seeds=a", "--seeds=0,0", "--choose-seeds=0"])
def test_wrong_option_is_one_line(wrong: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{wrong.partition('=')[0]} must be "):
        tune.main(["homework", wrong])


def test_unknown_protocol_and_data_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^protocol must be one of homework, "):
        protocol("nope", "digits")
    with pytest.raises(ConfigError, match=r"^source must be one of mnist5k, "):
        protocol("homework", "nope")


def test_protocols_name_methods_that_there_are() -> None:
    for entry in read_protocols()["protocols"].values():
        assert set(entry["published"]) <= set(METHODS)
