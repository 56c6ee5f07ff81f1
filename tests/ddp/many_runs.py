"""One rank of a group that does one tiny run after the other: torchrun … many_runs.py ROOT RUNS.json.

Start-up takes longer than all the runs, so they share it.
"""

import json
import os
import signal
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


if __name__ == "__main__":
    torch.set_num_threads(1)
    quiet_libraries()
    result.draw = lambda *_: None  # half the time of a tiny run
    main(Path(sys.argv[1]), json.loads(Path(sys.argv[2]).read_text()))
