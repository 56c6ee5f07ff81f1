"""Neighbours in a stack with the same optimiser and method but for its strength: one update for all of them.

The verbs of the hosted methods within a task are elementwise, so one object of their class carries them out for n
members, on tensors (n, ...) and strengths (n,). What a method does once a task it does member by member, on the
member's own object.
"""

import copy
import math
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lifelong.methods.ewcpp import EWCPP
from lifelong.methods.method import Params
from lifelong.methods.penalty import Penalty
from lifelong.stacked.network import Network
from lifelong.training.loop import Run


class Clip(NamedTuple):
    """Bound on each member's gradient: on its norm, or on each value; None: no bound."""

    bound: float | None
    values: bool = False


class Block:
    """The update of n members, those at `rows` of the network, during one task.

    Args:
        runs: of the members; their learners' parameters are views of the network's.
        saved: checkpoints of the members within the task, which goes on from there; (): it starts.
    """

    def __init__(
        self, runs: Sequence[Run], network: Network, rows: slice, clip: Clip, saved: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        self.learners = [run.learner for run in runs]
        self.methods: Sequence[Any] = [run.method for run in runs]
        self.network, self.rows, self.clip = network, rows, clip
        self.params = {name: nn.Parameter(w[rows]) for name, w in network.weights.items()}
        first = self.learners[0]
        self.optimizer = first.make_optimizer(self.params.values())
        self.keeps_optimizer = runs[0].keep_optimizer is True
        self.scheduler = first.make_scheduler(self.optimizer, first.num_steps) if first.make_scheduler else None
        self._take_up_optimizer(saved)
        self._start_task(saved[0]["global_step"] if saved else 0)
        self.active = isinstance(self.methods[0], Penalty) and self.methods[0].active
        self.method: Any = self._stacked_method()
        self.unguarded: list[Any] = list(self.methods) if self.active else []

    def _start_task(self, step: int) -> None:
        """What Lightning does at a fit's start, but that the members' methods do not hear of the optimiser's steps."""
        trainer: Any = SimpleNamespace(
            optimizers=[self.optimizer], global_step=step, estimated_stepping_batches=self.learners[0].num_steps
        )
        for learner, method in zip(self.learners, self.methods, strict=True):
            method.on_fit_start(trainer, learner)
            method.on_train_start(trainer, learner)
            method.on_train_end(trainer, learner)

    def _stacked_method(self) -> Any:
        method: Any = copy.copy(self.methods[0])
        self.held = {name: self.params[name].detach() for name in method.penalised(self.learners[0].backbone)}
        method._params = self.held
        if isinstance(self.methods[0], Penalty):
            strengths = [m.strength for m in self.methods]
            self.strengths = torch.tensor(strengths, dtype=torch.float64, device=self.network.device)
            method.strength = self.strengths.to(next(iter(self.held.values())).dtype)
        for name in method.state:
            setattr(method, name, _stacked([getattr(m, name) for m in self.methods]))
        return method

    def _take_up_optimizer(self, saved: Sequence[Mapping[str, Any]]) -> None:
        """Go on with the members' states, stacked, if they have any; all have made as many steps."""
        whole = [member["optimizer_states"][0] for member in saved]
        kept = [state["state"] for state in whole]
        kept = kept or [learner.optimizer_state for learner in self.learners if learner.optimizer_state is not None]
        if kept:
            state = {key: _stacked_moments([member[key] for member in kept]) for key in kept[0]}
            groups = whole[0] if whole else self.optimizer.state_dict()
            self.optimizer.load_state_dict({**groups, "state": state})
        if saved and self.scheduler:
            self.scheduler.load_state_dict(saved[0]["lr_schedulers"][0])

    def give_back(self) -> None:
        """Hand each member's method what the task has made of its state, in memory of its own, its weights the gradient
        of the last step, and its learner the optimiser's state if it is kept; within a task too, of which nothing is
        changed."""
        for name in self.method.state:
            for i, method in enumerate(self.methods):
                setattr(method, name, _of_member(getattr(self.method, name), i))
        for i, learner in enumerate(self.learners):
            for name, p in learner.backbone.named_parameters():
                g = self.params[name].grad
                p.grad = None if g is None else g[i].clone()
        for i, learner in enumerate(self.learners if self.keeps_optimizer else ()):
            learner.optimizer_state = self.optimizer_of(i)["state"]

    def optimizer_of(self, i: int) -> dict[str, Any]:
        """The state of the optimiser of a member, as if it were alone."""
        whole = self.optimizer.state_dict()
        return {**whole, "state": {key: _moments_of(values, i) for key, values in whole["state"].items()}}

    # A step --------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, grads: Params, x: Tensor, y: Tensor) -> None:
        """One optimiser step by the task's gradients (n, ...), in the order of Lightning's hooks in a single run.

        x (B, F) or (n, B, F), y (B,) or (n, B): the batch they are of.
        """
        method, held = self.method, {name: grads[name] for name in self.held}
        raw: Params = {}
        before: Params = {}
        if isinstance(method, EWCPP) and method.wants_batches():
            method.fresh = self._fisher(x, y, held)
        if method.watches_path:
            raw = {name: g.clone() for name, g in held.items()}
            before = {name: w.clone() for name, w in self.held.items()}
        if self.active:
            method.edit_gradients(held)
        self._clip(grads)
        for name, parameter in self.params.items():
            parameter.grad = grads[name]
        rate = self.rate
        self.optimizer.step()
        if self.scheduler:
            self.scheduler.step()
        self._guard()
        if self.active and method.step == "proximal":
            method.quadratic.proximal_step_(self.held, rate * method.scale, self.held.keys())
        method.after_step(raw, before, self.held)

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return float(self.optimizer.param_groups[0]["lr"])

    def _clip(self, grads: Params) -> None:
        if self.clip.bound is None:
            return
        if self.clip.values:
            torch._foreach_clamp_max_(list(grads.values()), self.clip.bound)
            torch._foreach_clamp_min_(list(grads.values()), -self.clip.bound)
            return
        factor = (self.clip.bound / (norms(grads) + 1e-6)).clamp(max=1.0)
        for g in grads.values():
            g.mul_(factor.view(-1, *[1] * (g.dim() - 1)))

    def _guard(self) -> None:
        for method in self.unguarded:
            method._guard_first_pull()
        self.unguarded = [method for method in self.unguarded if not method._guarded]

    def _fisher(self, x: Tensor, y: Tensor, grads: Params) -> Params:
        """EWC++'s F_batch (n, ...) at the weights before the step. The batch is the current task's alone, and nothing
        differs in eval mode, so that of the true labels is in the backward pass already."""
        if self.method.labels == "empirical" and (squares := self.network.mean_squares(self.rows)) is not None:
            return squares
        if self.method.labels == "batched":
            return {name: g.square() for name, g in grads.items()}
        each = []
        for i, (learner, method) in enumerate(zip(self.learners, self.methods, strict=True)):
            method.steps = self.method.steps
            torch.manual_seed(method.seed)  # EWC++ takes its draws from the run's initial seed
            inputs, labels = x if x.dim() == 2 else x[i], y if y.dim() == 1 else y[i]
            each.append(method.fisher_of(learner, [(inputs.unflatten(1, learner.backbone.input_shape), labels)]))
        return {name: torch.stack([F[name] for F in each]) for name in each[0]}

    # What is logged ------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def measures(self, grads: Params) -> list[dict[str, float]]:
        """Of each member what its method's `measures` gives, from the task's gradients (n, ...)."""
        if not isinstance(self.methods[0], Penalty):
            return [{} for _ in self.methods]
        penalty = ratio = torch.zeros(len(self.methods), dtype=torch.float64)
        if self.active:
            q, pull = self._value_and_pull()
            if "constant" in self.method.state:
                q = q + self.method.constant
            penalty = self.method.coefficient * self.strengths * q
            pull = 2 * self.method.coefficient * self.strengths * pull
            task = norms({name: grads[name] for name in self.held})
            ratio = torch.where(task > 0, pull / task, math.nan)
        return [
            {"penalty": value, "penalty_gradient_ratio": share, "lr_curvature": m.lr_curvature}
            for m, value, share in zip(self.methods, penalty.tolist(), ratio.tolist(), strict=True)
        ]

    def _value_and_pull(self) -> tuple[Tensor, Tensor]:
        """(n,) float64 each: q of every member's quadratic, and ‖½ ∂q/∂θ‖."""
        q = pull = self.strengths.new_zeros(())
        for name, importance in self.method.importance.items():
            distance = (self.held[name] - self.method.anchor[name]).flatten(1)
            weighted = distance * importance.flatten(1)
            q = q + (weighted * distance).sum(1, dtype=torch.float64)
            pull = pull + weighted.square_().sum(1, dtype=torch.float64)
        return q, pull.sqrt()


def norms(grads: Params) -> Tensor:
    """(n,) the norm over all of a member's gradients."""
    each = [torch.linalg.vector_norm(g.flatten(1), dim=1) for g in grads.values()]
    return torch.linalg.vector_norm(torch.stack(each), dim=0)


def _stacked(values: Sequence[Any]) -> Any:
    """A state of n members as one: tensors, or dicts of them, stacked; a number is the same for all."""
    first = values[0]
    if isinstance(first, dict):
        return {name: torch.stack([value[name] for value in values]) for name in first}
    return torch.stack(list(values)) if isinstance(first, Tensor) else first


def _of_member(value: Any, i: int) -> Any:
    if isinstance(value, dict):
        return {name: t[i].clone() for name, t in value.items()}
    return value[i].clone() if isinstance(value, Tensor) else value


def _stacked_moments(states: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """An optimiser's states of one parameter as one: moments are stacked, a count of steps is the same for all."""
    return {
        key: torch.stack([state[key] for state in states]) if _is_moment(value) else copy.deepcopy(value)
        for key, value in states[0].items()
    }


def _moments_of(state: dict[str, Any], i: int) -> dict[str, Any]:
    return {key: value[i].clone() if _is_moment(value) else copy.deepcopy(value) for key, value in state.items()}


def _is_moment(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0
