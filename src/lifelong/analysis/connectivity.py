"""Linear mode connectivity (Mirzadeh et al. 2021, arXiv 2010.04495): what lies on the line between two task ends."""

from typing import Any

import torch

from lifelong.analysis.ends import Ends, LackingError, State
from lifelong.data.examples import Examples
from lifelong.models.evaluation import BATCH_SIZE
from lifelong.models.learner import Learner


def between(a: State, b: State, share: float) -> State:
    """(1 − share) · a + share · b, exactly a at 0 and b at 1; running statistics too. What is no float is b's."""
    return {n: torch.lerp(a[n], t, share) if t.is_floating_point() else t for n, t in b.items()}


@torch.no_grad()
def scored(learner: Learner, examples: Examples) -> tuple[float, float]:
    """(accuracy in [0, 1], mean task loss in nats) on the examples, over the visible columns."""
    correct, loss = 0, 0.0
    for chunk in examples.chunks(BATCH_SIZE):
        chunk = chunk.to(learner.device)
        z = learner(learner.as_input(chunk.inputs))
        correct += int((z.argmax(dim=1) == chunk.labels).sum())
        loss += float(learner.task_loss(z, chunk.labels)) * len(chunk)
    return correct / len(examples), loss / len(examples)


def connectivity(ends: Ends, num_points: int) -> dict[str, Any]:
    """Accuracy and loss on test data along the straight line between each two task ends i < j.

    shares: (M,) places on the line, 0 at end i and 1 at end j. lines: for each pair `from` i, `to` j, `accuracy` and
    `loss` (j + 1, M), a row for each task learned by end j, with the columns visible then: the ends are the run's own
    numbers, but class-incrementally at i, where fewer columns were visible. barrier: (T, T), see `barrier`; nan on and
    below the diagonal.

    Raises:
        LackingError: weights were not kept, the network is another one on each task, or there is one task.
    """
    ends.check("connectivity", all_ends=True)
    if ends.stream.num_tasks == 1:
        raise LackingError(f"connectivity needs two tasks or more, {ends.folder.path} has one")
    stream, num = ends.stream, ends.stream.num_tasks
    shares = torch.linspace(0, 1, num_points, dtype=torch.float64).tolist()
    lines, barriers = [], [[float("nan")] * num for _ in range(num)]
    for j in range(num):
        for i in range(j):
            found = torch.zeros(2, j + 1, num_points, dtype=torch.float64)
            for m, share in enumerate(shares):
                learner = ends.at(between(ends.states[i], ends.states[j], share))
                for k in range(j + 1):
                    learner.show(stream.visible(j, k))
                    found[:, k, m] = torch.tensor(scored(learner, stream.task(k).test), dtype=torch.float64)
            accuracy, loss = found.tolist()
            lines.append({"from": i, "to": j, "accuracy": accuracy, "loss": loss})
            barriers[i][j] = barrier(found[1, : i + 1].mean(0).tolist(), shares)
    return {"shares": shares, "lines": lines, "barrier": barriers}


def barrier(losses: list[float], shares: list[float]) -> float:
    """Height >= 0 of a loss over the straight line between its own ends (Frankle et al. 2020, arXiv 1912.05671); of the
    mean over the tasks that both ends have learned."""
    straight = [(1 - share) * losses[0] + share * losses[-1] for share in shares]
    return max(0.0, *(loss - line for loss, line in zip(losses, straight, strict=True)))
