"""The command itself: what it prints, how it ends, what it leaves in the folder it was called in."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import train as script

from lifelong.config.groups import CONFIGS, choices
from lifelong.config.schema import ConfigError
from lifelong.runs.interrupted import Interrupted
from lifelong.tracking import read_history
from runs import TINY, Said, command, refused
from wandb_log import rows

TRAIN = Path(script.__file__)
JOBS = ("dataset.angles=[0]", "trainer.max_epochs=1")


def metrics_in(root: Path) -> list[Path]:
    return sorted(root.rglob("metrics.json"))


# Words --------------------------------------------------------------------------------------------------------------


def test_help_lists_the_groups_and_waits_for_no_torch() -> None:
    program = "import lifelong.experiment.main, sys; print({'torch', 'pydantic'} & set(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (loaded.stdout, loaded.stderr) == ("set()\n", "")
    said = command("--help")
    assert (said.code, said.err) == (0, "")
    assert f"method: {', '.join(choices('method'))}\n" in said.out
    assert "dataset/source: " in said.out
    assert "seed: 0" in said.out


def test_run_says_a_line_per_task_and_tables_and_where_it_is(tmp_path: Path) -> None:
    said = command(*TINY, f"root={tmp_path}", "progress=true")
    assert (said.code, said.err) == (0, "")
    lines = said.out.splitlines()
    assert lines[0].startswith("task 1/2 rot0 learned · test accuracy %: rot0 ")
    assert lines[1].startswith("task 2/2 rot30 learned · test accuracy %: rot0 ")
    assert lines[-1] == f"run folder: {metrics_in(tmp_path)[0].parent}"
    assert "average accuracy" in said.out


def test_folder_of_the_user_adds_choices_whose_options_are_known(tmp_path: Path) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text("_target_: lifelong.methods.ewc.EWC\nstrength: 5\n")
    said = command("--config-dir", str(tmp_path), "method=mine", "method.labels=sampled", "--cfg", "job")
    assert (said.code, said.err) == (0, "")
    assert "  strength: 5\n  labels: sampled\n" in said.out
    said = command("--config-dir", str(tmp_path), "method=mine", "method.lables=sampled")
    assert said.err.startswith("error: unknown key 'method.lables' (did you mean labels?): method has ")


@pytest.mark.parametrize("more", [[], ["--cfg", "job"]])
def test_folder_of_the_user_that_would_be_passed_over_is_refused(tmp_path: Path, more: list[str]) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "ewc.yaml").write_text("_target_: lifelong.methods.ewc.EWC\nstrength: 7\n")
    assert refused(command("--config-dir", str(tmp_path), "method=ewc", *more)) == (
        "--config-dir must hold yamls of other names than ours, which come first, got method/ewc.yaml"
    )
    assert (
        refused(command("--config-dir", f"{tmp_path}/no", *more))
        == f"--config-dir must be a folder, got '{tmp_path}/no'"
    )


def test_flags_may_stand_amid_overrides() -> None:
    said = command("method=mas", "--cfg", "job", "seed=3")
    assert (said.code, said.err) == (0, "")
    assert "\nseed: 3\n" in said.out


# Several jobs -------------------------------------------------------------------------------------------------------


def test_multirun_with_a_bad_job_runs_the_others_and_fails(tmp_path: Path) -> None:
    said = command("-m", *TINY, *JOBS, f"root={tmp_path}", "method.strength=1,-1,2")
    assert said.code == 1
    assert said.err.count("\n") == 1
    assert said.err.startswith("error: ")
    assert said.err.endswith("method.strength=-1: method.strength must be a finite number >= 0, got -1\n")
    assert len(metrics_in(tmp_path)) == 2
    assert "Error executing job" not in said.out


@pytest.mark.parametrize("override", ["method=ewc,ewcc", "metod=ewc,si"])
def test_multirun_that_does_not_compose_starts_no_job(override: str, tmp_path: Path) -> None:
    said = command("-m", *TINY, f"root={tmp_path}", override)
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert not metrics_in(tmp_path)


def test_multirun_ends_with_the_job_that_was_interrupted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C means all of it, not on with the next job."""
    calls: list[Any] = []

    def interrupted(config: Any) -> None:
        calls.append(config)
        raise Interrupted(signal.SIGINT, "the same command continues: x")

    monkeypatch.setattr("lifelong.experiment.run.run_experiment", interrupted)
    said = command("-m", *TINY, f"root={tmp_path}", "seed=1,2,3")
    assert (said.code, len(calls)) == (130, 1)
    assert said.err == "interrupted by SIGINT; the same command continues: x\n"


# Errors -------------------------------------------------------------------------------------------------------------


class OutOfMemoryError(RuntimeError):
    """As torch calls it."""


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "interrupted by SIGINT"),
        (OutOfMemoryError("CUDA out of memory.\nSee docs."), 1, "error: CUDA out of memory.; See docs."),
        (ZeroDivisionError("a defect"), None, ""),
    ],
)
def test_what_ends_a_run_is_one_line_and_a_defect_keeps_its_traceback(
    error: BaseException, code: int | None, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Any) -> None:
        raise error

    monkeypatch.setattr("lifelong.experiment.run.run_experiment", fail)
    if code is None:
        with pytest.raises(type(error), match=str(error)):
            command(*TINY, f"root={tmp_path}")
    else:
        assert command(*TINY, f"root={tmp_path}") == Said(code, "", f"{line}\n")


def test_hydra_full_error_shows_tracebacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ConfigError):
        command(*TINY, f"root={tmp_path}", "method.strength=-1")


@pytest.mark.parametrize("before", [None, "0"])
def test_environment_is_as_before(before: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    if before is not None:
        monkeypatch.setenv("HYDRA_FULL_ERROR", before)
    environment = dict(os.environ)
    command(*TINY, f"root={tmp_path}", "method.strength=-1")
    assert dict(os.environ) == environment


# Processes ----------------------------------------------------------------------------------------------------------


@pytest.mark.system
def test_normal_runs_print_nothing_of_their_libraries_and_leave_nothing_but_their_folder(tmp_path: Path) -> None:
    environment = {**os.environ, "WANDB_MODE": "offline", "PYTHONWARNINGS": "default::UserWarning"}
    processes = {}
    for logger in ("none", "wandb"):
        (tmp_path / logger).mkdir()
        arguments = [sys.executable, str(TRAIN), *TINY, f"logger={logger}", "root=runs", "progress=true"]
        processes[logger] = subprocess.Popen(
            arguments, cwd=tmp_path / logger, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    outputs = {}
    for logger, process in processes.items():
        outputs[logger], err = process.communicate(timeout=400)
        said = err.splitlines()
        assert (process.returncode, len(said)) == (0, int(logger == "wandb"))
        assert all(line.startswith("W&B is offline (WANDB_MODE=offline): the rows are in runs/") for line in said)
        assert os.listdir(tmp_path / logger) == ["runs"]
    assert outputs["none"] == outputs["wandb"]
    assert outputs["none"].startswith("task 1/2 rot0 learned")
    (path,) = tmp_path.rglob("*.wandb")
    (history,) = (tmp_path / "wandb").rglob("history.jsonl")
    assert len(rows(path)) == len(read_history(history))


@pytest.mark.system
@pytest.mark.parametrize("launcher", ["joblib", "local"])
def test_failed_job_of_another_process_is_told_once_and_fails_the_command(launcher: str, tmp_path: Path) -> None:
    """joblib has worker processes, hydra/launcher=local a process for each job, as on a cluster."""
    pytest.importorskip({"joblib": "hydra_plugins.hydra_joblib_launcher", "local": "submitit"}[launcher])
    arguments = ["-m", f"hydra/launcher={launcher}", *TINY, *JOBS, f"root={tmp_path}", "method.strength=1,-1"]
    done = subprocess.run([sys.executable, str(TRAIN), *arguments], capture_output=True, text=True, timeout=400)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "2 jobs: 1 trained, 0 finished before, 1 failed"
    assert done.stderr.count("\n") == 1
    assert done.stderr.endswith("method.strength=-1: method.strength must be a finite number >= 0, got -1\n")
    assert len(metrics_in(tmp_path)) == 1
    assert not list(tmp_path.glob("default/.jobs-*"))


def test_every_example_of_the_help_composes() -> None:
    text = (CONFIGS / "hydra" / "help" / "lifelong.yaml").read_text()
    examples = [line.split()[2:] for line in text.splitlines() if line.strip().startswith("python train.py")]
    assert len(examples) >= 3
    for example in examples:
        overrides = [part.split(",")[0] for part in example if "=" in part]
        assert command(*overrides, "--cfg", "job").code == 0


@pytest.mark.system
def test_wheel_trains_outside_of_a_checkout(tmp_path: Path) -> None:
    """Built from a copy, as building leaves files beside the sources; installed into a folder of its own."""
    checkout, site, elsewhere = (tmp_path / name for name in ("checkout", "site", "elsewhere"))
    for name in ("src", "configs"):
        shutil.copytree(
            TRAIN.parent / name, checkout / name, symlinks=True, ignore=shutil.ignore_patterns("*.egg-info")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(TRAIN.parent / name, checkout)
    elsewhere.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--target", site, checkout], check=True)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    settings = [*TINY, "trainer.max_epochs=1", "root=runs"]
    for words in ([sys.executable, "-m", "lifelong"], [sys.executable, site / "bin" / "lifelong"]):
        subprocess.run([*words, *settings], cwd=elsewhere, env=environment, check=True)
    assert len(metrics_in(elsewhere)) == 1
    program = "import lifelong; print(lifelong.__file__)"
    where = subprocess.run(
        [sys.executable, "-c", program], cwd=elsewhere, env=environment, capture_output=True, text=True
    )
    assert Path(where.stdout.strip()).is_relative_to(site)
