"""Settings of several processes that cannot work end in one line, before any process is started."""

import os
from pathlib import Path

import pytest

from lifelong.config.schema import ConfigError
from lifelong.launch import launcher
from lifelong.training.trainer import Ranks, wanted_ranks
from runs import composed_tiny, run

CORES = max(2, os.cpu_count() or 1)
SLURM = {
    **{"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NODEID": "0"},
    **{"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1"},
}
TWO_NODES = {**SLURM, "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2", "SLURM_LOCALID": "0"}
STRATEGY = (
    "must be one of auto, ddp, ddp_find_unused_parameters_true: importance needs the whole weights on every device"
)
TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}


@pytest.fixture(autouse=True)
def _starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object) -> None:
        raise AssertionError("processes were started")

    monkeypatch.setattr(launcher, "launch", started)


@pytest.mark.parametrize(
    ("setting", "must"),
    [
        ("trainer.devices=99", f"must be at most the number of CPU cores, {CORES}, got 99"),
        ("batch_size=1", "must be at least 1 for each of the 2 processes, got 1"),
        ("trainer.sync_batchnorm=true", "must be false on CPUs, where torch has none, got true"),
        ("trainer.num_nodes=2", "must be 1 unless torchrun or srun starts the processes on every node, got 2"),
        *((f"trainer.strategy={name}", f"{STRATEGY}, got '{name}'") for name in ("fsdp", "deepspeed", "ddp_spawn")),
        ("rank_timeout_seconds=0", "must be a finite number > 0, got 0.0"),
    ],
)
def test_setting_that_cannot_work_is_refused_in_one_line(setting: str, must: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as error:
        run(tmp_path, "trainer=ddp_cpu", setting)
    assert str(error.value) == f"{setting.partition('=')[0]} {must}"
    assert not list(tmp_path.iterdir())


def test_sharded_strategy_of_a_single_device_is_refused_too(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="importance needs the whole weights"):
        run(tmp_path, "+trainer.strategy=fsdp")


def wanted(patch: pytest.MonkeyPatch, variables: dict[str, str], *overrides: str) -> Ranks:
    for name, value in variables.items():
        patch.setenv(name, value)
    return wanted_ranks(composed_tiny(Path(), *overrides))


@pytest.mark.parametrize(
    ("overrides", "variables", "ranks"),
    [
        ([], {}, Ranks(1, started=True)),
        (["trainer=ddp_cpu"], {}, Ranks(2, started=False)),
        (["trainer=ddp_cpu", "trainer.devices=1"], {}, Ranks(1, started=True)),
        (["trainer.devices=2"], {}, Ranks(2, started=False)),
        (["trainer=ddp_cpu"], TORCHRUN, Ranks(2, started=True)),
        (["trainer=ddp_cpu"], SLURM, Ranks(2, started=True)),
        ([], SLURM, Ranks(1, started=True)),
        (["trainer=ddp_cpu", "trainer.devices=1", "trainer.num_nodes=2"], TWO_NODES, Ranks(2, started=True)),
    ],
)
def test_who_starts_the_processes(
    overrides: list[str], variables: dict[str, str], ranks: Ranks, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert wanted(monkeypatch, variables, *overrides) == ranks


@pytest.mark.parametrize(
    ("overrides", "variables", "message"),
    [
        (["trainer=ddp_cpu"], TWO_NODES, r"trainer.devices must be the number of tasks on each node.*devices=2"),
        (["trainer=ddp_cpu"], {**SLURM, "SLURM_NTASKS": "1"}, r"trainer\.num_nodes must be the 1 started tasks, got 2"),
        ([], TORCHRUN, r"number of processes that torchrun started, 2, got 1 .*trainer=ddp"),
    ],
)
def test_other_processes_than_wanted_are_refused(
    overrides: list[str], variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=message):
        wanted(monkeypatch, variables, *overrides)
