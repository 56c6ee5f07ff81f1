"""One rank of a group that does one tiny run after the other: torchrun … many_runs.py ROOT RUNS.json.

Start-up takes longer than all the runs, so they share it. Without torchrun the process forks, before it has run a
thread, into two ranks: a third of the start-up.
"""

import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lifelong.experiment import result
from lifelong.runs.interrupted import Interrupted
from lifelong.tracking import quiet_libraries
from runs import at_every_batch, run


def interrupted(root: Path, overrides: list[str], step: int) -> bool:
    """Run until the last rank, and it alone, gets a SIGTERM in the midst of step number `step`."""

    def act(checkpoints: Any, done: int) -> None:
        if done == step and os.environ["RANK"] == "1":
            signal.raise_signal(signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        at_every_batch(patch, act)
        try:
            run(root, *overrides)
        except Interrupted:
            return True
    return False


def main(root: Path, runs: dict[str, Any]) -> None:
    for name, (overrides, stops) in runs.items():
        overrides = ["trainer=ddp_cpu", *overrides]
        for step in stops:
            assert interrupted(root / name, overrides, step), f"{name} was not interrupted at step {step}"
        run(root / name, *overrides)


def fork() -> int:
    """Become rank 0 of two, and in the child rank 1; returns the child's process id, and 0 in the child."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port, TORCHELASTIC_RUN_ID="forked", WORLD_SIZE="2")
    child = os.fork()
    os.environ["RANK"] = os.environ["LOCAL_RANK"] = "0" if child else "1"
    return child


if __name__ == "__main__":
    child = 0 if "RANK" in os.environ else fork()
    torch.set_num_threads(1)
    quiet_libraries()
    result.draw = lambda *_: None  # half the time of a tiny run
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
    if child:
        sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
