"""Joint (multi-task) learning: at task k train on the data of tasks 1..k. The upper bound."""

from torch import nn

from lifelong.data.examples import Examples
from lifelong.data.stream import Task, TaskStream
from lifelong.methods.method import Method


class Joint(Method):
    """Trains on the union of all data so far; a task that is visited again counts once."""

    def check(self, stream: TaskStream, backbone: nn.Module) -> None:
        super().check(stream, backbone)
        if self.memory.keeps:
            raise ValueError("memory must be none with method=joint, which keeps all data")

    def examples(self, stream: TaskStream, task: Task) -> Examples:
        seen = {t.base: t for t in map(stream.task, range(task.index + 1))}
        return Examples.concat([t.train for t in seen.values()])
