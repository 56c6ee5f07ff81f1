"""What a run has come to so far: small, plain, and part of every checkpoint."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

PHASES = ("train", "importance", "memory", "evaluation")


@dataclass
class Record:
    """Position in the stream, accuracies and costs.

    Attributes:
        task: index of the task in work; T when the stream is done.
        step: optimiser steps of the finished tasks.
        test, val: rows (T,) of the accuracy matrix, one per finished task.
        baseline: (T,) test accuracy at random initialisation.
        boundaries: (first step, last step) of each finished task.
        seconds: wall time by phase.
    """

    task: int = 0
    step: int = 0
    test: list[list[float]] = field(default_factory=list)
    val: list[list[float]] = field(default_factory=list)
    baseline: list[float] = field(default_factory=list)
    boundaries: list[tuple[int, int]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))

    def finish_task(self, steps: int, test: Tensor, val: Tensor) -> None:
        """Append the rows (T,) after a task that took `steps` optimiser steps, and move on to the next."""
        self.test.append(test.tolist())
        self.val.append(val.tolist())
        self.boundaries.append((self.step, self.step + steps))
        self.step += steps
        self.task += 1

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Add the block's wall time to `phase`; on a GPU, with what it had queued."""
        start = perf_counter()
        try:
            yield
            if torch.cuda.is_available():
                torch.cuda.synchronize()
        finally:
            self.seconds[phase] += perf_counter() - start

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
