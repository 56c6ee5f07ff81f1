"""What a run keeps of each task, and scripts/analyse.py: lines begin and end at the run's own numbers."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

import analyse
from lifelong.config.schema import ConfigError
from lifelong.experiment.load import load
from lifelong.experiment.run import Result, run_experiment
from lifelong.plots.report.page import write_report
from lifelong.runs.checksum import load_with_checksum
from lifelong.runs.folder import RunFolder
from lifelong.runs.identity import identifier
from runs import TINY, assert_same_run, command, composed_once, composed_tiny, run, run_killed
from tiny import HOLDING, overrides
from wandb_log import summary
from wandb_session import WANDB, wandb_file

KEEP = ("keep_weights=true", "keep_importances=true")
STREAMS = {
    "domain": ("dataset.angles=[0,30,60]",),
    "class": ("dataset=split", "scenario=class"),
    "task": ("dataset=split", "scenario=task"),
}


def files(folder: Path) -> dict[str, Any]:
    return {f"{path.parent.name}/{path.name}": load_with_checksum(path) for path in sorted(folder.glob("*/task*.pt"))}


def measured(folder: Path, *arguments: str) -> dict[str, Any]:
    """What analysis.json holds after scripts/analyse.py."""
    assert analyse.main([str(folder), "--samples=40", "--points=3", "--steps=3", *arguments]) == 0
    return RunFolder(folder).read_analysis()


@pytest.fixture(scope="module", params=["domain", "class", pytest.param("task", marks=pytest.mark.system)])
def of_every_kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Result:
    without = "dataset.angles" if request.param != "domain" else "nothing"
    tiny = [override for override in TINY if not override.startswith(without)]
    config = composed_once((*tiny, *STREAMS[request.param], *KEEP, f"root={tmp_path_factory.mktemp('runs')}"))
    return run_experiment(config)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A run of before there was anything to keep."""
    return run(tmp_path_factory.mktemp("runs"), "method=ewc")


def test_lines_begin_and_end_at_the_runs_own_accuracies(of_every_kind: Result) -> None:
    """Class-incrementally the line sees the columns of its later end, its earlier end saw fewer."""
    R, scenario = of_every_kind.matrix, of_every_kind.metrics["scenario"]
    found = measured(of_every_kind.folder, "--measures=connectivity")["connectivity"]
    assert len(found["lines"]) == len(R) * (len(R) - 1) / 2
    for line in found["lines"]:
        for k in range(line["to"] + 1):
            assert line["accuracy"][k][-1] == R[line["to"], k]
            if scenario != "class":
                assert line["accuracy"][k][0] == R[line["from"], k]
    barriers = [found["barrier"][line["from"]][line["to"]] for line in found["lines"]]
    assert min(barriers) >= 0


def test_model_after_the_last_task_is_the_final_one(of_every_kind: Result) -> None:
    kept, names = files(of_every_kind.folder), of_every_kind.names
    assert sorted(kept) == sorted(
        f"{what}/task{k + 1}.pt" for what in ("importances", "weights") for k in range(len(names))
    )
    final = load_with_checksum(of_every_kind.folder / "model.pt")
    assert_close(kept[f"weights/task{len(names)}.pt"], final, rtol=0, atol=0)


def test_representations_and_plasticity_are_those_of_each_end(of_every_kind: Result) -> None:
    found = measured(of_every_kind.folder, "--measures=cka,plasticity")
    num = len(of_every_kind.names)
    by_task = torch.tensor(found["cka"]["by_task"], dtype=torch.float64)
    assert_close(by_task, by_task.transpose(1, 2), rtol=0, atol=0)
    assert_close(by_task.diagonal(dim1=1, dim2=2), torch.ones(num, num, dtype=torch.float64))
    assert all(found["cka"]["own"][j][k] == by_task[k, k, j] for j in range(num) for k in range(j + 1))
    norms = [
        torch.cat([t.flatten() for t in file["state_dict"].values()]).double().norm()
        for name, file in files(of_every_kind.folder).items()
        if name.startswith("weights")
    ]
    assert found["plasticity"]["ends"] == list(range(num))
    assert_close(torch.tensor(found["plasticity"]["weight_norm"]).double(), torch.stack(norms))


@pytest.mark.parametrize(
    "method", ["rwalk", *(pytest.param(m, marks=pytest.mark.system) for m in ("kfac_ewc", "packnet"))]
)
@pytest.mark.usefixtures("without_pictures")
def test_run_that_keeps_is_the_same_run(method: str, tmp_path: Path) -> None:
    without, with_files = (
        run_experiment(composed_tiny(tmp_path / name, *overrides(method), *more))
        for name, more in (("without", ()), ("with", KEEP))
    )
    assert_same_run(without, with_files)
    assert without.folder.name == with_files.folder.name
    assert not files(without.folder)
    assert len(files(with_files.folder)) == (2 if method == "packnet" else 4)


def test_keys_of_what_is_kept_are_no_part_of_the_run_id(tmp_path: Path) -> None:
    assert identifier(composed_tiny(tmp_path)) == identifier(composed_tiny(tmp_path, *KEEP))


@pytest.mark.usefixtures("without_pictures")
def test_killed_run_has_what_an_uninterrupted_one_keeps(tmp_path: Path) -> None:
    run_killed(tmp_path / "killed", "method=si", *KEEP)
    (interrupted,) = (tmp_path / "killed" / "default").iterdir()
    (interrupted / "weights" / ".task2.pt.1.tmp").touch()  # killed while writing
    resumed, whole = run(tmp_path / "killed", "method=si", *KEEP), run(tmp_path / "whole", "method=si", *KEEP)
    assert_close(files(resumed.folder), files(whole.folder), rtol=0, atol=0)
    assert not list(resumed.folder.glob("*/.*.tmp"))
    assert RunFolder(resumed.folder).read_analysis() == RunFolder(whole.folder).read_analysis()


@pytest.mark.system
def test_run_resumed_with_less_than_all_says_so_and_ends(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_killed(tmp_path, "method=ewc")
    result = run(tmp_path, "method=ewc", *KEEP)
    said = f"own importance, {result.folder} has none of task 1: train with keep_importances=true and a penalty"
    assert said in capsys.readouterr().err
    assert not (result.folder / "analysis.json").exists()
    (result.folder / "importance.png").touch()  # of an earlier run
    run(tmp_path, "method=ewc", "rerun=true")
    assert not files(result.folder)
    assert not (result.folder / "importance.png").exists()


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize(
    "method", ["ewc", *(pytest.param(m, marks=pytest.mark.system) for m in HOLDING if m not in ("ewc", "l2"))]
)
def test_repeated_task_overlaps_more_than_a_permuted_one(method: str, tmp_path: Path) -> None:
    """What ties the importances to the tasks: on the same data again they are alike, on other pixels they are not."""
    tiny = [o for o in TINY if not o.startswith(("dataset.angles", "trainer.max_epochs"))]
    shared = []
    for stream in (("dataset.angles=[0]", "dataset.cycles=2"), ("dataset=permuted", "dataset.num_tasks=2")):
        config = composed_once((*tiny, "trainer.max_epochs=4", f"method={method}", *stream, *KEEP, f"root={tmp_path}"))
        shared.append(RunFolder(run_experiment(config).folder).read_analysis()["overlap"])
    again, permuted = shared
    for key in ("cosine", "top_share"):
        assert again[key][0][1] > permuted[key][0][1]
        assert permuted[key][0][0] == pytest.approx(1)
    assert again["claimed"][1] < permuted["claimed"][1]


def test_old_run_has_the_plasticity_of_its_last_end_and_a_line_for_what_it_lacks(
    plain: Result, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measured(plain.folder)
    assert found.keys() == {"plasticity"}
    assert found["plasticity"]["ends"] == [1]
    where = f"{plain.folder} has none of"
    assert capsys.readouterr().err.splitlines() == [
        f"overlap needs each task's own importance, {where} task 1, 2: train with keep_importances=true and a penalty",
        f"connectivity needs the weights after each task, {where} task 1: train with keep_weights=true",
        f"cka needs the weights after each task, {where} task 1: train with keep_weights=true",
    ]
    assert analyse.main([str(plain.folder), "--measures=cka"]) == 1
    assert load(plain.folder).training is False


@pytest.mark.usefixtures("without_pictures")
def test_stream_of_one_task_has_no_lines_and_all_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(tmp_path, "method=mas", "dataset.angles=[0]", *KEEP)
    assert measured(result.folder).keys() == {"overlap", "cka", "plasticity"}
    assert capsys.readouterr().err == f"connectivity needs two tasks or more, {result.folder} has one\n"


@pytest.mark.usefixtures("without_pictures")
def test_network_that_changes_with_the_task_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = run(tmp_path, *overrides("packnet"), *KEEP)
    assert analyse.main([str(result.folder), "--measures=plasticity"]) == 1
    said = f"plasticity needs one network for all tasks, {result.folder} has another for each\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--measures=cka,ckb", "measures must be some of overlap, connectivity, cka, plasticity, got 'ckb'"),
        ("--points=1", "points must be an integer >= 2, got 1"),
    ],
)
def test_bad_options_are_named(argument: str, message: str, plain: Result) -> None:
    with pytest.raises(ConfigError, match=message):
        analyse.main([str(plain.folder), argument])


@pytest.mark.system
def test_report_shows_what_was_measured(tmp_path: Path) -> None:
    result = run(tmp_path, "method=ewc", *KEEP)
    measured(result.folder)
    page = write_report(result.folder.parent)
    drawn = {path.stem.rpartition("-")[2] for path in page.parent.glob("*.svg")}
    assert {"importance", "representation", "plasticity"} <= drawn
    assert "analysis" not in (page.parent / "runs.csv").read_text().splitlines()[0].split(",")


@pytest.mark.system
def test_wandb_has_the_overlap_as_tables_and_picture(tmp_path: Path, wandb_afresh: None) -> None:
    result = run(tmp_path, *WANDB, "method=ewc", *KEEP)
    path = wandb_file(result.folder)
    found, overlap = summary(path), RunFolder(result.folder).read_analysis()["overlap"]
    for kind in ("cosine", "top_share", "by_layer"):
        table = json.loads((path.parent / "files" / found[f"importance_{kind}"]["path"]).read_text())
        assert table["columns"] == ["task", *(overlap["layers"] if kind == "by_layer" else result.names)]
        assert table["data"] == [[name, *row] for name, row in zip(result.names, overlap[kind], strict=True)]
    assert (path.parent / "files" / found["importance_image"]["path"]).exists()


@pytest.mark.system
@pytest.mark.usefixtures("pictures")  # which a stack draws in processes of their own
def test_member_of_a_stack_keeps_what_its_run_alone_keeps(tmp_path: Path) -> None:
    said = command("-m", *TINY, "hydra/launcher=stacked", f"root={tmp_path}", "method=ewc,si,rwalk", *KEEP)
    assert "train together, 3 runs" in said.out, said.err
    for method in ("ewc", "si", "rwalk"):
        alone = run(tmp_path / "alone", f"method={method}", *KEEP)
        member = files(tmp_path / "default" / alone.folder.name)
        assert member.keys() == files(alone.folder).keys()
        for name, kept in files(alone.folder).items():
            ours, theirs = ((f.get("state_dict", f)) for f in (member[name], kept))
            for key, tensor in theirs.items():  # both sum the same float32 numbers in other orders
                assert float((ours[key] - tensor).norm()) <= 1e-3 * float(tensor.norm()), (method, name, key)
