"""One rank of a run that `launch` started: python -m lifelong.experiment.rank FOLDER (which holds config.yaml)."""

import json
import os
import signal
import sys
import threading
import traceback
from pathlib import Path
from time import sleep
from typing import Any

from omegaconf import OmegaConf

from lifelong.distributed.ranks import RankError
from lifelong.experiment.errors import explain
from lifelong.experiment.run import run_experiment
from lifelong.runs.interrupted import Interrupted

ORPHANED_SECONDS = 60.0


def end_with_parent() -> None:
    """Standard input ends with the process that started this one: save, as on any SIGTERM, or end without."""
    os.read(sys.stdin.fileno(), 1)  # not by sys.stdin, whose lock the interpreter wants at its end
    os.kill(os.getpid(), signal.SIGTERM)
    sleep(ORPHANED_SECONDS)
    os._exit(1)


def report_of(error: BaseException) -> dict[str, Any]:
    """What the process that started this one is to know of it. A defect of the program prints its traceback here."""
    if isinstance(error, Interrupted):
        return {"signum": error.signum, "then": error.then}
    message = explain(error)
    if message is None:
        traceback.print_exception(error)
        message = f"{type(error).__name__}: {error} (its traceback is above)"
    return {"error": message, "lost": isinstance(error, RankError)}


def main(folder: Path) -> None:
    threading.Thread(target=end_with_parent, daemon=True).start()
    rank, code = os.environ["LOCAL_RANK"], 0
    try:
        run_experiment(OmegaConf.load(folder / "config.yaml"), shown=False)  # type: ignore[arg-type]
    except BaseException as error:
        (folder / f"{rank}.json").write_text(json.dumps(report_of(error)), encoding="utf-8")
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # At once: the end of a process group can wait for the others, who may wait for this one; and now and then the
    # interpreter's own end, which stops threads amid torch's code, aborts a rank that has done its part.
    os._exit(code)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
