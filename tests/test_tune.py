"""Strengths are chosen on validation data, and every number of the results page is a run's."""

import csv
import json
import math
import statistics
from pathlib import Path

import pytest

import results
import results_page
import tune
from lifelong.config import ConfigError
from protocols import METHODS, Outcome, protocol, read_protocols
from tune import next_decades, score

SMALL = (
    "backbone.widths=[8]",
    "dataset.source.test_fraction=0.8",
    "trainer.max_epochs=1",
    "trainer=cpu",
    "num_threads=1",
)
SMALL += ("log_every_n_steps=2",)


def tuned(root: Path, methods: str = "finetune,ewc,joint", seeds: str = "0,1") -> Path:
    where = ["hsu_split_class", "--data", "digits", "--root", str(root), "--reach", "2"]
    return tune.main([*where, "--methods", methods, "--seeds", seeds, *SMALL])


@pytest.fixture(scope="module")
def tuning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tuned(tmp_path_factory.mktemp("runs"))


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


@pytest.mark.slow
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


@pytest.mark.slow
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


# The page ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_page_is_rebuilt_from_its_tables_alone(tuning: Path, tmp_path: Path) -> None:
    made = results.main([str(tuning.parents[3]), "--docs", str(tmp_path)]).read_text()
    again = results.main([str(tmp_path / "no runs"), "--docs", str(tmp_path)]).read_text()
    assert made == again
    assert "| online_ewc |  | not run |" in made
    assert "1,797 digits of 8 × 8 pixels" in made
    with (tmp_path / "data" / "results.csv").open() as file:
        for row in csv.DictReader(file):
            metrics = json.loads((tuning.parent / row["run_id"] / "metrics.json").read_text())
            assert float(row["average_accuracy"]) == pytest.approx(metrics["average_accuracy"], rel=1e-5)


def row(method: str, seed: int, accuracy: float) -> dict[str, str]:
    values = {"method": method, "seed": seed, "average_accuracy": accuracy, "forgetting": 0.1, "learning_accuracy": 0.9}
    return {key: str(value) for key, value in {**values, "strength": 10, "seconds": 1, "failed": ""}.items()}


def test_method_that_diverged_is_not_shown_as_not_run() -> None:
    failed = [{**row("mas", seed, math.nan), "failed": "DivergedError: train/loss is nan"} for seed in (0, 1)]
    shown = results_page.table(protocol("hsu_split_class", "digits"), failed, results_page.summaries(failed))
    assert "| mas | 10 | all 2 diverged |" in shown
    assert "| l2 |  | not run |" in shown
    assert "mas (2 of its seeds) diverged" in results_page.of_diverged(failed)
    assert results_page.of_diverged([row("mas", 0, 0.5)]) == ""


def test_no_number_is_minus_nothing() -> None:
    assert results_page.plus_minus([-0.01, 0.01, -0.03]) == "0.0 ± 0.0"


def test_overview_says_diverged_only_of_what_did() -> None:
    rows = [row("finetune", 0, 0.2), row("si", 0, 0.5), {**row("mas", 0, math.nan), "failed": "DivergedError"}]
    shown = results_page.overview({("hsu_split_class", "digits"): rows})  # without joint there is no gap
    assert "| hsu_split_class, 1,797 digits of 8 × 8 pixels |  |  |  |  | diverged |  |  |  | 1 |" in shown


def test_interval_is_students_and_the_gap_is_paired_by_seed() -> None:
    accuracies = {"finetune": [0.5, 0.6], "ewc": [0.6, 0.8], "joint": [0.9, 1.0]}
    found = results_page.summaries([row(m, s, a) for m, both in accuracies.items() for s, a in enumerate(both)])
    half = 12.706204736 * statistics.stdev([60, 80]) / math.sqrt(2)  # of t with one degree of freedom
    assert found["ewc"].interval == pytest.approx(half)
    assert results_page.gap_closed(found["ewc"], found) == pytest.approx((0.1 / 0.4 + 0.2 / 0.4) / 2)


def test_sentences_say_which_row_falls_short_of_what_was_published() -> None:
    plan = protocol("hsu_split_class", "fashion")
    found = results_page.summaries([row("ewc", s, 0.1) for s in (0, 1)] + [row("joint", s, 0.99) for s in (0, 1)])
    said = results_page.sentences(plan, found)
    assert "; farthest below its published number is ewc (10.0 ± 0.0 against 19.8 on MNIST)" in said
    assert plan.reason in said
    alone = results_page.summaries([row("ewc", s, 0.1) for s in (0, 1)])  # no pair to order
    assert ". Farthest below" in results_page.sentences(plan, alone)
    better = results_page.summaries([row("ewc", s, 0.5) for s in (0, 1)])
    assert plan.reason not in results_page.sentences(plan, better)
