"""Start the ranks of one run on this machine with torchrun's own agent.

Lightning's launcher starts its processes within the first fit by issuing the command again. Here each job of a multirun
and each `lifelong.run` has its own ranks, with the exact configuration of that job. This process is none of them, so it
outlives them and says in one line how they ended.
"""

import json
import logging
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from lifelong.distributed.ranks import RankError
from lifelong.runs.interrupted import SIGNALS, Interrupted, handlers_put_back

HOST = "127.0.0.1"
SAVING_SECONDS = 300
"""How long ranks have, after a signal, to save and to close their logs before they are killed."""
QUIET = "import signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL)"
"""Ctrl-C while a rank is still importing shows no traceback."""


def launch(module: str, config_yaml: str, num_ranks: int) -> None:
    """Call main(folder) of `module` in each of `num_ranks` new processes; returns when all have done their part.

    folder: holds config.yaml; torch's environment variables name the rank, and the file for the report of its failure.

    Raises:
        RankError: one of them failed; says why.
        Interrupted: a signal came to this process, or to one of them.
    """
    with tempfile.TemporaryDirectory(prefix="lifelong-") as folder, _agent_at_work():
        Path(folder, "config.yaml").write_text(config_yaml, encoding="utf-8")
        ranks = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=num_ranks,
            run_id=Path(folder).name,
            rdzv_backend="c10d",
            rdzv_endpoint=f"{HOST}:0",  # the system picks a free port
            local_addr=HOST,
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
            signals_to_handle=",".join(signum.name for signum in SIGNALS),
            shutdown_timeout=SAVING_SECONDS,
        )
        call = f"{QUIET}; sys.path[:] = {sys.path!r}; from {module} import main; main({folder!r})"
        try:
            elastic_launch(ranks, sys.executable)("-c", call)
        except SignalException as stop:
            reports = (json.loads(path.read_text(encoding="utf-8")) for path in Path(folder).rglob("error.json"))
            raise next(filter(None, map(_interruption, reports)), Interrupted(stop.sigval)) from None
        except ChildFailedError as error:
            rank, failure = error.get_first_failure()
            stopped = _interruption(failure.error_file_data)
            raise stopped or RankError(_reason(failure, f"rank {rank} of {num_ranks}")) from None


@contextmanager
def _agent_at_work() -> Iterator[None]:
    """Within the block torch's agent logs nothing; its signal handlers go with the block."""
    log = logging.getLogger("torch.distributed.elastic")
    log.addHandler(logging.NullHandler())
    log.propagate = False
    with handlers_put_back():
        yield


def _interruption(report: Mapping[str, Any]) -> Interrupted | None:
    return Interrupted(report["signum"], report["then"]) if "signum" in report else None


def _reason(failure: ProcessFailure, rank: str) -> str:
    if "timestamp" in failure.error_file_data:  # its own report
        return failure.message
    how = (
        f"was ended by {failure.signal_name()}" if failure.exitcode < 0 else f"ended with exit code {failure.exitcode}"
    )
    return f"{rank} {how}; the same command continues from the last checkpoint"
