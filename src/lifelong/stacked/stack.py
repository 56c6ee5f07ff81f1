"""The stream, learned by all members of a stack at once: as lifelong.training.loop, but one step for all of them.

What is done once a task (importance, checkpoint, rows) is done member by member by the code of single runs.
"""

import gc
import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import groupby
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from lifelong.data.seeds import derive_seed
from lifelong.data.stream import Task
from lifelong.experiment.result import Result
from lifelong.experiment.run import Request
from lifelong.runs.environment import count_peak_memory
from lifelong.runs.record import Record
from lifelong.stacked.block import Block, Clip
from lifelong.stacked.data import Feed, accuracy_rows, hidden_columns, hidden_in_training
from lifelong.stacked.network import Network
from lifelong.stacked.plan import NETWORKS
from lifelong.stacked.within import save, turn_to
from lifelong.tracking import Tracker
from lifelong.training.checkpoint import Checkpoints
from lifelong.training.loop import Run, consolidate, planned_steps


@dataclass
class Member:
    """A run in a stack.

    Attributes:
        block: what it shares with the members that are updated with it (lifelong.stacked.plan.block_key).
        context: holds its folder, its history and its loggers open.
        error: what it has failed of; it is then trained no further.
    """

    request: Request
    run: Run
    tracker: Tracker
    block: str
    context: ExitStack = field(repr=False)
    error: BaseException | None = None
    result: Result | None = None

    @contextmanager
    def fails_alone(self) -> Iterator[None]:
        """Within the block an error ends this member, and no other."""
        try:
            yield
        except Exception as error:
            self.error = error

    def take_up(self) -> dict[str, Any] | None:
        """Put learner, method and tracker where the checkpoint within a task has them, if the run has loaded one;
        returns it."""
        saved = self.run.checkpoints.take_up() if self.run.checkpoints else None
        if saved:
            states = saved["callbacks"]
            self.run.learner.load_state_dict(saved["state_dict"])
            self.run.method.load_state_dict(states.get(self.run.method.state_key, {}))  # Lightning leaves out {}
            self.tracker.load_state_dict(states[self.tracker.state_key])
        return saved

    def close(self) -> None:
        """Close what is open, as at the end of a single run that ends so."""
        self.context.__exit__(type(self.error) if self.error else None, self.error, None)

    def diverged(self, what: str, step: int) -> None:
        """End the member after this step of the task in work."""
        self.error = self.tracker._diverged(what, SimpleNamespace(global_step=step))  # type: ignore[arg-type]


def learn(members: Sequence[Member]) -> Iterator[int]:
    """Learn the tasks that are left, on the first member's device; gives the number of tasks learned after each.

    All members stand at the same step. The one that was opened last hears of signals, for all, and of the time to save.
    Ends early if all of them have failed.
    """
    trainer = members[0].run.make_trainer()
    device, stream, record = trainer.strategy.root_device, members[0].run.stream, members[0].run.record
    for member in members:
        member.run.learner.to(device)
    count_peak_memory(device)
    if not record.baseline:
        network, clock = network_of([m.run for m in members]), Record()
        with clock.timed("evaluation"):
            baseline = accuracy_rows([m.run for m in members], network, -1, "test", device).tolist()
        network.release()
        share_time(clock, members)
        for member, row in zip(members, baseline, strict=True):
            member.run.record.baseline = row
    for index in range(record.task, stream.num_tasks):
        if not (alive := [m for m in members if m.error is None]):
            return
        Fit(alive, index, device, members[-1].run.checkpoints).learn()  # type: ignore[arg-type]
        gc.collect()
        yield index + 1


def network_of(runs: Sequence[Run]) -> Network:
    """The runs' networks as one."""
    backbones = [run.learner.backbone for run in runs]
    return NETWORKS[type(backbones[0])](backbones)


def share_time(clock: Record, members: Sequence[Member]) -> None:
    """Count the stack's wall time since the last call to its members, to each an equal part."""
    for phase, seconds in clock.state_dict()["seconds"].items():
        for member in members:
            member.run.record.seconds[phase] += seconds / len(members)
        clock.seconds[phase] = 0.0


class Fit:
    """One task of a stack, or what is left of it.

    Args:
        keeper: says when to save.
    """

    def __init__(self, members: Sequence[Member], index: int, device: torch.device, keeper: Checkpoints) -> None:
        self.members, self.index, self.device, self.clock = members, index, device, Record()
        self.keeper = keeper
        self.runs = [member.run for member in members]
        first = self.runs[0]
        tasks = {id(run.stream): run.stream.task(index) for run in self.runs}
        self.tasks = [tasks[id(run.stream)] for run in self.runs]
        trainer = first.make_trainer() if first.epochs is None else first.make_trainer(max_epochs=first.epochs[index])
        self.trainer, self.feed = trainer, Feed(self.runs, self.tasks, device)
        self.num_steps = planned_steps(trainer, len(self.feed))
        for run, task in zip(self.runs, self.tasks, strict=True):
            run.learner.num_steps = self.num_steps
            run.learner.show(run.stream.visible(index, index))
            run.method.task, run.method.seed = task, derive_seed(run.seed, index)
        saved = [found for member in members if (found := member.take_up())]
        self.network = network_of(self.runs)
        clip = Clip(trainer.gradient_clip_val, trainer.gradient_clip_algorithm == "value")
        self.blocks = [Block(self.runs[r], self.network, r, clip, saved[r]) for r in self._block_rows()]
        self.hidden = hidden_columns(self.runs, index, index, device)
        self.every = members[0].tracker.every_n_steps
        self.losses, self.count, self.step = torch.zeros(len(members), device=device), 0, 0
        if saved:
            self._go_on(saved[0])

    def _go_on(self, saved: dict[str, Any]) -> None:
        """From the step at which this and the other members' checkpoints were written."""
        self.step, self.count = saved["global_step"], self.members[0].tracker._count
        self.losses = torch.stack([member.tracker._loss for member in self.members]).to(self.device)
        self.feed.load_state_dict(saved["loader"])

    def _block_rows(self) -> Iterator[slice]:
        start = 0
        for _, block in groupby(self.members, key=lambda member: member.block):
            stop = start + len(list(block))
            yield slice(start, stop)
            start = stop

    def learn(self) -> None:
        """Train, keep what mattered, test every task, append the rows, save."""
        with self.clock.timed("train"):
            self._train()
        for block in self.blocks:
            block.give_back()
        with self.clock.timed("evaluation"):
            rows = [self._accuracies(part) for part in ("test", "val")]
        self.network.release()
        share_time(self.clock, self.members)
        for s, member in enumerate(self.members):
            if member.error is None:
                with member.fails_alone():
                    self._finish(member, self.tasks[s], [part[s] for part in rows])

    def _train(self) -> None:
        loader = self.feed.loaders[0]
        self.keeper.begin(self.step)
        while self.step < self.num_steps:
            begins = loader.position in (0, len(loader))  # else the task goes on in the midst of an epoch
            for block in self.blocks if begins and self.runs[0].keep_optimizer == "epoch" else ():
                block.optimizer.state.clear()
            for x, y in self.feed:
                self._step(x, y, loader.epoch)
                if self.step == self.num_steps:
                    break
                if loader.position < len(loader):
                    self._save_if_due()
            self._log_epoch(loader.epoch)
            self._save_if_due(ends_epoch=True)
        self._check_finite()
        self.keeper.end()

    def _save_if_due(self, *, ends_epoch: bool = False) -> None:
        """Raises Interrupted if a signal has come; the members that are sound are then saved."""
        is_due, signum = self.keeper.due(self.step)
        if is_due:
            self._check_finite()
            share_time(self.clock, self.members)
            for block in self.blocks:
                block.give_back()
                self._save(block, ends_epoch)
        if signum:
            raise self.keeper.interrupted(signum)

    def _save(self, block: Block, ends_epoch: bool) -> None:
        scheduled = block.scheduler is not None
        turn_to(self.trainer, self.step, self.feed.loaders[0], ends_epoch=ends_epoch, scheduled=scheduled)
        for i, s in enumerate(range(len(self.members))[block.rows]):
            member = self.members[s]
            if member.error is None:
                with member.fails_alone():
                    member.tracker.load_state_dict({"loss": self.losses[s : s + 1].clone(), "count": self.count})
                    save(member.run, member.tracker, block, i, self.feed.of(s), self.trainer)

    def _step(self, x: Tensor, y: Tensor, epoch: int) -> None:
        hidden = hidden_in_training(self.runs[0], self.hidden, y)
        losses, grads = self.network.gradients(x, y, hidden)
        logged = (self.step + 1) % self.every == 0
        measures: list[dict[str, float]] = []
        for block in self.blocks:
            own = {name: g[block.rows] for name, g in grads.items()}
            if logged:
                measures += [{**found, "learning_rate": block.rate} for found in block.measures(own)]
            block.step(own, x if x.dim() == 2 else x[block.rows], y if y.dim() == 1 else y[block.rows])
        self.losses += losses
        self.step, self.count = self.step + 1, self.count + 1
        if logged:
            self._log_step(measures, epoch)

    def _log_step(self, measures: Sequence[dict[str, float]], epoch: int) -> None:
        """A row in each history; ends members whose loss is not finite."""
        for member, total, found in zip(self.members, self.losses.tolist(), measures, strict=True):
            if member.error is None and not math.isfinite(total):
                member.diverged(f"train/loss is {total}", self.step)
            values = {"train/loss": total / self.count, **{f"train/{name}": value for name, value in found.items()}}
            self._write(member, epoch, values)
        self.losses, self.count = torch.zeros_like(self.losses), 0

    def _log_epoch(self, epoch: int) -> None:
        with self.clock.timed("evaluation"):
            rows = self._accuracies("val", range(self.index + 1)).tolist()
        for member, row in zip(self.members, rows, strict=True):
            names = member.run.stream.names
            self._write(member, epoch, {f"val/accuracy/{names[j]}": row[j] for j in range(self.index + 1)})

    def _write(self, member: Member, epoch: int, values: dict[str, Any]) -> None:
        if member.error is None:
            with member.fails_alone():
                member.tracker.write({"task": self.index, "epoch": epoch, **values}, member.run.record.step + self.step)

    def _check_finite(self) -> None:
        """End the members whose loss since the last row, or one of whose weights, is not finite."""
        finite = {name: w.flatten(1).isfinite().all(1).tolist() for name, w in self.network.weights.items()}
        for s, (member, total) in enumerate(zip(self.members, self.losses.tolist(), strict=True)):
            broken = [f"backbone.{name} is not finite" for name, is_finite in finite.items() if not is_finite[s]]
            if not math.isfinite(total):
                broken.insert(0, f"train/loss is {total}")
            if broken and member.error is None:
                member.diverged(broken[0], self.step)

    def _accuracies(self, part: str, tasks: range | None = None) -> Tensor:
        return accuracy_rows(self.runs, self.network, self.index, part, self.device, tasks)

    def _finish(self, member: Member, task: Task, rows: Sequence[Tensor]) -> None:
        run = member.run
        consolidate(run, task, self.device)
        run.record.finish_task(self.num_steps, *rows)
        run.on_row(task)
        if run.checkpoints:
            run.checkpoints.save_boundary(run.learner, run.method)
