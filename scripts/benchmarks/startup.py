"""From the start of the process to its first training step, to --help and to an error."""

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.table import Cell, Settings, Table, in_turn, spread

TRAIN = str(Path(__file__).parents[2] / "train.py")
DIGITS = ("dataset/source=digits", "backbone.widths=[16]", "trainer.max_epochs=1")


def measure(settings: Settings) -> Table:
    runs: dict[str, Callable[[], float]] = {
        "python -c 'import torch'": partial(until_exit, ["-c", "import torch"]),
        "python -c 'import lightning.pytorch'": partial(until_exit, ["-c", "import lightning.pytorch"]),
        "python train.py --help": partial(until_exit, [TRAIN, "--help"]),
        "python train.py metod=ewc (an error)": partial(until_exit, [TRAIN, "metod=ewc"]),
        "python train.py method.strength=-1 (an error)": partial(until_exit, [TRAIN, "method.strength=-1"]),
        "python train.py logger=none: first step": partial(until_first_step, []),
        "… dataset/source=digits: first step": partial(until_first_step, DIGITS),
    }
    repetitions = settings.repetitions or 5
    rows: list[list[Cell]] = [[name, spread(times)] for name, times in in_turn(runs, repetitions).items()]
    return Table(
        f"Seconds from the start of the process, median (lowest–highest) of {repetitions}, files in the page cache. "
        "First step: until its row stands in history.jsonl (log_every_n_steps=1).",
        {"command": "", "s": ".2f"},
        rows,
    )


def until_exit(arguments: Sequence[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True, check=False)
    return time.perf_counter() - start


def until_first_step(overrides: Sequence[str]) -> float:
    """Raises RuntimeError if the process ends before there is one."""
    with TemporaryDirectory() as root:
        command = [sys.executable, TRAIN, "logger=none", "log_every_n_steps=1", f"root={root}", *overrides]
        start = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            while not any(path.stat().st_size for path in Path(root).rglob("history.jsonl")):
                if process.poll() is not None:
                    raise RuntimeError(f"{' '.join(command)} made no step: {process.communicate()[1]}")
                time.sleep(0.005)
            return time.perf_counter() - start
        finally:
            process.kill()
            process.wait()
