"""Where a run starts from: trained weights, frozen parts, the end of a finished run."""

from pathlib import Path

import pytest
import torch

from grids import grid
from lifelong.config.schema import ConfigError
from lifelong.experiment.load import load
from lifelong.experiment.run import Result
from lifelong.runs.checksum import load_with_checksum
from runs import run

TASKS, MORE = "dataset.angles=[0,30]", "dataset.angles=[0,30,60]"
METHODS = (
    ("method=ewc",),
    ("method=rwalk", "memory=uniform"),
    ("method=derpp", "memory=reservoir"),
    ("method=joint", "keep_optimizer=true"),
    ("method=ewc", "evaluate_every_n_steps=4"),
)
ENTERED = (("method=packnet", "scenario=task"), ("method=icarl", "memory=uniform", "scenario=class"))
"""Methods that enter a task to be tested; each task has columns of its own, so that the shorter stream is a window."""
EXTENDED = [*((m, (TASKS,)) for m in METHODS), *((m, (MORE, "dataset.window=[0,2]")) for m in ENTERED)]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return run(tmp_path_factory.mktemp("first"), "method=ewc", TASKS)


@pytest.mark.parametrize(("overrides", "shorter"), grid(EXTENDED, EXTENDED[::2]), ids=" ".join)
def test_extended_run_equals_one_that_had_all_tasks_from_the_start(
    tmp_path: Path, overrides: tuple[str, ...], shorter: tuple[str, ...]
) -> None:
    first = run(tmp_path / "a", *overrides, *shorter)
    longer = run(tmp_path / "a", *overrides, MORE, f"extend={first.folder}")
    whole = run(tmp_path / "b", *overrides, MORE)
    assert longer.trained
    assert longer.folder.name == whole.folder.name
    ours, theirs = (load_with_checksum(result.folder / "last.ckpt") for result in (longer, whole))
    for part in ("state_dict", "method", "memory"):
        torch.testing.assert_close(ours[part], theirs[part], rtol=0, atol=0)
    assert longer.metrics["baseline_accuracy_per_task"] == whole.metrics["baseline_accuracy_per_task"]
    missing = longer.matrix.isnan()
    assert missing.nonzero().tolist() == [[0, 2]]
    assert torch.equal(longer.matrix[~missing], whole.matrix[~missing])
    for measure in ("average_accuracy", "forgetting", "backward_transfer", "forward_transfer", "min_accuracy"):
        assert longer.metrics[measure] == whole.metrics[measure]
    history = [(result.folder / "history.jsonl").read_text().splitlines() for result in (longer, whole)]
    assert len(history[0]) == len(history[1])
    assert not run(tmp_path / "a", *overrides, MORE).trained  # it is the longer run, by whatever way it came about


@pytest.mark.parametrize(
    ("overrides", "reason"),
    [
        (("trainer.max_epochs=3", MORE), "has another trainer: its tasks would have been learned otherwise"),
        (("method=mas", MORE), "has another method"),
        (("dataset.angles=[0,40,60]",), "has another task 2"),
        (("dataset.angles=[0]",), "has 2 tasks, not fewer than this run's 1"),
        (("seed=1", MORE), "has another seed"),
        (("epochs_per_task=[3,2,2]", MORE), r"has \[2, 2\] epochs a task, not the first ones of \[3, 2, 2\]"),
    ],
)
def test_extending_what_is_no_prefix_is_refused(
    first: Result, tmp_path: Path, overrides: tuple[str, ...], reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        run(tmp_path, "method=ewc", *overrides, f"extend={first.folder}")


def test_joint_learning_of_all_tasks_at_once_cannot_be_extended(tmp_path: Path) -> None:
    first = run(tmp_path, "method=joint", "method.schedule=once", TASKS)
    with pytest.raises(ConfigError, match=r"has method.schedule=once: all tasks were learned together$"):
        run(tmp_path, "method=joint", "method.schedule=once", MORE, f"extend={first.folder}")


def test_run_starts_from_the_weights_of_a_run_or_a_file(first: Result, tmp_path: Path) -> None:
    weights = load(first.folder).backbone.state_dict()
    torch.save(weights, tmp_path / "own.pt")
    for path in (first.folder, tmp_path / "own.pt"):
        result = run(tmp_path, f"init_from={path}", "optimizer.lr=0")
        torch.testing.assert_close(dict(load(result.folder).backbone.state_dict()), dict(weights), rtol=0, atol=0)


def test_head_of_another_shape_keeps_its_initialisation(
    first: Result, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(tmp_path, "dataset=split", "~dataset.angles", "dataset.classes_per_task=5", "optimizer.lr=0",
                 f"init_from={first.folder}")  # fmt: skip
    ours, theirs = (load(r.folder).backbone.state_dict() for r in (result, first))
    assert "head keeps its own initialisation" in capsys.readouterr().out
    assert ours["head.weight"].shape != theirs["head.weight"].shape
    assert torch.equal(ours["body.1.weight"], theirs["body.1.weight"])


@pytest.mark.parametrize(
    ("given", "reason"),
    [("nothing.pt", "No such file"), ("list.pt", "it holds a list"), ("other.pt", "without body.1.bias")],
)
def test_weights_that_cannot_be_used_are_refused(tmp_path: Path, given: str, reason: str) -> None:
    torch.save([1], tmp_path / "list.pt")
    torch.save({"body.1.weight": torch.zeros(16, 64)}, tmp_path / "other.pt")
    with pytest.raises(ConfigError, match=f"init_from must .*{reason}"):
        run(tmp_path, f"init_from={tmp_path / given}")


def test_frozen_parts_keep_weights_and_running_statistics(tmp_path: Path) -> None:
    overrides = ("backbone=resnet18", "~backbone.widths", "backbone.width=2", "trainer.max_epochs=1")
    still = run(tmp_path, *overrides, "optimizer.lr=0", "backbone.freeze=[stem,stages,pool]")
    moved = run(tmp_path, *overrides, "backbone.freeze=[stem,stages.0.residual.1]")
    before, after = (load(r.folder).backbone.state_dict() for r in (still, moved))
    frozen = [name for name in before if name.startswith(("stem", "stages.0.residual.1."))]
    assert any("running_mean" in name for name in frozen)
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert not torch.equal(before["stages.0.residual.0.weight"], after["stages.0.residual.0.weight"])


@pytest.mark.parametrize(
    ("value", "reason"), [("[x]", "must name parts"), ("[body,head]", "must leave"), ("3", "must be a list")]
)
def test_freezing_what_cannot_be_frozen_is_refused(tmp_path: Path, value: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=f"backbone.freeze {reason}"):
        run(tmp_path, f"backbone.freeze={value}")
