"""Joint (multi-task) learning: at task k train on the data of tasks 1..k. The upper bound."""

from torch import nn

from lifelong.data.examples import Examples
from lifelong.data.stream import Task, TaskStream
from lifelong.methods.guards import check_choice
from lifelong.methods.method import Method


class Joint(Method):
    """Trains on the union of all data so far; a task that is visited again counts once.

    Args:
        schedule: "cumulative" as above; "once": one training on the union of all tasks, at the first one's turn, with
            the steps of all tasks where trainer.max_steps is set, else with as many epochs. The other turns train
            nothing, so that every row of the accuracy matrix is that one network's and nothing is forgotten.
    """

    def __init__(self, schedule: str = "cumulative") -> None:
        check_choice("schedule", schedule, ("cumulative", "once"))
        self.schedule = schedule

    def check(self, stream: TaskStream, backbone: nn.Module) -> None:
        super().check(stream, backbone)
        if self.memory.keeps:
            raise ValueError("memory must be none with method=joint, which keeps all data")

    def learned(self, stream: TaskStream, task: Task) -> int:
        return stream.num_tasks - 1 if self.schedule == "once" else task.index

    def examples(self, stream: TaskStream, task: Task) -> Examples:
        seen = {t.base: t for t in map(stream.task, range(self.learned(stream, task) + 1))}
        return Examples.concat([t.train for t in seen.values()])
