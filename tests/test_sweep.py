"""Sweeps: one grid for all methods, nothing trained twice, references trained once, the best by validation data."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import OmegaConf

from lifelong.config.schema import ConfigError, folded
from lifelong.experiment.result import read_result, val_matrix
from lifelong.launch.jobs import Objectives, ended_with
from lifelong.metrics import intransigence
from lifelong.runs.folder import RunFolder
from lifelong.runs.identity import identifier
from runs import TINY, command, composed_tiny, run

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
    assert factor.method.strength == 0.1, "the configuration handed in is not changed"


def test_factor_leaves_a_method_without_strength_the_same_run(tmp_path: Path) -> None:
    plain, scaled = (composed_tiny(tmp_path, "method=finetune", *more) for more in ((), ("strength_factor=10",)))
    assert identifier(folded(scaled)) == identifier(plain)


def test_new_keys_leave_the_run_id_alone(tmp_path: Path) -> None:
    one = identifier(composed_tiny(tmp_path))
    for same in ("reference=auto", "objectives=[val_forgetting]", "sweep=seeds"):
        assert identifier(composed_tiny(tmp_path, same)) == one


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("strength_factor=-1", "strength_factor must be a finite number >= 0, got -1.0"),
        ("reference=always", "reference must be auto or off, got 'always'"),
        ("objectives=[average_accuracy]", "objectives must be a list of some of val_average_accuracy"),
        ("objectives=[]", "objectives must be a list of some of val_average_accuracy"),
    ],
)
def test_wrong_values_are_refused_before_anything_is_written(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match="^" + message.replace("[", r"\[")):
        run(tmp_path, override)
    assert not list(tmp_path.iterdir())


# Nothing trained twice ----------------------------------------------------------------------------------------------


@pytest.mark.system
@pytest.mark.smoke
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
    """Twice forked: a command, and its worker in the midst of a run that would take minutes."""
    started, tell = os.pipe()
    parent = os.fork()
    if parent == 0:
        worker = os.fork()
        if worker == 0:
            with ended_with(os.getppid(), every_seconds=0.02):
                os.write(tell, os.getpid().to_bytes(8, "big"))
                run(tmp_path, "trainer.max_epochs=100000")
            os._exit(0)
        signal.pause()
    worker = int.from_bytes(os.read(started, 8), "big")
    deadline = time.monotonic() + 30
    while not list(tmp_path.glob("*/*/history.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    while Path(f"/proc/{worker}/stat").exists() and time.monotonic() < deadline:
        if Path(f"/proc/{worker}/stat").read_text().split()[2] == "Z":
            break
        time.sleep(0.02)
    else:
        assert not Path(f"/proc/{worker}").exists()
    assert list(tmp_path.glob("*/*/last.ckpt"))


def test_outside_a_multirun_a_taken_folder_is_an_error(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "default" / identifier(composed_tiny(tmp_path)))
    with folder.locked():
        said = command(*TINY, f"root={tmp_path}")
    assert (said.code, said.err) == (
        1,
        f"error: run folder {folder.path} is in use: another process is training this run\n",
    )


@pytest.mark.system
def test_two_sweeps_at_once_killed_and_issued_again_train_every_run_once(tmp_path: Path) -> None:
    """The first is killed in the middle; then two at once share what is left, two jobs at a time each."""
    parallel = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "trainer.max_epochs=20")
    grid = ("method=ewc,finetune", "strength_factor=0.1,1", "seed=0,1", "reference=auto")
    arguments = [sys.executable, str(TRAIN), "-m", *TINY, f"root={tmp_path}", *grid, *parallel]
    log = (tmp_path / "log").open("wb")

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(arguments, stdout=log, stderr=log, cwd=tmp_path)

    first = start()
    deadline = time.monotonic() + 120
    while len(metrics_in(tmp_path)) < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    first.kill()
    first.wait()
    both = [start(), start()]
    codes = [process.wait(timeout=200) for process in both]
    assert codes == [0, 0], (tmp_path / "log").read_text()
    assert len(metrics_in(tmp_path)) == 2 * 2 + 2 + 2  # fine-tuning has one strength; one joint run for each seed
    alone = run(tmp_path / "alone", "method=ewc", "strength_factor=0.1", "seed=1", "trainer.max_epochs=20")
    swept = read_result(RunFolder(next(tmp_path.glob(f"*/{alone.folder.name}"))))
    assert torch.equal(swept.matrix, alone.matrix)


# References ---------------------------------------------------------------------------------------------------------


@pytest.mark.system
def test_joint_run_is_trained_once_for_all_jobs_of_a_seed(tmp_path: Path) -> None:
    said = command("-m", *SHORT, f"root={tmp_path}", "method=ewc,mas", "seed=0,1", "reference=auto")
    assert said.out.count("reference for intransigence:") == 2
    found = metrics_in(tmp_path)
    assert sum(name.startswith("joint-") for name in found) == 2
    for name, metrics in found.items():
        if not name.startswith("joint-"):
            joint = next(iter(tmp_path.glob(f"*/{metrics['reference']}")))
            reference = read_result(RunFolder(joint)).matrix.diagonal()
            ours = read_result(RunFolder(next(iter(tmp_path.glob(f"*/{name}")))))
            assert metrics["intransigence"] == intransigence(ours.matrix, reference).item()
            assert f"-s{metrics['seed']}-" in metrics["reference"]


def test_reference_is_the_ordinary_joint_run(tmp_path: Path) -> None:
    joint = run(tmp_path, "method=joint", "name=elsewhere", "trainer.max_epochs=1")
    result = run(tmp_path, "method=ewc", "memory=uniform", "reference=auto", "trainer.max_epochs=1")
    assert result.metrics["reference"] == joint.folder.name
    assert sum(name.startswith("joint-") for name in metrics_in(tmp_path)) == 1
    assert result.metrics["intransigence"] == intransigence(result.matrix, joint.matrix.diagonal()).item()
    val, val_joint = val_matrix(result.folder), val_matrix(joint.folder)
    assert val is not None
    assert val_joint is not None
    assert result.metrics["val_intransigence"] == intransigence(val, val_joint.diagonal()).item()


def test_run_finished_without_reference_is_given_one_and_not_trained_again(tmp_path: Path) -> None:
    before = run(tmp_path, "method=ewc", "trainer.max_epochs=1")
    assert before.metrics["intransigence"] is None
    after = run(tmp_path, "method=ewc", "trainer.max_epochs=1", "reference=auto")
    assert not after.trained
    assert after.metrics["intransigence"] is not None
    unchanged = {k: v for k, v in after.metrics.items() if k not in ("intransigence", "val_intransigence", "reference")}
    assert unchanged.items() <= before.metrics.items()
    assert read_result(RunFolder(after.folder)).metrics == after.metrics


def test_run_without_its_reference_goes_on_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def failing(*_: Any) -> None:
        raise OSError("no space")

    monkeypatch.setattr("lifelong.experiment.reference.Reference.of", failing)
    result = run(tmp_path, "method=ewc", "trainer.max_epochs=1", "reference=auto")
    assert result.metrics["intransigence"] is None
    assert capsys.readouterr().err == "no reference for intransigence: no space\n"


# What a sweeper chooses by ------------------------------------------------------------------------------------------


def test_validation_measures_are_of_the_validation_matrix(tmp_path: Path) -> None:
    result = run(tmp_path, "method=ewc")
    val = val_matrix(result.folder)
    assert val is not None
    assert not torch.equal(val, result.matrix)
    metrics = result.metrics
    assert metrics["val_forgetting"] == (val[0, 0] - val[1, 0]).item()
    assert metrics["val_learning_accuracy"] == val.diagonal().mean().item()
    assert metrics["val_average_accuracy"] == val[1].mean().item()


def test_without_validation_data_there_is_nothing_to_choose_by(tmp_path: Path) -> None:
    result = run(tmp_path, "val_fraction=0")
    assert val_matrix(result.folder) is None
    assert {result.metrics[key] for key in ("val_average_accuracy", "val_forgetting", "val_learning_accuracy")} == {
        None
    }


def test_objectives_survive_the_way_between_processes() -> None:
    sent = pickle.loads(pickle.dumps(Objectives([0.5, None], trained=True)))
    assert (float(sent), list(sent)[:1], sent.trained) == (0.5, [0.5], True)
    assert list(sent)[1] != list(sent)[1], "undefined is nan"


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


def test_every_sweep_group_composes() -> None:
    groups = sorted((TRAIN.parent / "configs" / "sweep").glob("*.yaml"))
    assert {"strength", "methods", "seeds", "order", "optuna"} <= {path.stem for path in groups}
    for path in groups:
        assert OmegaConf.load(path).hydra.sweeper
