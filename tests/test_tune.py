"""Strengths are chosen on validation data, and the reported seeds are trained with them."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

import tune
from lifelong.config.schema import ConfigError
from lifelong.plots.report.runs import read_runs
from lifelong.runs.identity import identifier
from studies.protocols import protocol, with_seed
from tune import next_decades
from tuned import SMALL, tuned


def test_grid_grows_until_its_best_is_inside() -> None:
    assert next_decades({}, 1, 4) == [-1, 0, 1]
    assert next_decades({0: 0.1}, 2, 4) == [-2, -1, 1, 2]
    assert next_decades({-1: 0.1, 0: 0.5, 1: 0.4}, 1, 4) == []
    assert next_decades({-1: 0.1, 0: 0.5, 1: 0.6}, 1, 4) == [2]
    assert next_decades({-1: 0.1, 0: 0.5, 1: 0.6, 2: 0.7}, 1, 2) == []
    assert next_decades({-1: 0.5, 0: 0.5, 1: 0.5}, 1, 4) == []  # of equals the one nearest the default
    failed = -math.inf
    assert next_decades({-1: failed, 0: failed, 1: failed}, 1, 4) == [-2, 2]
    assert next_decades({-2: 0.3, -1: failed, 0: failed, 1: failed, 2: failed}, 1, 4) == [-3]
    assert next_decades({-2: failed, -1: failed, 0: failed, 1: failed, 2: failed}, 1, 2) == []


def test_score_is_validation_accuracy_whatever_the_test_says(monkeypatch: pytest.MonkeyPatch) -> None:
    tuning = tune.Tuning(protocol("hsu_split_class", "digits"), "right", (0, 1), 1, 1, SMALL, "runs", jobs=2)
    runs: dict[float, Any] = {
        strength: {"state": "finished", "val_average_accuracy": val, "average_accuracy": 1 - val}
        for strength, val in ((100.0, 0.2), (1000.0, 0.6))
    }
    runs[10000.0] = {"state": "failed", "reason": "DivergedError: train/loss is nan"}
    monkeypatch.setattr(tune.Tuning, "run", lambda self, row, strength, seed, choosing: runs.get(strength))
    assert tuning.scores("ewc") == {-1: 0.2, 0: 0.6, 1: -math.inf}
    runs[1000.0] = None  # not there: no score, and wanted
    assert tuning.scores("ewc") == {-1: 0.2, 1: -math.inf}
    (command,) = tuning.commands("ewc", [0, 1, 2])
    assert {"method.strength=1000.0", "seed=0,1", "hydra/launcher=parallel", "hydra.launcher.n_jobs=2"} <= set(command)


def test_without_run_the_next_commands_are_printed_and_nothing_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned(tmp_path, methods="finetune,ewc")
    bound, grid = capsys.readouterr().out.splitlines()
    assert bound.startswith("python train.py --multirun experiment=hsu_split scenario=class ")
    assert "name=results/hsu_split_class/digits/published/finetune" in bound  # the same run in both columns
    assert "method.strength" not in bound
    assert "val_fraction=0.1" not in bound
    assert "method.strength=100.0,1000.0,10000.0" in grid
    assert "val_fraction=0.1" in grid
    assert list(tmp_path.iterdir()) == []


def test_published_column_has_nothing_to_choose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tuned(tmp_path, "--compat", "published", "--stacked", methods="ewc", seeds="0-3")
    (said,) = capsys.readouterr().out.splitlines()
    assert "compat=published method=ewc " in said
    assert "name=results/hsu_split_class/digits/published/ewc" in said
    assert "seed=0,1,2,3" in said
    assert "method.strength" not in said
    assert said.endswith("hydra/launcher=stacked hydra.launcher.n_jobs=1")  # --jobs commands at a time


def test_seeds_are_numbers_and_ranges() -> None:
    assert tune.seeds_of("3,0-2,7") == [3, 0, 1, 2, 7]


OWN = "must be left out, as it is set here, got "


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("strength_factor=0.1", f"strength_factor {OWN}strength_factor=0.1"),
        ("method.strength=3", f"method.strength {OWN}method.strength=3"),
        ("logger=csv", f"logger {OWN}logger=csv"),
        (
            "val_fraction=0",
            "val_fraction must be > 0 where strengths are chosen by val_average_accuracy, got 0 for ewc",
        ),
    ],
)
def test_override_that_undoes_the_choice_is_one_line(override: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        tuned(tmp_path, override, methods="finetune,ewc")
    assert list(tmp_path.iterdir()) == []


def test_strength_that_nothing_chose_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    tuning = tune.Tuning(protocol("hsu_split_class", "digits"), "right", (0,), 1, 1, SMALL, "runs")
    monkeypatch.setattr(tune.Tuning, "scores", lambda self, row: dict.fromkeys((-1, 0, 1), -math.inf))
    assert tuning.said("ewc") == "ewc: λ = 1000, the default: at none of 3 strengths did all runs end well"


def test_run_that_failed_of_the_disk_is_wanted_again(tmp_path: Path) -> None:
    tuning = tune.Tuning(protocol("hsu_split_class", "digits"), "published", (0,), 1, 1, (), str(tmp_path))
    config = with_seed(tuning.arguments("ewc", None, choosing=False), 0)
    folder = tmp_path / config.name / identifier(config)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config, resolve=True))
    (folder / "error.txt").write_text("OSError: No space left on device\n")
    assert tuning.run("ewc", None, 0, choosing=False) is None
    (folder / "error.txt").write_text("PenaltyError: importance is not finite\n")
    assert tuning.run("ewc", None, 0, choosing=False) is not None


def test_runs_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative --root is the checkout's, where the runs go."""
    tuning = tune.Tuning(protocol("hsu_split_class", "digits"), "published", (0,), 1, 1, (), "runs")
    config = with_seed(tuning.arguments("ewc", None, choosing=False), 0)
    folder = tmp_path / "checkout" / "runs" / config.name / identifier(config)
    folder.mkdir(parents=True)
    (folder / "config.yaml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tune, "ROOT", tmp_path / "checkout")
    monkeypatch.setattr(tune, "read_run", lambda path: {"state": "finished", "path": path})
    assert tuning.run("ewc", None, 0, choosing=False) == {"state": "finished", "path": folder}


@pytest.mark.system
def test_choice_is_the_best_of_its_grid_and_the_same_command_trains_nothing(
    tuning: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = read_runs(tuning)
    chose = runs["path"].map(lambda path: path.parent.name == "choose")
    assert set(runs.loc[chose, "method"]) == {"ewc"}  # the bounds have nothing to choose
    scores = runs[chose].groupby("strength")["val_average_accuracy"].agg(["mean", "count"])
    assert set(scores["count"]) == {2}
    reported = runs[~chose & (runs["method"] == "ewc")]
    assert scores.loc[reported["strength"], "mean"].tolist() == [scores["mean"].max()] * 2
    assert reported["seed"].tolist() == [0, 1]
    capsys.readouterr()
    tuned(tuning)
    assert capsys.readouterr().out.startswith("ewc: λ = ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["homework", "--methods=nope"], "--methods must be some of finetune, l2, "),
        (["homework", "--compat=published", "--methods=l2"], "--methods must be some of finetune, online_ewc, "),
        (["homework", "--seeds=a"], "--seeds must be integers >= 0, "),
        (["homework", "--seeds=0-"], "--seeds must be integers >= 0, "),
        (["homework", "--seeds=2-1"], "--seeds must be integers >= 0, "),
        (["homework", "--seeds=0,0"], "--seeds must be integers >= 0, .* none twice"),
        (["homework", "--choose-seeds=0"], "--choose-seeds must be an integer >= 1, got 0"),
        (["homework", "--around=2", "--reach=1"], "--around must be an integer >= 0 and <= --reach=1, got 2"),
        (["homework", "--jobs=0"], "--jobs must be an integer >= 1, got 0"),
        (["nope"], "protocol must be one of homework, "),
        (["homework", "--data=nope"], "source must be one of mnist, "),
    ],
)
def test_wrong_option_is_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        tune.main(arguments)
