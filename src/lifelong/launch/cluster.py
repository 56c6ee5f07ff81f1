"""Runs as jobs of a cluster: what submitit and SLURM are told at the end of an interrupted run.

SLURM asks a job to stop in two ways. SIGUSR2 warns of the time limit; submitit's own handler puts the job back into the
queue. SIGTERM comes with preemption, `scontrol requeue` and `scancel`; SLURM then decides itself whether the job is
queued again, if it does not end before it is killed.
"""

import os
import signal
import sys
from typing import Any

from lifelong.runs.interrupted import Interrupted


def submitted_to() -> str | None:
    """What submitit started this process on: "slurm", "local", or None if it did not."""
    return os.environ.get("SUBMITIT_EXECUTOR")


def end_job(stop: Interrupted) -> None:
    """In a job of submitit's: ends an interrupted run, saved and closed, so that it goes on later; else returns.

    Raises:
        SystemExit: the job ends, queued again by submitit's handler or for good.
        UncompletedJobError: of submitit, if its handler does not queue the job again (it reached too many time limits).
    """
    where = submitted_to()
    if where is None:
        return
    print(stop, file=sys.stderr, flush=True)
    if stop.signum == signal.SIGUSR2:
        signal.raise_signal(signal.SIGUSR2)  # the handler that was there before the run's own: submitit's
    elif where != "slurm" or stop.signum != signal.SIGTERM:
        sys.exit(128 + stop.signum)
    while True:  # a job that ends within its grace time counts as finished; DDP's other ranks wait for the first
        signal.pause()


def trainer_plugins() -> dict[str, Any]:
    """Arguments of a Trainer on SLURM: Lightning's own requeue leaves checkpoints that every later fit would load."""
    from lightning.pytorch.plugins.environments import (  # type: ignore[attr-defined]
        SLURMEnvironment,
        TorchElasticEnvironment,
    )

    if "SLURM_NTASKS" not in os.environ or TorchElasticEnvironment.detect() or not SLURMEnvironment.detect():
        return {}
    return {"plugins": [SLURMEnvironment(auto_requeue=False)]}
