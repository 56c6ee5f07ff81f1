"""One rank of a run, in a process that `lifelong.launch.launcher` started."""

import json
import os
import signal
import sys
import traceback
from pathlib import Path
from time import sleep, time
from types import FrameType
from typing import Any

from omegaconf import OmegaConf

from lifelong.distributed.ranks import RankError
from lifelong.experiment.errors import explain
from lifelong.experiment.run import run_experiment
from lifelong.launch.jobs import ended_with
from lifelong.runs.interrupted import SIGNALS, Interrupted

CAUSE_SECONDS = 3.0
"""How long a rank that has lost another gives the launcher to see the end of that one, which is the cause."""


def main(folder: str) -> None:
    """Learn the run of folder/config.yaml together with the other ranks, then end this process."""
    for signum in SIGNALS:
        signal.signal(signum, stop)
    code = 0
    with ended_with(os.getppid()):
        try:
            learn(Path(folder, "config.yaml"))
        except BaseException as error:
            Path(os.environ["TORCHELASTIC_ERROR_FILE"]).write_text(json.dumps(report_of(error)), encoding="utf-8")
            code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # At once: the end of a process group can wait for the others, who may wait for this one; and now and then the
    # interpreter's own end, which stops threads amid torch's code, aborts a rank that has done its part.
    os._exit(code)


def learn(config: Path) -> None:
    try:
        run_experiment(OmegaConf.load(config), shown=False)  # type: ignore[arg-type]
    except RankError:
        sleep(CAUSE_SECONDS)
        raise


def stop(signum: int, frame: FrameType | None) -> None:
    """The launcher sends SIGTERM to all when one has failed; a rank that is ending already first closes its logs."""
    if sys.exc_info()[1] is None:
        raise Interrupted(signum)


def report_of(error: BaseException) -> dict[str, Any]:
    """What the launcher is to know, in torch's layout; a defect of the program prints its traceback here."""
    report: dict[str, Any] = {"message": str(error), "timestamp": time()}
    if isinstance(error, Interrupted):
        return {**report, "signum": error.signum, "then": error.then}
    if (message := explain(error)) is None:
        traceback.print_exception(error)
        message = f"{type(error).__name__}: {error} (its traceback is above)"
    return {**report, "message": message}
