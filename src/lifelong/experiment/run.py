"""One run, wired in the open: configuration → objects → run folder."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch import Callback, Trainer
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import Tensor

from lifelong.config.build import build, factory
from lifelong.config.checks import check, check_group
from lifelong.config.groups import SOURCES
from lifelong.config.schema import ConfigError, folded
from lifelong.data.normalise import Normalise
from lifelong.data.seeds import derive_seed
from lifelong.data.stream import Task, TaskStream
from lifelong.distributed.ranks import from_rank_zero, is_first, losing_contact, this_shard, wait_for_all
from lifelong.experiment.errors import composed
from lifelong.experiment.loggers import log_for_agent, make_loggers
from lifelong.experiment.result import Result, read_result, show, write_result
from lifelong.launch.jobs import multirun_job
from lifelong.methods.method import Method
from lifelong.models.learner import Learner
from lifelong.runs.checksum import load_with_checksum
from lifelong.runs.folder import RunFolder, whole
from lifelong.runs.identity import changed_code, identifier, identity
from lifelong.tracking import History, NoHistory, Tracker, quiet_libraries
from lifelong.training.checkpoint import Checkpoints
from lifelong.training.checkpoint_files import CheckpointFiles
from lifelong.training.loop import Run, new_garbage, run_stream
from lifelong.training.precision import check_precision, compiled, set_tf32
from lifelong.training.progress import StreamProgress, row_line
from lifelong.training.trainer import is_first_started, join, make_trainer, trial_trainer, wanted_ranks

NOT_WATCHED: Mapping[str, Any] = {"logger": False}
RANK = "lifelong.experiment.rank"
"""The module whose main is one rank of a run."""


def run(*overrides: str, callbacks: Sequence[Callback] = ()) -> Result:
    """`python train.py *overrides` from Python: lifelong.run("method=ewc", "seed=1").

    callbacks: Lightning callbacks that watch every task's fit. A run that finished before has none (rerun=true does).

    Raises:
        ConfigError: a setting outside what is allowed.
    """
    return run_experiment(composed(overrides), callbacks=callbacks)


def load(folder: str | Path, trusted: Sequence[str] = ()) -> Learner:
    """The learner of a finished run, with its final weights, in eval mode on the CPU.

    `trusted`: prefixes a `_target_` in its config.yaml may have besides our own; what the file itself trusts counts
    for nothing.

    Raises:
        RunFolderError: the run is not finished, or its files are damaged.
        ConfigError: config.yaml has a `_target_` from elsewhere.
    """
    paths = RunFolder(Path(folder))
    with whole(paths.config):
        config = OmegaConf.create(paths.config.read_text(encoding="utf-8"))
    for group in ("backbone", "optimizer"):
        check_group(config, group, trusted)  # type: ignore[arg-type]
    with whole(paths.model):
        saved = load_with_checksum(paths.model)
    learner = make_learner(config, saved["input_shape"], saved["num_classes"], saved["groups"])  # type: ignore[arg-type]
    if saved.get("normalise"):
        learner.as_input = Normalise(*saved["normalise"])
    learner.load_state_dict(saved["state_dict"])
    learner.show(saved["visible"])
    return learner.eval()


def load_method(folder: str | Path, learner: Learner, trusted: Sequence[str] = ()) -> Method:
    """The method of a finished run, wired to what `load` returned: `enter(task)` makes that what it is on the task.

    Raises:
        As `load`.
    """
    paths = RunFolder(Path(folder))
    with whole(paths.config):
        config = OmegaConf.create(paths.config.read_text(encoding="utf-8"))
    check_group(config, "method", trusted)  # type: ignore[arg-type]
    with whole(paths.model):
        state = load_with_checksum(paths.model).get("method")
    method: Method = build(config.method, "method")
    method.learner = learner
    if state is not None:
        method.load_state_dict(state)
    return method


def make_learner(config: DictConfig, input_shape: tuple[int, ...], num_classes: int, groups: Tensor | None) -> Learner:
    backbone = build(config.backbone, "backbone", input_shape=tuple(input_shape), num_classes=num_classes)
    make_optimizer = factory(config.optimizer, "optimizer")
    make_optimizer([torch.nn.Parameter(torch.zeros(1))])  # refuses impossible settings before any training
    return Learner(backbone, make_optimizer, num_classes, groups)


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
    check(config)
    quiet_libraries()
    config = folded(config)
    folder = RunFolder(Path(config.root) / config.name / identifier(config))
    console = Console(quiet=not config.progress or not is_first_started(config))
    request = Request(config, folder, console, wait or multirun_job() is not None, callbacks)
    result = finished_before(request) if folder.finished and not config.rerun else learn_by_all(request)
    if shown:
        show(result, console)
    return result


def finished_before(request: Request) -> Result:
    if is_first_started(request.config):
        print(f"finished before, not trained again (rerun=true does): {request.folder.path}")
        log_for_agent(request.config, request.folder)
    result = replace(read_result(request.folder), trained=False)
    if is_first_started(request.config) and (told := changed_code(result.metrics, request.config)):
        print(told)
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


def build_run(config: DictConfig, stream: TaskStream | None = None) -> Run:
    """The parts of a run, wired together, from a checked configuration. Nothing is written.

    stream: in the place of the configuration's.

    Raises:
        ConfigError: parts that cannot be built, or that do not go together.
    """
    stream = stream or make_stream(config)
    torch.manual_seed(derive_seed(config.seed))
    learner = make_learner(config, stream.input_shape, stream.num_classes, stream.groups())
    learner.as_input = build(config.normalise, "normalise", stream=stream)
    learner.make_scheduler = factory(config.scheduler, "scheduler")
    method, memory = build(config.method, "method"), build(config.memory, "memory")
    method.learner, method.memory = learner, memory
    parts = Run(
        stream,
        learner,
        method,
        memory,
        make_trainer=partial(task_trainer, config, [method]),
        augment=build(config.augment, "augment"),
        epochs=config.epochs_per_task,
        **{key: config[key] for key in ("batch_size", "seed", "resident_bytes", "keep_optimizer")},
    )
    check_together(config, parts)
    return parts


def make_stream(config: DictConfig) -> TaskStream:
    """The stream on its source, or on each of its sources."""
    if "sources" in config.dataset:
        sources = {name: build(node, f"{SOURCES}.{name}") for name, node in config.dataset.sources.items()}
        return build(config.dataset, "dataset", sources=sources, resident_bytes=config.resident_bytes)
    source = build(config.dataset.source, "dataset.source")
    return build(config.dataset, "dataset", source=source, resident_bytes=config.resident_bytes)


def task_trainer(
    config: DictConfig,
    first: Sequence[Callback],
    last: Sequence[Callback] = (),
    watching: Mapping[str, Any] = NOT_WATCHED,
    **replaced: Any,
) -> Trainer:
    """A Trainer for one task; its callbacks are `first`, what may stop the task early, and `last`.

    watching: logger and folder; replaced: options of the configuration's trainer.
    """
    stopping = build(config.early_stopping, "early_stopping")
    return make_trainer(config, this_shard().of, replaced, callbacks=[*first, *stopping, *last], **watching)


def check_together(config: DictConfig, run: Run) -> None:
    """Raises ConfigError for parts that are sound but do not go together, or that the device does not have."""
    stream = run.stream
    if run.epochs is not None and len(run.epochs) != stream.num_tasks:
        raise ConfigError(
            f"epochs_per_task must be null or a list of {stream.num_tasks} integers >= 1, one for each task, "
            f"got {config.epochs_per_task}"
        )
    stopping = build(config.early_stopping, "early_stopping")
    if stopping and not all(len(stream.task(i).val) for i in range(stream.num_tasks)):
        raise ConfigError(
            f"early_stopping must be none without validation data to watch, got val_fraction={config.val_fraction}"
        )
    if run.augment is not None:
        stream.check_images("augment")
    device = trial_trainer(config).strategy.root_device
    num_cells = sum(len(stream.task(i).classes) for i in range(stream.num_tasks // stream.cycles))
    try:
        optimizer = run.learner.make_optimizer([torch.nn.Parameter(torch.zeros(1))])
        build(config.scheduler, "scheduler", optimizer=optimizer, num_steps=2)
        check_precision(config.trainer.precision, device, optimizer, clips=bool(config.trainer.gradient_clip_val))
        run.method.check(stream, run.learner.backbone)
        run.memory.check(run.learner.backbone, num_cells=num_cells, batch_size=config.batch_size)
        set_tf32(config.tf32, device)
        run.learner.compiled = compiled(run.learner.backbone, device) if config.compile else None
    except ValueError as error:
        raise ConfigError(str(error)) from error


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
    history = History(folder.history) if is_first() else NoHistory()
    files = CheckpointFiles(folder.checkpoint, identity(config))
    every = (config.checkpoint_seconds, config.checkpoint_steps)
    run.checkpoints = checkpoints = Checkpoints(files, run.record, run.memory, history.position, *every)
    history.truncate(checkpoints.load(run.learner, method) or 0)
    if is_first():  # and nothing before a checkpoint is accepted
        folder.write_text(folder.config, OmegaConf.to_yaml(config, resolve=True))
    loggers = make_loggers(config, folder) if is_first() else []
    tracker = Tracker(stream, method, run.record, history, loggers, config.log_every_n_steps)
    bar = StreamProgress(stream, run.record, tracker, request.console)

    def on_row(task: Task) -> None:
        tracker.log_test_row()
        request.console.print(row_line(run.record, stream.names), highlight=False, soft_wrap=True)

    run.on_row = on_row
    with tracker.closing(), closing(bar), checkpoints.signals_saved():
        watching = {"logger": loggers or False, "default_root_dir": folder.path}
        last = [*request.callbacks, bar, checkpoints]
        run.make_trainer = partial(task_trainer, config, [tracker, method], last, watching, **own_device(config))
        yield tracker


def own_device(config: DictConfig) -> dict[str, list[int]]:
    """What the trainer's devices are to be: the jobs of a multirun take the GPUs of a machine in turn."""
    num_gpus = torch.cuda.device_count() if config.trainer.accelerator in ("auto", "gpu", "cuda") else 0
    if num_gpus < 2 or config.trainer.devices != 1 or multirun_job() is None:
        return {}
    return {"devices": [HydraConfig.get().job.num % num_gpus]}
