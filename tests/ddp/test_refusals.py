"""Who starts the processes of a run, and what is refused before any is started."""

from pathlib import Path

import pytest

from lifelong.config.schema import ConfigError
from lifelong.training.trainer import Ranks, wanted_ranks
from runs import composed_tiny

SLURM = {
    **{"SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_NODEID": "0"},
    **{"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1"},
}
TWO_NODES = {**SLURM, "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2", "SLURM_LOCALID": "0"}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2"}


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
