"""Settings of several processes that cannot work end in one line, before any process is started."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from lifelong.config.schema import ConfigError
from lifelong.experiment import run as experiment
from lifelong.training.trainer import Ranks, wanted_ranks
from runs import composed_tiny, run

CORES = max(2, os.cpu_count() or 1)
TASKS_OF_SLURM = {
    **{"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NODEID": "0"},
    **{"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1"},
}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}


@pytest.fixture(autouse=True)
def _starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object) -> None:
        raise AssertionError("processes were started")

    monkeypatch.setattr(experiment, "launch", started)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["trainer.devices=99"], f"trainer.devices must be at most the number of CPU cores, {CORES}, got 99"),
        (["batch_size=1"], "batch_size must be at least 1 for each of the 2 processes, got 1"),
        (
            ["trainer.sync_batchnorm=true"],
            "trainer.sync_batchnorm must be false on CPUs, where torch has none, got true",
        ),
        (
            ["trainer.num_nodes=2"],
            "trainer.num_nodes must be 1 unless torchrun or srun starts the processes on every node, got 2",
        ),
        *(
            (
                [f"trainer.strategy={name}"],
                "trainer.strategy must be one of auto, ddp, ddp_find_unused_parameters_true: importance needs the "
                f"whole weights on every device, got '{name}'",
            )
            for name in ("fsdp", "deepspeed", "ddp_spawn")
        ),
        (["rank_timeout_seconds=0"], "rank_timeout_seconds must be a finite number > 0, got 0.0"),
    ],
)
def test_setting_that_cannot_work_is_refused_in_one_line(settings: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        run(tmp_path, "trainer=ddp_cpu", *settings)
    assert str(error.value) == message
    assert not list(tmp_path.iterdir())


def test_sharded_strategy_of_a_single_device_is_refused_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="importance needs the whole weights"):
        run(tmp_path, "+trainer.strategy=fsdp")


def wanted(*overrides: str) -> Ranks:
    return wanted_ranks(composed_tiny(Path(), *overrides))


@pytest.fixture
def setenv(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    def set_all(variables: dict[str, str]) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_all


def test_who_starts_the_processes() -> None:
    assert wanted() == Ranks(1, started=True)
    assert wanted("trainer=ddp_cpu") == Ranks(2, started=False)
    assert wanted("trainer=ddp_cpu", "trainer.devices=1") == Ranks(1, started=True)
    assert wanted("trainer.devices=2") == Ranks(2, started=False)


def test_task_of_slurm_is_a_rank_already(setenv: Callable[[dict[str, str]], None]) -> None:
    setenv(TASKS_OF_SLURM)
    assert wanted("trainer=ddp_cpu") == Ranks(2, started=True)
    assert wanted() == Ranks(1, started=True)


def test_two_nodes_of_slurm_are_two_ranks(setenv: Callable[[dict[str, str]], None]) -> None:
    setenv({**TASKS_OF_SLURM, "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2", "SLURM_LOCALID": "0"})
    assert wanted("trainer=ddp_cpu", "trainer.devices=1", "trainer.num_nodes=2") == Ranks(2, started=True)
    with pytest.raises(ConfigError, match=r"trainer.devices must be the number of tasks on each node.*devices=2"):
        wanted("trainer=ddp_cpu")


def test_other_number_of_tasks_than_devices_is_refused(setenv: Callable[[dict[str, str]], None]) -> None:
    setenv({**TASKS_OF_SLURM, "SLURM_NTASKS": "1", "SLURM_NTASKS_PER_NODE": "1", "SLURM_PROCID": "0"})
    with pytest.raises(ConfigError, match=r"trainer\.num_nodes must be the 1 started tasks, got 2"):
        wanted("trainer=ddp_cpu")


def test_torchrun_of_another_number_of_processes_is_refused(setenv: Callable[[dict[str, str]], None]) -> None:
    setenv(TORCHRUN)
    assert wanted("trainer=ddp_cpu") == Ranks(2, started=True)
    with pytest.raises(ConfigError, match=r"number of processes that torchrun started, 2, got 1 .*trainer=ddp"):
        wanted()
