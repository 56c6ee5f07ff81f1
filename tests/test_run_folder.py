"""runs/<name>/<run id>/: what is in it, what the same command does with it, what a damaged one does."""

import copy
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

import lifelong
from lifelong.config.schema import ConfigError
from lifelong.data.examples import as_input
from lifelong.experiment import result
from lifelong.experiment.errors import composed
from lifelong.experiment.parts import make_stream
from lifelong.experiment.result import draw
from lifelong.experiment.run import Result
from lifelong.models.evaluation import accuracy_row
from lifelong.runs.folder import RunFolder, RunFolderError, run_id
from lifelong.runs.identity import ADDED, ADDED_TO, flattened, identifier, identity
from lifelong.tracking import DivergedError
from runs import TINY, Said, assert_same_run, at_every_batch, command, composed_tiny, run, weights

FILES = {
    ".lock", "accuracy_matrix.csv", "config.yaml", "history.jsonl", "last.ckpt", "metrics.json", "model.pt",
    "val_accuracy_matrix.csv",
}  # fmt: skip
PICTURES = {"accuracy_curves.png", "accuracy_matrix.png"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Result:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(result, "draw", draw)
        return run(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def folder(finished: Result, tmp_path: Path) -> Path:
    """A copy of the finished run, to damage."""
    copy = tmp_path / "default" / finished.folder.name
    copy.mkdir(parents=True)
    for path in finished.folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# What is in it ------------------------------------------------------------------------------------------------------


def test_folder_holds_the_run_and_nothing_else_and_every_setting_is_resolved(finished: Result) -> None:
    assert {path.name for path in finished.folder.iterdir()} == FILES | PICTURES
    assert "${" not in (finished.folder / "config.yaml").read_text()
    config = OmegaConf.load(finished.folder / "config.yaml")
    assert config.dataset.val_fraction == config.val_fraction == 0.1
    assert config.optimizer.lr == 0.01


def test_metrics_are_flat_standard_json_with_costs_and_what_it_ran_on(finished: Result) -> None:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    metrics = json.loads((finished.folder / "metrics.json").read_text(), parse_constant=refuse)
    assert metrics == finished.metrics
    for value in metrics.values():
        assert value is None or isinstance(value, str | int | float | list)
    assert metrics["run_id"] == finished.folder.name
    assert (metrics["num_tasks"], metrics["num_steps"], metrics["seed"]) == (2, 12, 0)
    for phase in ("train", "importance", "evaluation"):
        assert metrics[f"{phase}_seconds"] > 0
    assert metrics["peak_memory_bytes"] > 1e7
    assert metrics["method_state_bytes"] == 2 * 4 * sum(w.numel() for w in weights(finished).values()) + 8
    assert metrics["versions"].startswith("python 3.")
    assert metrics["device"].startswith("cpu: ")
    assert {"commit", "num_threads"} <= metrics.keys()


def test_undefined_is_null(tmp_path: Path) -> None:
    """One task forgets nothing, and without validation data there is no validation accuracy."""
    metrics = run(tmp_path, "dataset.angles=[0]", "val_fraction=0").metrics
    assert metrics["forgetting"] is None
    assert metrics["val_average_accuracy"] is None
    folder = RunFolder(tmp_path / "x")
    folder.path.mkdir()
    folder.write_metrics({"run_id": "x", "a": math.nan, "b": [math.inf, 1.0], "c": [[-math.inf]]})
    assert folder.read_metrics() == {"run_id": "x", "a": None, "b": [None, 1.0], "c": [[None]]}


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["backbone=cnn", "~backbone.widths"],
        ["normalise=first_task"],
        ["dataset=split", "~dataset.angles", "scenario=class"],
        ["dataset=split", "~dataset.angles", "scenario=task"],
    ],
)
def test_loaded_learner_predicts_as_the_run_did(overrides: list[str], tmp_path: Path) -> None:
    tiny = [t for t in TINY if not any(t.startswith(o.removeprefix("~") + "=") for o in overrides)]
    result = lifelong.run(*tiny, *[o for o in overrides if not o.startswith("~")], f"root={tmp_path}")
    learner = lifelong.load(result.folder)
    assert not learner.training
    config = OmegaConf.load(result.folder / "config.yaml")
    stream = make_stream(config)  # type: ignore[arg-type]
    row = accuracy_row(learner, stream, stream.num_tasks - 1, "test")
    assert torch.equal(row, result.matrix[-1])
    images = as_input(stream.task(0).test.inputs[:4])
    assert torch.equal(learner(images), lifelong.load(result.folder)(images))


# Its name -----------------------------------------------------------------------------------------------------------


def test_id_is_readable_and_a_function_of_what_decides_the_numbers(tmp_path: Path) -> None:
    one = identifier(composed_tiny(tmp_path))
    assert one.startswith("ewc-rotated-digits-s0-")
    assert identifier(composed_tiny(tmp_path / "elsewhere")) == one
    watched = ("rerun=true", "progress=true", "name=x", "logger=csv", "log_every_n_steps=7", "checkpoint_seconds=1")
    for same in (*watched, "objectives=[val_forgetting]", "sweep=seeds"):
        assert identifier(composed_tiny(tmp_path, same)) == one
    assert run_id("x", {"a": 1, "b": {"c": 2, "d": 3}}) == run_id("x", {"b": {"d": 3, "c": 2}, "a": 1})
    assert run_id("x", {"a": 1}) == "x-015abd7f"  # the same on every machine
    others = ("seed=1", "method.strength=3", "optimizer.lr=0.02", "trainer.max_epochs=3", "memory=uniform",
              "keep_optimizer=true", "dataset.window=[0,1]", "trainer.max_steps=5")  # fmt: skip
    assert len({one, *(identifier(composed_tiny(tmp_path, other)) for other in others)}) == 1 + len(others)


@pytest.mark.parametrize(("method", "key"), [(method, key) for method, options in ADDED_TO.items() for key in options])
def test_option_a_method_got_later_is_in_the_id_unless_at_its_default(method: str, key: str) -> None:
    config = composed((f"method={method}",))
    assert key not in identity(config)["method"]
    assert config.method[key] == ADDED_TO[method][key]
    OmegaConf.update(config, f"method.{key}", 0.75)
    assert identity(config)["method"][key] == 0.75


@pytest.mark.parametrize(("method", "key"), [("online_ewc", "gamma"), ("lwf", "temperature"), ("er", "weight")])
def test_older_option_of_that_name_stays_in_the_id(method: str, key: str) -> None:
    assert key in identity(composed((f"method={method}",)))["method"]


@pytest.mark.parametrize(
    ("dataset", "backbone"), [("domains", "mlp"), ("permuted", "cnn"), ("rotated", "mlp"), ("split", "resnet18")]
)
def test_key_added_later_is_in_the_id_unless_at_its_default(dataset: str, backbone: str) -> None:
    config = composed((f"dataset={dataset}", f"backbone={backbone}"))
    asked = {"dataset.num_tasks"} if dataset == "permuted" else set()  # there it is an old key
    assert not flattened(identity(config)).keys() & (ADDED.keys() - asked)
    others: dict[str, Any] = {"drop_last": True, "shuffle": False, "active_classes": "all", "keep_optimizer": "epoch",
              "dataset.pad": 2, "dataset.interpolation": "nearest", "backbone.init": "xavier"}  # fmt: skip
    found = {identifier(config)}
    settable = {key: value for key, value in others.items() if OmegaConf.select(config, key) is not None}
    for key, value in settable.items():
        changed = copy.deepcopy(config)
        OmegaConf.update(changed, key, value)
        found.add(identifier(changed))
    assert len(found) == 1 + len(settable)


# The same command again ---------------------------------------------------------------------------------------------


def test_finished_run_answers_without_training_and_says_so(finished: Result, folder: Path) -> None:
    before = contents(folder)
    said = command(*TINY, f"root={folder.parent.parent}")
    assert said == Said(0, f"finished before, not trained again (rerun=true does): {folder}\n", "")
    answer = run(folder.parent.parent)
    assert not answer.trained
    assert torch.equal(answer.matrix, finished.matrix)
    assert answer.metrics == finished.metrics
    assert contents(folder) == before


def test_rerun_trains_again_to_the_same_bits(finished: Result, folder: Path) -> None:
    (folder / "metrics.json").write_text("{}")  # not even read
    (folder / "evaluations").mkdir()
    (folder / "evaluations" / "permuted-1.json").write_text("{}")  # of the weights before
    again = run(folder.parent.parent, "rerun=true")
    assert not list((folder / "evaluations").iterdir())
    assert again.folder == folder
    assert_same_run(again, finished)
    same = {k: v for k, v in again.metrics.items() if "_seconds" not in k and k != "peak_memory_bytes"}
    assert same == {k: finished.metrics[k] for k in same}


def test_rerun_keeps_the_old_result_until_the_border_is_passed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise ConfigError("memory must be none")

    before = contents(folder)
    monkeypatch.setattr("lifelong.experiment.parts.check_together", refuse)
    assert command(*TINY, f"root={folder.parent.parent}", "rerun=true").code == 1
    assert contents(folder) == before


def test_rerun_that_was_interrupted_continues(folder: Path, finished: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []

    def kill_once(_: Any, done: int) -> None:
        steps.append(done)
        if done == 8 and steps.count(8) == 1:
            raise KeyboardInterrupt

    at_every_batch(monkeypatch, kill_once)
    root, settings = folder.parent.parent, ("rerun=true", "checkpoint_seconds=1e-9")
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        run(root, *settings)
    assert not (folder / "metrics.json").exists()
    assert_same_run(run(root, *settings), finished)
    assert steps == [*range(1, 9), *range(8, 13)]


def test_failed_run_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(_: Any, done: int) -> None:
        if done == 4:
            raise DivergedError("train/loss is nan")

    with monkeypatch.context() as patch:
        at_every_batch(patch, diverge)
        with pytest.raises(DivergedError):
            run(tmp_path)
    (folder,) = (tmp_path / "default").iterdir()
    assert not (folder / "metrics.json").exists()
    (folder / ".last.ckpt.4711.tmp").write_text("half a checkpoint of a killed process")
    assert run(tmp_path).folder == folder
    assert {path.name for path in folder.iterdir()} == FILES


def test_task_does_not_depend_on_how_long_earlier_ones_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout, shuffling and importance of task 2 are those of its own seed: frozen weights give equal losses."""
    losses = []
    for epochs in ("[1,2]", "[3,2]"):
        settings = ("method=finetune", "optimizer.lr=0", "backbone.dropout=0.5", "log_every_n_steps=1")
        result = run(tmp_path, *settings, f"epochs_per_task={epochs}")
        rows = [json.loads(line) for line in (result.folder / "history.jsonl").read_text().splitlines()]
        losses.append([row["train/loss"] for row in rows if row["task"] == 1 and "train/loss" in row])
    assert len(losses[0]) == 6
    assert losses[0] == losses[1]


# Damaged ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        *(("metrics.json", text) for text in ("", "{", "[]", "{}", '{"run_id": "another"}', "null")),
        *(("accuracy_matrix.csv", text) for text in ("", "a,b\n1,2\n", "a,b\n1,2\n3,x\n", "a\n1,2\n", None)),
    ],
)
def test_damaged_or_missing_file_of_a_finished_run_is_one_line(name: str, damage: str | None, folder: Path) -> None:
    path = folder / name
    path.unlink() if damage is None else path.write_text(damage)
    what = "missing: the run is not finished, or" if damage is None else r"damaged \(.*\):"
    with pytest.raises(RunFolderError, match=rf"^{path} is {what} rerun=true trains") as error:
        run(folder.parent.parent)
    assert "\n" not in str(error.value)


def from_elsewhere(config: bytes) -> bytes:
    config = config.replace(b"trusted: []", b"trusted: [pathlib]")
    return config.replace(b"lifelong.models.mlp.MLP", b"pathlib.Path")


@pytest.mark.parametrize(
    ("name", "damage", "said"),
    [
        *(("config.yaml", lambda _, text=text: text, r"config.yaml is damaged \(")
          for text in (b"a: [", b"\0", b"a: ${b}: c: {")),
        *(("model.pt", lambda data, keep=keep: data[:keep], r"model.pt is damaged \(") for keep in (0, 100, -1)),
        ("config.yaml", lambda _: b"seed: 0\n", "backbone must be one of "),
        ("config.yaml", from_elsewhere,
         r"backbone._target_ must start with .* got 'pathlib.Path'"),
        ("config.yaml", None, "config.yaml is missing: the run is not finished"),
        ("model.pt", None, "model.pt is missing: the run is not finished"),
    ],
)  # fmt: skip
def test_load_refuses_in_one_line(name: str, damage: Callable[[bytes], bytes] | None, said: str, folder: Path) -> None:
    """A damaged file, a missing one, or a class from elsewhere, whatever the file itself trusts."""
    path = folder / name
    data = path.read_bytes()
    path.unlink() if damage is None else path.write_bytes(damage(data))
    with pytest.raises((RunFolderError, ConfigError), match=said) as error:
        lifelong.load(folder)
    assert "\n" not in str(error.value)
