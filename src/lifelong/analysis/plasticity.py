"""Plasticity: what is left of a network's ability to learn. Legend: N samples, U units of a layer, D features."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from lifelong.analysis.cka import check_features, features
from lifelong.analysis.connectivity import scored
from lifelong.analysis.ends import Ends, State
from lifelong.data.examples import Examples
from lifelong.data.seeds import derive_seed, derived_generator
from lifelong.models.evaluation import BATCH_SIZE
from lifelong.models.learner import Learner

TAU = 0.025
ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid)


@torch.no_grad()
def activity(learner: Learner, examples: Examples) -> dict[str, Tensor]:
    """Mean |h| over samples and places, (U,) float64, of the units (dimension 1) of each activation module."""
    sums: dict[str, Tensor] = {}

    def add(name: str, h: Tensor) -> None:
        each = h.double().abs().flatten(2).mean(2) if h.dim() > 2 else h.double().abs()
        sums[name] = sums.get(name, 0) + each.sum(0)

    modules = {n: m for n, m in learner.backbone.named_modules() if isinstance(m, ACTIVATIONS)}
    hooks = [m.register_forward_hook(lambda *call, n=name: add(n, call[2])) for name, m in modules.items()]
    for chunk in examples.chunks(BATCH_SIZE):
        learner(learner.as_input(chunk.inputs))
    for hook in hooks:
        hook.remove()
    return {name: total / len(examples) for name, total in sums.items()}


def dormant(activities: dict[str, Tensor], tau: float = TAU) -> float:
    """Share of the units whose mean activity is at most tau times the mean of their layer (Sokar et al. 2023,
    arXiv 2302.12902); nan without an activation module."""
    num = sum(len(units) for units in activities.values())
    idle = sum(int((units <= tau * units.mean()).sum()) for units in activities.values())
    return idle / num if num else float("nan")


def effective_rank(phi: Tensor) -> float:
    """exp of the entropy of the normalised singular values of features (N, D) (Roy & Vetterli 2007), in [1, D]."""
    sigma = torch.linalg.svdvals(phi.double())
    p = sigma / sigma.sum()
    return float(torch.special.entr(p).sum().exp())


def weight_norm(learner: Learner) -> float:
    """‖θ‖₂ of all parameters."""
    return float(torch.stack([p.detach().double().square().sum() for p in learner.parameters()]).sum().sqrt())


def trainability(learner: Learner, examples: Examples, num_steps: int, batch_size: int) -> tuple[float, float]:
    """(accuracy, loss) on the examples with their labels shuffled, after so many steps of the run's own optimiser, made
    anew; without method, schedule or augmentation. Each end sees the same draws; the learner is left alone."""
    trained, draws = copy.deepcopy(learner).train(), derived_generator(0, 1)
    order = torch.randperm(len(examples), generator=draws).to(examples.labels.device)
    shuffled = Examples(examples.inputs, examples.labels[order])
    optimizer = trained.make_optimizer(p for p in trained.parameters() if p.requires_grad)
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(0, 2))  # dropout
        for _ in range(num_steps):
            batch = shuffled.subset(torch.randperm(len(examples), generator=draws)[:batch_size].to(order.device))
            optimizer.zero_grad()
            trained.loss(trained.as_input(batch.inputs), batch.labels).backward()
            optimizer.step()
    return scored(trained.eval(), shuffled)


def plasticity(ends: Ends, num_steps: int, batch_size: int) -> dict[str, Any]:
    """Measures of each task end that was kept, and of the run's network before its first task.

    ends: which tasks, from 0. Lists over these: dormant_units, on the task's test samples; effective_rank of the
    features there; weight_norm; shuffled_accuracy and shuffled_loss, `trainability` on the task's own training samples,
    and fresh_shuffled_accuracy and fresh_shuffled_loss of the fresh network on the same. fresh: the first three of the
    fresh network, on the first task.

    Raises:
        LackingError: the network is another one on each task, or has no `features`.
    """
    ends.check("plasticity", all_ends=False)
    check_features("plasticity", ends)
    start = ends.fresh()
    rows = []
    for k, state in ends.states.items():
        ends.learner.show(ends.stream.visible(k, k))
        samples = ends.sample(k, "train")
        new = trainability(ends.at(start), samples, num_steps, batch_size)
        old = trainability(ends.at(state), samples, num_steps, batch_size)
        rows.append({
            **_of_weights(ends, state, k),
            "shuffled_accuracy": old[0], "shuffled_loss": old[1],
            "fresh_shuffled_accuracy": new[0], "fresh_shuffled_loss": new[1],
        })  # fmt: skip
    settings = {"tau": TAU, "num_samples": ends.num_samples, "num_steps": num_steps}
    lists = {key: [row[key] for row in rows] for key in rows[0]}
    return {"ends": list(ends.states), **lists, "fresh": _of_weights(ends, start, 0), **settings}


def _of_weights(ends: Ends, state: State, task: int) -> dict[str, float]:
    learner, samples = ends.at(state), ends.sample(task, "test")
    return {
        "dormant_units": dormant(activity(learner, samples)),
        "effective_rank": effective_rank(features(learner, samples)),
        "weight_norm": weight_norm(learner),
    }
