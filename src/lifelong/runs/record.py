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
        seconds: wall time by phase, over all segments of an interrupted run; each second counts to one phase.
    """

    task: int = 0
    step: int = 0
    test: list[list[float]] = field(default_factory=list)
    val: list[list[float]] = field(default_factory=list)
    baseline: list[float] = field(default_factory=list)
    boundaries: list[tuple[int, int]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))
    _phase: str | None = field(default=None, init=False, repr=False)
    _since: float = field(default=0.0, init=False, repr=False)

    def finish_task(self, steps: int, test: Tensor, val: Tensor) -> None:
        """Append the rows (T,) after a task that took `steps` optimiser steps, and move on to the next."""
        self.test.append(test.tolist())
        self.val.append(val.tolist())
        self.boundaries.append((self.step, self.step + steps))
        self.step += steps
        self.task += 1

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Count the block's wall time to `phase`, not to the one around it; on a GPU, with what it had queued."""
        outer = self._phase
        self._turn_to(phase)
        try:
            yield
            if torch.cuda.is_available():
                torch.cuda.synchronize()
        finally:
            self._turn_to(outer)

    def _turn_to(self, phase: str | None) -> None:
        now = perf_counter()
        if self._phase is not None:
            self.seconds[self._phase] += now - self._since
        self._phase, self._since = phase, now

    def state_dict(self) -> dict[str, Any]:
        self._turn_to(self._phase)
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
