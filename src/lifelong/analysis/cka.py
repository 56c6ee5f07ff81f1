"""Linear centred kernel alignment (Kornblith et al. 2019, arXiv 1905.00414) of representations at task ends."""

from typing import Any

import torch
from torch import Tensor

from lifelong.analysis.ends import Ends, LackingError
from lifelong.data.examples import Examples
from lifelong.models.evaluation import BATCH_SIZE
from lifelong.models.learner import Learner


def linear_cka(x: Tensor, y: Tensor) -> Tensor:
    """‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) in [0, 1], Frobenius norms, of features X (N, D), Y (N, E) of the same samples, centred.

    1 if they differ by a rotation, a reflection and one factor alone; nan if one of them is constant.
    """
    x, y = (features.double() - features.double().mean(0) for features in (x, y))
    return (y.T @ x).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm())


@torch.no_grad()
def features(learner: Learner, examples: Examples) -> Tensor:
    """φ(x) (N, D) of the examples: what the head sees."""
    backbone: Any = learner.backbone
    return torch.cat([backbone.features(learner.as_input(chunk.inputs)) for chunk in examples.chunks(BATCH_SIZE)])


def cka(ends: Ends) -> dict[str, Any]:
    """Linear CKA of the features at two task ends, on test samples of each task.

    by_task: (T, T, T), [k][i][j] on task k between the ends of tasks i and j. own: (T, T), [j][k] on task k between its
    own end and that of task j >= k, nan before: what is left of the representation that the task was learned with.

    Raises:
        LackingError: weights were not kept, or the backbone has no `features`.
    """
    ends.check("cka", all_ends=True)
    check_features("cka", ends)
    num = ends.stream.num_tasks
    found = torch.ones(num, num, num, dtype=torch.float64)
    for k in range(num):
        probe = ends.sample(k, "test")
        seen = [features(ends.at(ends.states[i]), probe) for i in range(num)]
        for i in range(num):
            for j in range(i + 1):
                found[k, i, j] = found[k, j, i] = linear_cka(seen[i], seen[j]).cpu()
    own = [[float(found[k, k, j]) if j >= k else float("nan") for k in range(num)] for j in range(num)]
    return {"by_task": found.tolist(), "own": own, "num_samples": ends.num_samples}


def check_features(measure: str, ends: Ends) -> None:
    """Raises LackingError unless the backbone says what its head sees."""
    if not hasattr(ends.learner.backbone, "features"):
        raise LackingError(f"{measure} needs a backbone with features(x), {ends.folder.path} has none")
