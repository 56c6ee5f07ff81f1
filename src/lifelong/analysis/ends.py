"""A finished run's task ends: its network as it was after each task, read from the run folder."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lifelong.data.examples import Examples
from lifelong.data.seeds import derived_generator
from lifelong.data.stream import TaskStream
from lifelong.models.learner import Learner
from lifelong.runs.checksum import load_with_checksum
from lifelong.runs.folder import RunFolder, whole

State = Mapping[str, Tensor]


class LackingError(ValueError):
    """A run lacks what a measure needs; the message says what, in one line."""


@dataclass(frozen=True)
class Ends:
    """What measures are taken of.

    Attributes:
        learner: of the run; its weights and visible columns are the measures' to set.
        fresh: makes the state that the run's network had before the first task.
        per_task: whether the method changes the network from task to task at test time.
        num_samples: of a task, at most, that representations and plasticity are measured on.
    """

    folder: RunFolder
    stream: TaskStream
    learner: Learner
    fresh: Callable[[], State]
    per_task: bool
    num_samples: int = 1000

    @cached_property
    def states(self) -> dict[int, State]:
        """State of the learner after each task, from 0, of which it is kept; model.pt is the last one's."""
        last = self.stream.num_tasks - 1
        paths = {k: self.folder.weights_after(k) for k in range(last)} | {last: self.folder.model}
        return {k: read(path)["state_dict"] for k, path in paths.items() if path.exists()}

    def check(self, measure: str, *, all_ends: bool) -> None:
        """Raises LackingError if the measure cannot be taken of this run."""
        if self.per_task:
            raise LackingError(f"{measure} needs one network for all tasks, {self.folder.path} has another for each")
        if missing := [k for k in range(self.stream.num_tasks) if all_ends and k not in self.states]:
            raise _lacking(self.folder, missing, f"{measure} needs the weights after each task", "keep_weights=true")

    def at(self, state: State) -> Learner:
        """The learner with these weights, in eval mode."""
        self.learner.load_state_dict(state)
        return self.learner.eval()

    def sample(self, task: int, part: str) -> Examples:
        """At most `num_samples` of the task's examples, drawn at random: the same for every measure and end."""
        examples: Examples = getattr(self.stream.task(task), part)
        order = torch.randperm(len(examples), generator=derived_generator(task, 0))
        return examples.subset(order[: self.num_samples].to(examples.labels.device)).to(self.learner.device)


def read_importances(folder: RunFolder, num_tasks: int) -> list[dict[str, Tensor]]:
    """Each task's own Ω by parameter name; raises LackingError if those of some tasks were not kept."""
    paths = [folder.importance_of(k) for k in range(num_tasks)]
    if missing := [k for k, path in enumerate(paths) if not path.exists()]:
        needs, by = "overlap needs each task's own importance", "keep_importances=true and a penalty"
        raise _lacking(folder, missing, needs, by)
    return [read(path) for path in paths]


def read(path: Any) -> dict[str, Any]:
    """Raises RunFolderError if the file is damaged."""
    with whole(path):
        return load_with_checksum(path)


def _lacking(folder: RunFolder, missing: list[int], needs: str, by: str) -> LackingError:
    tasks = ", ".join(str(k + 1) for k in missing)
    return LackingError(f"{needs}, {folder.path} has none of task {tasks}: train with {by}")
