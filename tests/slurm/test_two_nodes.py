"""DDP on a real SLURM: two tasks on two nodes learn one run."""

import contextlib
import os
import signal
from pathlib import Path

from one_machine import OneMachineSlurm
from test_slurm import LONGER, Sweep

from runs import assert_same_run, run

TWO_NODES = ("trainer=ddp_cpu", "trainer.num_nodes=2", "trainer.devices=1", "hydra.launcher.nodes=2")
MEET = "hydra.launcher.setup=['export MASTER_ADDR=127.0.0.1 SLURM_KILL_BAD_EXIT=1']"
"""The nodes' names are none of this machine's; the second variable is the launcher's own."""


def second_rank(job: str) -> int:
    """The process id of the Python that is task 1 of an array's job."""
    array, _, index = job.partition("_")
    wanted = {f"SLURM_ARRAY_JOB_ID={array}".encode(), f"SLURM_ARRAY_TASK_ID={index}".encode(), b"SLURM_PROCID=1"}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_python = b"\0submitit.core._submit\0" in (path / "cmdline").read_bytes()
            if is_python and wanted <= set((path / "environ").read_bytes().split(b"\0")):
                return int(path.name)
    raise AssertionError(f"job {job} has no second rank")


def test_two_nodes_queued_again_equal_two_processes_here_and_a_killed_rank_ends_its_job(
    slurm: OneMachineSlurm, tmp_path: Path
) -> None:
    sweep = Sweep(slurm, tmp_path / "slurm", ("ewc", "si"), (*TWO_NODES, MEET))
    try:
        sweep.wait_until_held("ewc")
        slurm.ask("scancel", "--signal=USR2", sweep.job("ewc"))
        sweep.wait_until_held("si")
        os.kill(second_rank(sweep.job("si")), signal.SIGKILL)
        said = sweep.end()
    finally:
        sweep.process.kill()
    assert said.code == 1
    assert said.err.count("\n") == 1, said.err
    assert "method=si" in said.err
    assert "lost contact" in said.err or "ended without a result" in said.err
    assert sweep.facts("ewc")["Restarts"] == "1"
    assert_same_run(sweep.result("ewc"), run(tmp_path / "here", LONGER, "method=ewc", "trainer=ddp_cpu"))
