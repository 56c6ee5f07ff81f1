"""Runs as jobs of a cluster, without one: what is configured, and how a job ends. tests/slurm has the real thing."""

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from lightning.pytorch.plugins.environments import SLURMEnvironment

from lifelong.config.schema import compose
from lifelong.launch.cluster import end_job, trainer_plugins
from lifelong.launch.jobs import Jobs, Outcome
from lifelong.runs.interrupted import Interrupted
from runs import assert_same_run, at_every_batch, command, run

LAUNCHERS = ("slurm", "slurm_cpu", "local")


@pytest.fixture(autouse=True)
def _outside_any_job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(("SLURM_", "SUBMITIT_"))]:
        monkeypatch.delenv(name)


@pytest.fixture
def handler() -> Iterator[list[int]]:
    """The signals that reach whoever handled SIGUSR2 and SIGTERM before the run, as submitit does; it ends the job."""
    seen: list[int] = []

    def requeue(signum: int, frame: FrameType | None) -> None:
        seen.append(signum)
        raise SystemExit(-1)

    before = {signum: signal.signal(signum, requeue) for signum in (signal.SIGUSR2, signal.SIGTERM)}
    yield seen
    for signum, old in before.items():
        signal.signal(signum, old)


# Configuration ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("experiment", [[], ["experiment=methods"], ["experiment=task_order"]])  # with launchers
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_every_experiment_goes_to_every_launcher(launcher: str, experiment: list[str]) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    node = compose([*experiment, f"hydra/launcher={launcher}"], with_hydra=True).hydra.launcher
    assert node._target_.endswith({"local": ".LocalLauncher"}.get(launcher, ".SlurmLauncher"))
    assert "n_jobs" not in node


def test_slurm_requeues_and_leaves_time_to_save() -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    node = compose(["hydra/launcher=slurm"], with_hydra=True).hydra.launcher
    assert node.additional_parameters.requeue
    assert node.max_num_timeout > 0
    assert 0 < node.signal_delay_s < 60 * node.timeout_min


def test_unknown_launcher_and_unknown_key_of_one_are_said_in_one_line(tmp_path: Path) -> None:
    said = command("-m", "hydra/launcher=slrm", f"root={tmp_path}")
    assert said.code == 1
    assert re.fullmatch("error: hydra/launcher must be one of .*local, parallel, slurm, .*, got 'slrm'\n", said.err)
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    said = command("-m", "hydra/launcher=slurm", "hydra.launcher.partiton=long", f"root={tmp_path}")
    assert said.code == 1
    assert said.err.startswith("error: unknown key 'hydra.launcher.partiton' (did you mean partition?): ")
    assert said.err.count("\n") == 1


def test_launcher_of_a_package_that_is_not_there_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command("--help")  # Hydra has found its plugins
    launchers: dict[str, Any] = ConfigStore.instance().repo["hydra"]["launcher"]
    monkeypatch.delitem(launchers, "submitit_slurm.yaml", raising=False)
    said = command("-m", "hydra/launcher=slurm", f"root={tmp_path}")
    assert (said.code, said.err) == (
        1, "error: submitit_slurm of Hydra is not installed: pip install 'lifelong[slurm]'\n",
    )  # fmt: skip


def test_slurm_without_srun_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    monkeypatch.setenv("PATH", str(tmp_path))
    said = command("-m", "hydra/launcher=slurm", f"root={tmp_path}")
    assert said.code == 1
    assert said.err == "error: hydra/launcher=slurm must find srun on the PATH of this machine, got none\n"


def test_trainer_on_slurm_leaves_queueing_to_submitit(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"NTASKS": "1", "JOB_ID": "7", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("SLURM_JOB_NAME", "train")
    (environment,) = trainer_plugins()["plugins"]
    assert isinstance(environment, SLURMEnvironment)
    assert not environment.auto_requeue
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "torchrun goes first")
    assert trainer_plugins() == {}


@pytest.mark.filterwarnings("ignore:The `srun` command is available")
def test_trainer_elsewhere_is_as_without(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trainer_plugins() == {}
    monkeypatch.setenv("SLURM_NTASKS", "1")
    monkeypatch.setenv("SLURM_JOB_NAME", "interactive")  # salloc: the command is not one of srun's processes
    assert trainer_plugins() == {}


# The end of a job ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("executor", "signum", "ends"),
    [
        (None, signal.SIGTERM, None),  # outside a job
        (None, signal.SIGUSR2, None),
        ("slurm", signal.SIGUSR2, -1),  # a warning of the time limit: who handled it before ends the job
        ("local", signal.SIGUSR2, -1),
        ("slurm", signal.SIGINT, 128 + signal.SIGINT),  # nobody queues it again
        ("local", signal.SIGTERM, 128 + signal.SIGTERM),
    ],
)
def test_interrupted_job_ends_as_its_scheduler_needs_it(
    executor: str | None, signum: int, ends: int | None, handler: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if executor:
        monkeypatch.setenv("SUBMITIT_EXECUTOR", executor)
    try:
        end_job(Interrupted(signum))
        code = None
    except SystemExit as ended:
        code = ended.code
    assert code == ends
    assert handler == ([signal.SIGUSR2] if ends == -1 else [])


def test_preempted_job_waits_to_be_killed_and_a_warning_of_the_limit_still_queues_it_again(
    handler: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    pauses = []

    def pause() -> None:
        pauses.append(len(handler))
        if len(pauses) == 3:
            signal.raise_signal(signal.SIGUSR2)

    monkeypatch.setattr(signal, "pause", pause)
    with pytest.raises(SystemExit):
        end_job(Interrupted(signal.SIGTERM))
    assert pauses == [0, 0, 0]
    assert handler == [signal.SIGUSR2]


@pytest.mark.parametrize(
    ("signums", "told"),
    [
        ((signal.SIGUSR2,), signal.SIGUSR2),
        ((signal.SIGTERM, signal.SIGTERM), signal.SIGTERM),
        ((signal.SIGTERM, signal.SIGUSR2), signal.SIGUSR2),
        ((signal.SIGUSR2, signal.SIGTERM), signal.SIGUSR2),
    ],
)
def test_signals_of_one_step_in_a_job_save_once_and_the_warning_wins(
    signums: tuple[int, ...], told: int, handler: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole")
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")

    def act(_: Any, done: int) -> None:
        if done == 8:
            for signum in signums:
                signal.raise_signal(signum)

    with monkeypatch.context() as patch:
        at_every_batch(patch, act)
        with pytest.raises(Interrupted) as stop:
            run(tmp_path / "job")
    assert stop.value.signum == told
    assert handler == []  # not before the run is saved and closed
    assert_same_run(run(tmp_path / "job"), whole)


# The command that submitted -----------------------------------------------------------------------------------------


def test_every_job_is_heard_although_one_was_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    submitit = pytest.importorskip("submitit")
    whole = JobReturn(status=JobStatus.COMPLETED)
    whole.return_value = Outcome((0.5,), trained=True)

    class Submitted(submitit.Job):  # type: ignore[misc,name-defined]
        job_id, state, paths = "12_1", "CANCELLED by 0", SimpleNamespace(folder="/runs/.submitit/12_1")

        _cancel_at_deletion = False

        def __init__(self, returned: list[JobReturn]) -> None:
            self.returned = returned

    def results(job: Submitted) -> list[JobReturn]:
        if not job.returned:
            raise submitit.core.utils.UncompletedJobError("Job 12_1 is gone")
        return job.returned

    submitted = [Submitted([]), Submitted([whole])]
    executor = SimpleNamespace(update_parameters=lambda **_: None, map_array=lambda *_: submitted)
    monkeypatch.setattr(submitit.Job, "results", results)
    monkeypatch.setattr(submitit, "AutoExecutor", lambda *_, **__: executor)
    config = compose(["hydra/launcher=local", f"root={tmp_path}"], with_hydra=True)
    jobs = Jobs()
    jobs.on_multirun_start(config)
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=HydraContext(config_loader=None, callbacks=None), task_function=None, config=config
    )
    lost, returned = launcher.launch([["method=ewc", "seed=1"], ["seed=2"]], initial_job_idx=0)
    assert returned is whole
    assert "job 12_1" in lost.return_value.failed
    assert capsys.readouterr().err == (
        "error: method=ewc seed=1: job 12_1 ended without a result (CANCELLED by 0), its log is in "
        "/runs/.submitit/12_1; the same command goes on\n"
    )
    with pytest.raises(SystemExit):
        jobs.sum_up()
    assert capsys.readouterr().out == "2 jobs: 1 trained, 0 finished before, 1 failed\n"
