"""Checkpoints of a stack within a task: of each member the very one that Lightning would write of its run alone.

So each of them goes on from there in a stack or alone, and a run that was interrupted alone goes on in a stack.
"""

from typing import Any

import lightning
import torch
from lightning.pytorch import Trainer

from lifelong.data.loader import Batches
from lifelong.stacked.block import Block
from lifelong.tracking import Tracker
from lifelong.training.loop import Run


def save(run: Run, tracker: Tracker, block: Block, i: int, loader: Batches, trainer: Trainer) -> None:
    """Write the checkpoint of member i of the block, to whom the block has given back its method's state.

    trainer: of the stack, its loops where `turn_to` has put them.
    """
    learner, method = run.learner, run.method
    states = {each.state_key: each.state_dict() for each in (tracker, method)}
    torch.manual_seed(method.seed)  # as the fit of a single run does; no hosted part draws from it within a task
    found: dict[str, Any] = {
        "epoch": trainer.current_epoch,
        "global_step": trainer.global_step,
        "pytorch-lightning_version": lightning.__version__,
        "state_dict": {name: t.clone() for name, t in learner.state_dict().items()},
        "loops": trainer._checkpoint_connector._get_loops_state_dict(),
        "callbacks": {key: state for key, state in states.items() if state},
        "optimizer_states": [block.optimizer_of(i)],
        "lr_schedulers": [block.scheduler.state_dict()] if block.scheduler else [],
    }
    found["loops"]["fit_loop"]["state_dict"] = {"combined_loader": [loader.state_dict()]}
    run.checkpoints.save_in_work(found, loader)  # type: ignore[union-attr]


def turn_to(trainer: Trainer, step: int, loader: Batches, *, ends_epoch: bool, scheduled: bool) -> None:
    """Put the trainer's loops where Lightning has them after this step of a task, when checkpoints are written."""
    epochs: Any = trainer.fit_loop.epoch_progress
    epoch = trainer.fit_loop.epoch_loop
    optimizer = epoch.automatic_optimization.optim_progress.optimizer
    epoch._batches_that_stepped = step if ends_epoch else step - 1
    epoch.batch_progress.is_last_batch = loader.position == len(loader)
    counted: list[Any] = [epoch.batch_progress, optimizer.step, optimizer.zero_grad]
    for progress in [*counted, epoch.scheduler_progress] if scheduled else counted:
        _count(progress.current, loader.position)
        _count(progress.total, step)
    for counts in (epoch.batch_progress.current, epoch.batch_progress.total) if not ends_epoch else ():
        counts.completed -= 1
    for counts in (epochs.current, epochs.total):
        _count(counts, loader.epoch + 1)
        counts.processed, counts.completed = loader.epoch + ends_epoch, loader.epoch


def _count(counts: Any, number: int) -> None:
    vars(counts).update(dict.fromkeys(vars(counts), number))
