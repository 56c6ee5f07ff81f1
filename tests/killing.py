"""One warm process that forks: each child is an attempt at a run, killed somewhere. python killing.py ROOT SEED KIND.

Prints one JSON object a case: what killed it where. Fails if a run does not end as an uninterrupted one.
Forking saves the start-up of 5 s; the parent runs no thread and trains nothing.
"""

import gc
import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import chain, count, cycle, repeat
from pathlib import Path
from typing import Any

import torch

from lifelong.experiment import result
from lifelong.experiment.result import Result, read_result
from lifelong.memory.base import ExemplarMemory
from lifelong.methods import penalty
from lifelong.models.learner import Learner
from lifelong.runs.folder import RunFolder
from lifelong.runs.interrupted import Interrupted
from lifelong.tracking import History
from lifelong.training import loop
from lifelong.training.checkpoint import Checkpoints
from runs import assert_same_run, composed_tiny, run
from tiny import METHODS, overrides

ALWAYS = ("backbone.dropout=0.2", "augment=affine")
MEMORIES = ("uniform", "plane_distance", "entropy", "mean_of_features")
INTERVALS = {"ewcpp": 2, "rwalk": 3}
SAVING = ("checkpoint_steps=1", "checkpoint_steps=3", "checkpoint_seconds=1e-9")
KILLS = {"one": 2, "methods": 6, "wandb": 4}
"""Of each case."""


@dataclass(frozen=True)
class Aim:
    """The n-th call of owner.name, if its arguments are such, is where the signal comes."""

    place: str
    owner: Any
    name: str
    such: Callable[..., bool] = lambda *_, **__: True
    torn: bool = False
    """Half of the data is written before."""
    nth: tuple[int, int] = (1, 2)
    """n is drawn between these."""


def onto(name: str) -> Callable[..., bool]:
    return lambda source, target, *_: Path(target).name == name


STEPS = Aim("a step", Learner, "training_step", nth=(8, 28))
AIMS = (
    Aim("importance", penalty.Penalty, "after_task"),
    Aim("checkpoint, between the two renames", os, "replace", onto("last.ckpt")),
    Aim("evaluation", loop, "accuracy_row"),
    Aim("memory selection", ExemplarMemory, "choose"),
    Aim("a step", Learner, "training_step"),
    Aim("checkpoint, half written", torch, "save", torn=True),
    Aim("metrics, before they are there", os, "replace", onto("metrics.json")),
    Aim("history, half a row", History, "append", torn=True),
    Aim("importance, folded in", penalty, "check_importance"),
    Aim("checkpoint, before the first rename", os, "replace", onto("previous.ckpt")),
    Aim("memory", ExemplarMemory, "after_task"),
    Aim("checkpoint between tasks", Checkpoints, "save_boundary"),
    Aim("matrix, before it is there", os, "replace", onto("accuracy_matrix.csv")),
    Aim("metrics writing", RunFolder, "write_metrics"),
)


def aimed(aim: Aim, nth: int, signum: int) -> None:
    """In a child: from the n-th such call on nothing is as it was."""
    original, calls = getattr(aim.owner, aim.name), count(1)

    def killing(*arguments: Any, **options: Any) -> Any:
        if aim.such(*arguments, **options) and next(calls) == nth:
            if aim.torn:
                tear(*arguments)
            os.kill(os.getpid(), signum)
        return original(*arguments, **options)

    setattr(aim.owner, aim.name, killing)


def tear(first: Any, second: Any) -> None:
    """Half of what History.append(row) or torch.save(checkpoint, file) writes."""
    file = first._file if isinstance(first, History) else second
    file.write(json.dumps(second).encode()[:9] if isinstance(first, History) else b"PK, half a checkpoint")
    file.flush()


def attempt(
    root: Path, settings: tuple[str, ...], signum: int = 0, aim: Aim | None = None, nth: int = 1, delay: float = 0
) -> int:
    """Fork a child that runs; `signum` comes at the aim, or without one after `delay` seconds, and never if it is 0.

    Returns the signal that ended it, or 0.
    """
    if (child := os.fork()) == 0:
        code = 1
        try:
            sys.stdout = sys.stderr = open(root.with_suffix(".log"), "a")  # noqa: SIM115 - closed with the process
            if signum and aim:
                aimed(aim, nth, signum)
            run(root, *settings)
            code = 0
        except Interrupted as stop:
            code = 128 + stop.signum
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    if signum and not aim:
        time.sleep(delay)
        os.kill(child, signum)  # a child that has ended waits for us, and takes no notice
    status = os.waitpid(child, 0)[1]
    code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
    if code not in (0, -signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM):
        raise RuntimeError(root.with_suffix(".log").read_text())
    return abs(code) % 128


def cases(kind: str) -> Iterator[tuple[str, ...]]:
    if kind == "wandb":  # 120 steps and 42 other rows, more than W&B keeps in a buffer
        long = ("log_every_n_steps=1", "trainer.max_epochs=20", "checkpoint_steps=7")
        yield ("method=ewc", *ALWAYS, "logger=wandb", *long)
        return
    saving, memories = cycle(SAVING), cycle(MEMORIES)
    for method in METHODS if kind == "methods" else ("ewc",):
        interval = (f"method.interval={INTERVALS[method]}",) if method in INTERVALS else ()
        chosen = overrides(method)
        if len(chosen) == 1 and method != "joint":
            chosen += (f"memory={next(memories)}", "memory.per_class=3")
        yield (*chosen, *interval, *ALWAYS, next(saving))


def finished(root: Path) -> Result:
    return read_result(RunFolder(next(root.rglob("metrics.json")).parent))


def assert_as_if_never_killed(ours: Result, whole: Result) -> None:
    assert_same_run(ours, whole)
    one, other = ({path.name for path in result.folder.iterdir()} for result in (ours, whole))
    assert one ^ other <= {"wandb"}


def work(
    root: Path, settings: tuple[str, ...], num_kills: int, draw: random.Random, aims: Iterator[Aim | None]
) -> dict[str, Any]:
    """Kill the case again and again; if it ends before it was killed often enough, it begins in another folder."""
    root.mkdir(parents=True)
    composed_tiny(root, *settings)  # once, for all children
    start = time.perf_counter()
    attempt(root / "whole", tuple(s for s in settings if s != "logger=wandb"))  # that would be the same W&B run
    seconds = time.perf_counter() - start
    killed: list[str] = []
    for life in count():
        place = root / f"killed{life}"
        while len(killed) < num_kills:
            aim = next(aims)
            signum = draw.choice((signal.SIGKILL, signal.SIGKILL, signal.SIGTERM))
            signum = signal.SIGKILL if aim and aim.torn else signum  # SIGTERM lets a write end
            nth, delay = draw.randint(*aim.nth) if aim else 0, draw.uniform(0.05, 1.0) * seconds
            if not (ended := attempt(place, settings, signum, aim, nth, delay)):
                break
            killed.append(f"{signal.Signals(ended).name} at {aim.place if aim else 'a random moment'}")
        else:
            attempt(place, settings)
        assert_as_if_never_killed(finished(place), finished(root / "whole"))
        if len(killed) >= num_kills:
            return {"settings": settings, "killed": killed, "lives": life + 1, "last": str(finished(place).folder)}


def main(root: Path, seed: int, kind: str) -> None:
    result.draw = lambda *_: None  # pictures: half the time of a tiny run
    torch.set_num_threads(1)
    if kind == "wandb":
        import wandb  # noqa: F401 - once, for all children
    gc.freeze()
    draw, number = random.Random(seed), count()
    hit: set[str] = set()

    def case(settings: tuple[str, ...], num_kills: int, aims: Iterator[Aim | None]) -> None:
        done = work(root / str(next(number)), settings, num_kills, draw, aims)
        hit.update(kill.partition(" at ")[2] for kill in done["killed"])
        print(json.dumps(done), flush=True)

    aims = cycle([STEPS]) if kind == "wandb" else chain.from_iterable((None, aim) for aim in cycle(AIMS))
    for settings in cases(kind):
        case(settings, KILLS[kind], aims)
    for aim in AIMS if kind == "methods" else ():  # where no signal came yet, as the run was over before
        if aim.place not in hit:
            once = chain([replace(aim, nth=(1, 1))], repeat(None))
            case(("method=ewc", "memory=uniform", *ALWAYS, SAVING[0]), 1, once)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
