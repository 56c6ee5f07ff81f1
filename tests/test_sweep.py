"""Sweeps: one grid for all methods, nothing trained twice, references trained once, the best by validation data."""

import json
import os
import pickle
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from lifelong.config.schema import folded
from lifelong.experiment.result import read_result
from lifelong.launch.jobs import Jobs, Outcome, ended_with
from lifelong.runs.folder import RunFolder
from lifelong.runs.identity import identifier
from runs import TINY, at_every_batch, command, composed_tiny, run

SHORT = (*TINY, "trainer.max_epochs=1")
TRAIN = Path(__file__).resolve().parents[1] / "train.py"


def metrics_in(root: Path) -> dict[str, dict[str, Any]]:
    return {p.parent.name: json.loads(p.read_text()) for p in root.glob("**/metrics.json")}


def last_line(text: str) -> str:
    return text.splitlines()[-1]


# One grid for all methods -------------------------------------------------------------------------------------------


def test_factor_and_strength_with_one_product_are_one_run(tmp_path: Path) -> None:
    written = composed_tiny(tmp_path, "method=mas", "method.strength=0.01")
    factor = composed_tiny(tmp_path, "method=mas", "method.strength=0.1", "strength_factor=0.1")
    assert identifier(folded(factor)) == identifier(folded(written)) == identifier(written)
    assert folded(factor).method.strength == 0.01
    whole = composed_tiny(tmp_path, "method=ewc", "method.strength=100")
    tenth = composed_tiny(tmp_path, "method=ewc", "method.strength=1000", "strength_factor=0.1")
    assert identifier(folded(tenth)) == identifier(whole), "100, not 100.0"
    assert factor.method.strength == 0.1, "the configuration handed in is not changed"
    plain, scaled = (composed_tiny(tmp_path, "method=finetune", *more) for more in ((), ("strength_factor=10",)))
    assert identifier(folded(scaled)) == identifier(plain), "a method without strength is the same run at any factor"


# Nothing trained twice ----------------------------------------------------------------------------------------------


@pytest.mark.system
def test_the_same_sweep_again_trains_what_is_missing(tmp_path: Path) -> None:
    sweep = ("-m", *SHORT, f"root={tmp_path}", "method=ewc,finetune", "strength_factor=0.1,1")
    said = command(*sweep, "seed=0")
    assert last_line(said.out) == "4 jobs: 3 trained, 1 finished before, 0 failed"  # fine-tuning has no strength
    said = command(*sweep, "seed=0,1")
    assert last_line(said.out) == "8 jobs: 3 trained, 5 finished before, 0 failed"
    assert said.out.count("finished before, not trained again") == 5
    assert said.code == 0


def test_a_failed_job_is_told_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = ("-m", *SHORT, f"root={tmp_path}", "seed=0,1", "method=ewc")
    with monkeypatch.context() as patch:
        patch.setattr("lifelong.methods.ewc.fisher", lambda *_, **__: {"0.weight": torch.tensor([torch.nan])})
        said = command(*sweep)
    assert (said.code, last_line(said.out)) == (1, "2 jobs: 0 trained, 0 finished before, 2 failed")
    reasons = [path.read_text() for path in tmp_path.glob("*/*/error.txt")]
    assert len(reasons) == 2
    assert all(reason.startswith("PenaltyError: importance") for reason in reasons)
    assert last_line(command(*sweep).out) == "2 jobs: 2 trained, 0 finished before, 0 failed"
    assert not list(tmp_path.glob("*/*/error.txt"))


def test_a_job_waits_for_another_process_that_trains_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one dies without finishing: the job takes the folder over and trains."""
    folder = RunFolder(tmp_path / "default" / identifier(composed_tiny(tmp_path, "trainer.max_epochs=1")))
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        with folder.locked():
            os.write(tell, b"!")
            signal.pause()
    os.read(ready, 1)

    def say(text: str, **options: Any) -> None:
        os.kill(child, signal.SIGKILL)
        print(text, **options)

    monkeypatch.setattr("lifelong.runs.folder.print", say, raising=False)
    said = command("-m", *SHORT, f"root={tmp_path}", "seed=0")
    os.waitpid(child, 0)
    assert said.out.count(f"waiting for another process, which is training this run: {folder.path}") == 1
    assert last_line(said.out) == "1 jobs: 1 trained, 0 finished before, 0 failed"


def test_a_worker_saves_and_ends_when_its_command_dies(tmp_path: Path) -> None:
    """Twice forked: a command, and its worker, which kills the command in the midst of its own run."""
    ended, tell = os.pipe()
    parent = os.fork()
    if parent == 0:
        if os.fork() == 0:
            with pytest.MonkeyPatch.context() as patch, ended_with(os.getppid(), every_seconds=0.02):
                at_every_batch(patch, lambda _, done: os.kill(os.getppid(), signal.SIGKILL) if done == 1 else None)
                run(tmp_path, "trainer.max_epochs=1000000")
            os._exit(0)
        os.close(tell)
        signal.pause()
    os.close(tell)
    os.waitpid(parent, 0)
    assert os.read(ended, 1) == b""  # the pipe closes with the last process that holds it: the worker
    assert list(tmp_path.glob("*/*/last.ckpt"))
    assert not list(tmp_path.glob("*/*/metrics.json"))


@pytest.mark.system
def test_two_sweeps_at_once_after_a_killed_one_train_every_run_once(tmp_path: Path) -> None:
    """The first is killed when it says that a task is learned; then two at once share what is left."""
    grid = ("method=ewc,finetune", "strength_factor=0.1,1", "trainer.max_epochs=5", "progress=true")
    arguments = [sys.executable, str(TRAIN), "-m", *TINY, f"root={tmp_path}", *grid]

    def start() -> "subprocess.Popen[str]":
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    first = start()
    assert any("learned" in line for line in first.stdout or [])
    first.kill()
    first.communicate()
    both = [start(), start()]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    counts = [re.search(r"4 jobs: (\d) trained, \d finished before, 0 failed", text) for text in said]
    assert sum(int(found[1]) for found in counts if found) <= 3  # fine-tuning is one run at any factor
    assert len(metrics_in(tmp_path)) == 3
    alone = run(tmp_path / "alone", "method=ewc", "strength_factor=0.1", "trainer.max_epochs=5")
    swept = read_result(RunFolder(tmp_path / "default" / alone.folder.name))
    assert torch.equal(swept.matrix, alone.matrix)


# What a sweeper chooses by ------------------------------------------------------------------------------------------


def test_validation_measures_are_of_the_validation_matrix(tmp_path: Path) -> None:
    result = run(tmp_path, "method=ewc")
    folder = RunFolder(result.folder)
    val = torch.tensor(folder.read_matrix(folder.val_matrix)[1], dtype=torch.float64)
    assert not torch.equal(val, result.matrix)
    metrics = result.metrics
    assert metrics["val_forgetting"] == (val[0, 0] - val[1, 0]).item()
    assert metrics["val_learning_accuracy"] == val.diagonal().mean().item()
    assert metrics["val_average_accuracy"] == val[1].mean().item()


def test_without_validation_data_there_is_nothing_to_choose_by(tmp_path: Path) -> None:
    result = run(tmp_path, "val_fraction=0")
    assert not RunFolder(result.folder).val_matrix.exists()
    keys = ("val_average_accuracy", "val_forgetting", "val_learning_accuracy")
    assert {result.metrics[key] for key in keys} == {None}


def test_outcome_is_its_objectives_and_a_failure_has_none() -> None:
    sent = pickle.loads(pickle.dumps(Outcome((0.5, None), trained=True)))
    assert (float(sent), next(iter(sent)), sent.trained) == (0.5, 0.5, True)
    assert list(sent)[1] != list(sent)[1], "undefined is nan"
    for use in (float, list):
        with pytest.raises(TypeError, match="of this"):
            use(Outcome(failed="of this"))


def test_job_of_another_process_is_heard_once_from_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}, "job": {"num": 3}}})
    jobs = Jobs()
    jobs.on_multirun_start(config)
    there = pickle.loads(pickle.dumps(jobs))
    there.command = -1  # not this process
    returned = JobReturn(overrides=["seed=1"], status=JobStatus.COMPLETED)
    returned.return_value = Outcome(failed="of this")
    there.on_job_end(config, returned)
    assert (jobs.heard, there.heard) == ({}, {})
    for _ in range(2):
        assert jobs.all_failed()
    assert capsys.readouterr().err == "error: seed=1: of this\n"
    assert not list(tmp_path.iterdir())


OPTUNA = ("-m", *SHORT, "method=ewc", "hydra.sweeper.n_trials=3")


@pytest.mark.system
def test_optuna_finds_the_strength_best_on_validation_data(tmp_path: Path) -> None:
    arguments = (*OPTUNA, f"root={tmp_path}", "sweep=optuna")
    assert last_line(command(*arguments).out) == "3 jobs: 3 trained, 0 finished before, 0 failed"
    found = yaml.safe_load((tmp_path / "default" / "optimization_results.yaml").read_text())
    runs = metrics_in(tmp_path).values()
    best = max(run["val_average_accuracy"] for run in runs)
    assert found["best_value"] == best
    chosen = found["best_params"]["strength_factor"] * composed_tiny(tmp_path).method.strength
    assert any(run["strength"] == pytest.approx(chosen) for run in runs if run["val_average_accuracy"] == best)
    assert last_line(command(*arguments).out) == "3 jobs: 0 trained, 3 finished before, 0 failed"


@pytest.mark.system
def test_optuna_weighs_accuracy_against_forgetting(tmp_path: Path) -> None:
    said = command(*OPTUNA, f"root={tmp_path}", "sweep=optuna_pareto")
    assert said.code == 0
    found = yaml.safe_load((tmp_path / "default" / "optimization_results.yaml").read_text())["solutions"]
    points = {(m["val_average_accuracy"], m["val_forgetting"]) for m in metrics_in(tmp_path).values()}
    front = {p for p in points if not any(q[0] >= p[0] and q[1] <= p[1] and q != p for q in points)}
    assert {tuple(solution["values"]) for solution in found} == front


@pytest.mark.system
def test_optuna_without_validation_data_is_refused(tmp_path: Path) -> None:
    said = command(*OPTUNA, f"root={tmp_path}", "sweep=optuna", "val_fraction=0", "hydra.sweeper.n_trials=1")
    assert said.code == 1
    first, last = [line for line in said.err.splitlines() if line.startswith("error: ")]  # Optuna logs there too
    assert first.endswith("val_fraction must be > 0 where a sweep chooses by it, got 0.0")
    assert last == "error: no trial of the sweep succeeded: the lines above say why"
    assert not metrics_in(tmp_path)
