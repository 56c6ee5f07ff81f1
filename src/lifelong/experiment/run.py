"""One run, wired in the open: configuration → objects → run folder."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from lightning.pytorch import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from lifelong.config.checks import check
from lifelong.config.schema import ConfigError, folded
from lifelong.data.stream import Task
from lifelong.distributed.ranks import from_rank_zero, is_first, losing_contact, wait_for_all
from lifelong.experiment.errors import composed
from lifelong.experiment.extend import extend
from lifelong.experiment.loggers import log_for_agent, make_loggers
from lifelong.experiment.parts import build_run, own_device, task_trainer
from lifelong.experiment.result import Result, keep_task, read_result, show, write_result
from lifelong.launch.jobs import multirun_job
from lifelong.runs.folder import RunFolder
from lifelong.runs.identity import changed_code, identifier, identity
from lifelong.tracking import History, NoHistory, Subsets, Tracker, quiet_libraries
from lifelong.training.checkpoint import Checkpoints
from lifelong.training.checkpoint_files import CheckpointFiles
from lifelong.training.loop import Run, new_garbage, run_stream
from lifelong.training.progress import StreamProgress, row_line
from lifelong.training.trainer import is_first_started, join, wanted_ranks

RANK = "lifelong.experiment.rank"
"""The module whose main is one rank of a run."""


def run(*overrides: str, callbacks: Sequence[Callback] = ()) -> Result:
    """`python train.py *overrides` from Python: lifelong.run("method=ewc", "seed=1").

    callbacks: Lightning callbacks that watch every task's fit. A run that finished before has none (rerun=true does).

    Raises:
        ConfigError: a setting outside what is allowed.
    """
    return run_experiment(composed(overrides), callbacks=callbacks)


@dataclass(frozen=True)
class Request:
    """A run as it is asked for.

    Attributes:
        wait: for another process that works in the folder.
        callbacks: as in `run`.
    """

    config: DictConfig
    folder: RunFolder
    console: Console
    wait: bool = False
    callbacks: Sequence[Callback] = ()


@new_garbage()
def run_experiment(
    config: DictConfig, *, wait: bool = False, callbacks: Sequence[Callback] = (), shown: bool = True
) -> Result:
    """Train, or answer from the run folder if this very run is finished there.

    wait: for another process that trains this run to end, as the jobs of a multirun do. callbacks: as in `run`.
    shown: whether the result is printed; by the first of several processes alone.

    Raises:
        ConfigError: a setting outside what is allowed, before anything is written.
        RunFolderError: the run folder cannot be written, is in use or is damaged.
        PenaltyError, DivergedError: the run cannot go on sensibly.
        RankError: one of several processes failed or was killed.
    """
    request = requested(config, wait, callbacks)
    done = request.folder.finished and not request.config.rerun
    result = finished_before(request) if done else learn_by_all(request)
    if shown:
        show(result, request.console)
    return result


def requested(config: DictConfig, wait: bool = False, callbacks: Sequence[Callback] = ()) -> Request:
    """A checked request; raises ConfigError for a setting outside what is allowed."""
    check(config)
    quiet_libraries()
    config = folded(config)
    folder = RunFolder(Path(config.root) / config.name / identifier(config))
    console = Console(quiet=not config.progress or not is_first_started(config))
    return Request(config, folder, console, wait or multirun_job() is not None, callbacks)


def finished_before(request: Request) -> Result:
    if is_first_started(request.config):
        print(f"finished before, not trained again (rerun=true does): {request.folder.path}")
        log_for_agent(request.config, request.folder)
    result = replace(read_result(request.folder), trained=False)
    if is_first_started(request.config):
        if told := changed_code(result.metrics, request.config):
            print(told)
        if request.config.evaluate_every_n_steps and "within_part" not in result.metrics:
            print("it has no measures within tasks: rerun=true trains it again with evaluate_every_n_steps")
    return result


def learn_by_all(request: Request) -> Result:
    """Train in this process, with the other ranks if it is one of several, or have all ranks started."""
    config, folder = request.config, request.folder
    ranks = wanted_ranks(config)
    if ranks.num == 1:
        return learn(request)
    if ranks.started:
        with losing_contact():
            join(config, ranks.num)
            return learn(request)
    if request.callbacks:
        raise ConfigError(f"trainer.devices must be 1 with callbacks unless torchrun starts it, got {ranks.num}")
    with folder.locked(wait=request.wait):
        if folder.finished and not config.rerun:
            return finished_before(request)
    from lifelong.launch.launcher import launch  # 0.1 s of torch's, for several processes alone

    with folder.failures_told():
        launch(RANK, OmegaConf.to_yaml(config, resolve=True), ranks.num)
    return read_result(folder)


def learn(request: Request) -> Result:
    """Build the run, hold the folder and train; of several ranks the first one holds and writes it."""
    config, folder = request.config, request.folder
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    run = build_run(config)
    with folder.locked(wait=request.wait) if is_first() else nullcontext():
        if from_rank_zero(folder.finished and not config.rerun):
            return finished_before(request)
        if folder.finished and is_first():
            folder.start_over()
        wait_for_all()
        with folder.failures_told() if is_first() else nullcontext():
            return train(run, request)


def train(run: Run, request: Request) -> Result:
    """Learn the stream, watched, and write the run folder."""
    with watched(run, request) as tracker:
        run_stream(run)
        result = from_rank_zero(write_result(request.config, run, request.folder) if is_first() else None)
        tracker.summarise(result.metrics)
    return result


@contextmanager
def watched(run: Run, request: Request) -> Iterator[Tracker]:
    """Within it the run takes up its checkpoint, if there is one, and has history, loggers, bar and checkpoints."""
    config, folder, method, stream = request.config, request.folder, run.method, run.stream
    files = CheckpointFiles(folder.checkpoint, identity(config))
    if config.extend is not None and not from_rank_zero(files.exist):
        extend(run, config, folder, files)
    history = History(folder.history) if is_first() else NoHistory()
    every = (config.checkpoint_seconds, config.checkpoint_steps)
    run.checkpoints = checkpoints = Checkpoints(files, run.record, run.memory, history.position, *every)
    taken_up = checkpoints.load(run.learner, method)
    history.truncate(taken_up or 0)
    if is_first():  # and nothing before a checkpoint is accepted
        if taken_up is not None:
            print(f"continues, {run.record.task} of {stream.num_tasks} tasks learned: {folder.path}", flush=True)
        folder.write_text(folder.config, OmegaConf.to_yaml(config, resolve=True))
    loggers = make_loggers(config, folder) if is_first() else []
    n, num_samples = config.evaluate_every_n_steps, config.evaluate_samples
    subsets = Subsets(stream, n, num_samples, config.seed) if n else None
    tracker = Tracker(stream, method, run.record, history, loggers, config.log_every_n_steps, subsets)
    bar = StreamProgress(stream, run.record, tracker, request.console)

    def on_row(task: Task) -> None:
        tracker.log_test_row()
        if is_first():
            keep_task(run, folder, task.index, weights=config.keep_weights)
        method.task_importance = None
        request.console.print(row_line(run.record, stream.names), highlight=False, soft_wrap=True)

    run.on_row, method.keeps_importance = on_row, config.keep_importances
    with tracker.closing(), closing(bar), checkpoints.signals_saved():
        watching = {"logger": loggers or False, "default_root_dir": folder.path}
        last = [*request.callbacks, bar, checkpoints]
        run.make_trainer = partial(task_trainer, config, [tracker, method], last, watching, **own_device(config))
        yield tracker
