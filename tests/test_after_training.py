"""A finished run tested again on any stream, and runs side by side: scripts/evaluate.py and scripts/compare.py."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import compare
import evaluate
import lifelong
from lifelong.config.schema import ConfigError
from lifelong.experiment.parts import make_stream
from lifelong.experiment.run import Result
from lifelong.runs.folder import RunFolder, RunFolderError
from run_folders import unfinished
from runs import TINY, run

pytestmark = pytest.mark.xdist_group("after training")  # whose runs are made once

STREAMS = {
    "domain": (),
    "class": ("dataset=split", "scenario=class"),
    "task": ("dataset=split", "scenario=task"),
    "normalised": ("normalise=first_task", "dataset.order=reversed", "dataset.cycles=2"),
    "a seed of its own": ("dataset=permuted", "dataset.num_tasks=2", "dataset.seed=7"),
    "chosen sources": (
        "dataset=domains",
        "dataset/source@dataset.sources.a=digits",
        "+dataset/source@dataset.sources.c=digits",
        "dataset.sources.c.test_fraction=0.5",
    ),
}


@pytest.fixture(scope="module", params=list(STREAMS))
def of_every_kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Result:
    overrides = STREAMS[request.param]
    other = [o for o in overrides if o.startswith("dataset=")]
    without = "dataset" if other == ["dataset=domains"] else "dataset.angles" if other else "nothing"
    tiny = [override for override in TINY if not override.startswith(without)]
    return lifelong.run(*tiny, *overrides, f"root={tmp_path_factory.mktemp('runs')}")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return run(tmp_path_factory.mktemp("runs"))


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}


def test_own_stream_gives_the_last_row_of_the_matrix_and_leaves_the_run_as_it_was(of_every_kind: Result) -> None:
    before = contents(of_every_kind.folder)
    path, result = evaluate.evaluate(of_every_kind.folder, [])
    assert result["accuracy_per_task"] == of_every_kind.matrix[-1].tolist()
    assert (result["tasks"], result["source"]) == (of_every_kind.names, of_every_kind.metrics["source"])
    assert contents(of_every_kind.folder) == before
    assert json.loads(path.read_text()) == result
    assert path.parent == of_every_kind.folder / "evaluations"


def test_stream_is_the_runs_own_but_for_what_is_given(plain: Result) -> None:
    own, first = evaluate.evaluate(plain.folder, [])
    other, turned = evaluate.evaluate(plain.folder, ["dataset.angles=[30,0,90]"])
    assert own != other
    assert turned["accuracy_per_task"][:2] == first["accuracy_per_task"][::-1]
    assert turned["num_examples_per_task"] == [first["num_examples_per_task"][0]] * 3
    _, fewer = evaluate.evaluate(plain.folder, ["dataset.source.test_fraction=0.2"])
    assert fewer["config"]["dataset"]["angles"] == [0, 30]
    assert fewer["num_examples_per_task"][0] < first["num_examples_per_task"][0]


def test_stream_the_run_never_saw_keeps_its_source(plain: Result) -> None:
    _, first = evaluate.evaluate(plain.folder, [])
    path, result = evaluate.evaluate(plain.folder, ["dataset=permuted", "dataset.num_tasks=2"])
    assert path.name.startswith("permuted-")
    assert result["source"] == "digits"
    assert result["accuracy_per_task"][0] == first["accuracy_per_task"][0]  # its first permutation is the identity


def test_run_that_was_told_its_tasks_sees_all_columns_where_it_is_not(tmp_path: Path) -> None:
    tiny = [override for override in TINY if not override.startswith("dataset.angles")]
    told = lifelong.run(*tiny, "dataset=split", "scenario=task", f"root={tmp_path}")
    _, result = evaluate.evaluate(told.folder, ["scenario=class"])
    learner, stream = lifelong.load(told.folder), make_stream(RunFolder(told.folder).read_config())
    learner.show(range(10))
    for found, task in zip(result["accuracy_per_task"], map(stream.task, range(5)), strict=True):
        answers = learner(learner.as_input(task.test.inputs)).argmax(1)
        assert found == pytest.approx((answers == task.test.labels).double().mean().item())
    assert result["accuracy_per_task"][0] > 0


def test_columns_that_stand_for_other_classes_are_told(plain: Result, capsys: pytest.CaptureFixture[str]) -> None:
    """Domain-incremental tasks number their classes from 0; in the class scenario all ten keep their columns."""
    note = "note: output column 0 stands for 0, 2, 4, 6, 8 here and for 0 in the run: is scenario right?"
    for overrides, told in ((["dataset=split"], True), (["dataset=split", "scenario=class"], False)):
        evaluate.main([f"run={plain.folder}", *overrides])
        assert (note in capsys.readouterr().out) == told


def test_run_whose_own_data_have_moved_is_tested_on_others(tmp_path: Path) -> None:
    tiny = [override for override in TINY if not override.startswith("dataset")]
    file = tmp_path / "there.npz"
    images, labels = torch.randint(256, (60, 1, 8, 8), dtype=torch.uint8).numpy(), torch.arange(60).numpy() % 4
    np.savez(file, images=images, labels=labels)
    own = ["dataset=split", "scenario=class", "dataset/source=arrays", f"dataset.source.path={file}"]
    folder = lifelong.run(*tiny, *own, f"root={tmp_path}").folder
    moved = file.rename(tmp_path / "moved.npz")
    _, result = evaluate.evaluate(folder, [f"dataset.source.path={moved}"])
    assert len(result["accuracy_per_task"]) == 2


def test_run_is_known_from_within_its_folder(plain: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(plain.folder)
    assert evaluate.evaluate(Path(), [])[1]["run_id"] == plain.folder.name
    assert compare.finished_run(plain.folder)["setting"] == plain.metrics["setting"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["dataset/source=mnist5k"], r"images of shape \(1, 8, 8\), as the run had, got \(1, 28, 28\)"),
        (["scenario=class"], "at most 10 output columns, as the run had, got 20 with scenario=class"),
        (["method=mas"], "method must not be set: weights are tested as they are"),
        (["trainer.max_epochs=2"], "trainer.max_epochs must not be set"),
        (["dataset.angels=[1]"], "unknown key 'dataset.angels'"),
        (["dataset=rotatde"], "dataset must be one of domains, permuted, rotated, split, got 'rotatde'"),
        (["val_fraction=2"], r"val_fraction must be a number in \[0, 1\), got 2"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_in_one_line(plain: Result, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        evaluate.evaluate(plain.folder, overrides)
    assert "\n" not in str(error.value)


def test_command_says_where_the_result_is(plain: Result, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate.main([f"run={plain.folder}"])
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"written: {plain.folder / 'evaluations'}")


def test_run_that_is_not_finished_is_not_tested(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=f"^{tmp_path} is no run folder: config.yaml and metrics.json are"):
        evaluate.evaluate(tmp_path, [])
    unfinished(tmp_path, "seed=0")
    (folder,) = (path.parent for path in tmp_path.rglob("config.yaml"))
    with pytest.raises(RunFolderError, match=r"metrics.json is missing: the run is not finished"):
        evaluate.evaluate(folder, [])
    with pytest.raises(ConfigError, match="run must be the folder of one finished run, got nothing"):
        evaluate.main(["dataset=permuted"])


def comparison(*runs: Result) -> dict[str, list[str]]:
    table = compare.comparison([compare.finished_run(run.folder) for run in runs])
    return dict(zip(table[""], table.drop(columns="").to_numpy().tolist(), strict=True))


def test_comparison_shows_what_differs_and_nothing_that_does_not(plain: Result, tmp_path: Path) -> None:
    other = run(tmp_path, "method=mas", "seed=1", "method.strength=2")
    rows = comparison(plain, other)
    assert rows["method.strength"] == ["1000", "2", ""]
    assert rows["seed"] == ["0", "1", ""]
    assert "batch_size" not in rows
    a, b = (100 * r.metrics["average_accuracy"] for r in (plain, other))
    assert rows["test ACC"] == [f"{a:.1f}", f"{b:.1f}", f"{b - a:+.1f}"]
    assert rows["final accuracy, rot30"][0] == f"{100 * plain.matrix[-1, 1].item():.1f}"
    assert "intransigence" not in rows  # it joins two runs: the report knows it


def test_comparison_of_three_has_no_difference_and_keeps_runs_of_one_name_apart(plain: Result, tmp_path: Path) -> None:
    again = run(tmp_path)
    assert torch.equal(plain.matrix, again.matrix)
    runs = (plain, again, plain)
    table = compare.comparison([compare.finished_run(r.folder) for r in runs])
    assert list(table)[1:] == [str(r.folder) for r in runs]
    assert not any("." in key for key in comparison(*runs))  # no key of the configuration differs


def test_comparison_refuses_what_is_no_finished_run_and_a_single_one(plain: Result, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match=f"^{tmp_path} is no run folder: config.yaml and metrics.json are"):
        compare.main([str(plain.folder), str(tmp_path)])
    with pytest.raises(ConfigError, match=f"^RUN must be two or more run folders, got {plain.folder}$"):
        compare.main([str(plain.folder)])
