"""One run, wired in the open: configuration → objects → run folder."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import Tensor

from lifelong.config.build import build, factory
from lifelong.config.checks import check, check_group
from lifelong.config.groups import SOURCES
from lifelong.config.schema import ConfigError, choice, folded
from lifelong.data.normalise import Normalise
from lifelong.data.seeds import derive_seed
from lifelong.data.stream import Task, TaskStream
from lifelong.distributed.ranks import from_rank_zero, is_first, losing_contact, this_share, wait_for_all
from lifelong.experiment.errors import composed
from lifelong.experiment.reference import Reference, compared, find_reference
from lifelong.experiment.result import Result, read_result, show, write_result
from lifelong.launch.jobs import multirun_job
from lifelong.launch.launcher import launch
from lifelong.launch.slots import gpu_slot
from lifelong.memory.base import Memory
from lifelong.memory.none import NoMemory
from lifelong.methods.penalty import Penalty
from lifelong.models.learner import Learner
from lifelong.runs.checksum import load_sealed
from lifelong.runs.folder import RunFolder, whole
from lifelong.runs.identity import identifier, identity, title
from lifelong.runs.record import Record
from lifelong.tracking import About, History, NoHistory, Tracker, quiet_libraries
from lifelong.training.checkpoint import Checkpoints
from lifelong.training.checkpoint_files import CheckpointFiles
from lifelong.training.loop import new_garbage, run_stream
from lifelong.training.precision import check_precision, compiled, set_tf32
from lifelong.training.progress import StreamProgress, row_line
from lifelong.training.trainer import is_first_started, join, make_trainer, trial_trainer, wanted_ranks


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
        saved = load_sealed(paths.model)
    learner = make_learner(config, saved["input_shape"], saved["num_classes"], saved["groups"])  # type: ignore[arg-type]
    if saved.get("normalise"):
        learner.as_input = Normalise(*saved["normalise"])
    learner.load_state_dict(saved["state_dict"])
    learner.show(saved["visible"])
    return learner.eval()


def make_learner(
    config: DictConfig, input_shape: tuple[int, int, int], num_classes: int, groups: Tensor | None
) -> Learner:
    backbone = build(config.backbone, "backbone", input_shape=tuple(input_shape), num_classes=num_classes)
    make_optimizer = factory(config.optimizer, "optimizer")
    make_optimizer([torch.nn.Parameter(torch.zeros(1))])  # refuses impossible settings before any training
    return Learner(backbone, make_optimizer, num_classes, groups)


@dataclass(frozen=True)
class Request:
    """A run as it is asked for.

    Attributes:
        reference: what its intransigence is measured against, if anything.
        wait: for another process that works in the folder.
        callbacks: as in `run`.
    """

    config: DictConfig
    folder: RunFolder
    reference: Reference | None
    console: Console
    wait: bool
    callbacks: Sequence[Callback]


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
    before = folder.finished and not config.rerun
    known = before and read_result(folder).metrics.get("intransigence") is not None
    wanted = config.reference == "auto" and not known
    reference = find_reference(config, partial(run_experiment, wait=True)) if wanted else None
    request = Request(config, folder, reference, console, wait or multirun_job() is not None, callbacks)
    result = finished_before(request) if before else learn_by_all(request)
    if shown:
        show(result, console)
    return result


def finished_before(request: Request) -> Result:
    if is_first_started(request.config):
        print(f"finished before, not trained again (rerun=true does): {request.folder.path}")
    result = replace(read_result(request.folder), trained=False)
    return compared(result, request.reference) if request.reference else result


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
    compare = {"reference": "auto" if request.reference else "off"}
    with folder.failures_told():
        launch(OmegaConf.to_yaml(OmegaConf.merge(config, compare), resolve=True), ranks.num)
    return read_result(folder)


def learn(request: Request) -> Result:
    """Build the parts, hold the folder and train; of several ranks the first one holds and writes it."""
    config, folder = request.config, request.folder
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    stream = make_stream(config)
    torch.manual_seed(derive_seed(config.seed))
    learner = make_learner(config, stream.input_shape, stream.num_classes, stream.groups())
    learner.as_input = build(config.normalise, "normalise", stream=stream)
    learner.make_scheduler = factory(config.scheduler, "scheduler")
    penalty: Penalty = build(config.method, "method")
    memory: Memory = build(config.memory, "memory")
    device = check_together(config, stream, learner, penalty, memory)
    set_arithmetic(config, learner, device)
    with folder.locked(wait=request.wait) if is_first() else nullcontext():
        if from_rank_zero(folder.finished and not config.rerun):
            return finished_before(request)
        if folder.finished and is_first():
            folder.start_over()
        wait_for_all()
        with folder.failures_told() if is_first() else nullcontext():
            return train(request, stream, learner, penalty, memory)


def make_stream(config: DictConfig) -> TaskStream:
    """The stream on its source, or on each of its sources."""
    if "sources" in config.dataset:
        sources = {name: build(node, f"{SOURCES}.{name}") for name, node in config.dataset.sources.items()}
        return build(config.dataset, "dataset", sources=sources, resident_bytes=config.resident_bytes)
    source = build(config.dataset.source, "dataset.source")
    return build(config.dataset, "dataset", source=source, resident_bytes=config.resident_bytes)


def check_together(
    config: DictConfig, stream: TaskStream, learner: Learner, penalty: Penalty, memory: Memory
) -> torch.device:
    """Raises ConfigError for parts that are sound but do not go together; returns the device of the run."""
    if penalty.cumulative and not isinstance(memory, NoMemory):
        raise ConfigError(
            f"memory must be none with method={choice(config, 'method')}, which keeps all data, "
            f"got {choice(config, 'memory')}"
        )
    build(config.augment, "augment")  # refuses impossible settings before anything is written
    if config.epochs_per_task is not None and len(config.epochs_per_task) != stream.num_tasks:
        raise ConfigError(
            f"epochs_per_task must be null or a list of {stream.num_tasks} integers >= 1, one for each task, "
            f"got {config.epochs_per_task}"
        )
    stopping = build(config.early_stopping, "early_stopping")
    if stopping and not all(len(stream.task(i).val) for i in range(stream.num_tasks)):
        raise ConfigError(
            f"early_stopping must be none without validation data to watch, got val_fraction={config.val_fraction}"
        )
    device = trial_trainer(config).strategy.root_device
    num_cells = sum(len(stream.task(i).classes) for i in range(stream.num_tasks // stream.cycles))
    try:
        optimizer = learner.make_optimizer([torch.nn.Parameter(torch.zeros(1))])
        build(config.scheduler, "scheduler", optimizer=optimizer, num_steps=2)
        clips = bool(config.trainer.gradient_clip_val)
        check_precision(config.trainer.precision, device, optimizer, clips=clips)
        penalty.held(learner.backbone)
        memory.check(learner.backbone, num_cells=num_cells, batch_size=config.batch_size)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return device


def set_arithmetic(config: DictConfig, learner: Learner, device: torch.device) -> None:
    """Raises ConfigError for an arithmetic that the device does not have."""
    try:
        set_tf32(config.tf32, device)
        learner.compiled = compiled(learner.backbone, device) if config.compile else None
    except ValueError as error:
        raise ConfigError(str(error)) from error


def train(request: Request, stream: TaskStream, learner: Learner, penalty: Penalty, memory: Memory) -> Result:
    """Wire the parts, learn the stream, write the run folder."""
    config, folder = request.config, request.folder
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    record, history = Record(), History(folder.history) if is_first() else NoHistory()
    files = CheckpointFiles(folder.checkpoint, identity(config))
    every = (config.checkpoint_seconds, config.checkpoint_steps)
    checkpoints = Checkpoints(files, record, memory, history.position, *every)
    history.truncate(checkpoints.load(learner, penalty) or 0)
    if is_first():  # and nothing before a checkpoint is accepted
        folder.write_text(folder.config, OmegaConf.to_yaml(config, resolve=True))
    about = About(folder.path, folder.path.name, title(config), choice(config, "method"), plain)
    loggers = build(config.logger, "logger", about=about) if is_first() else []
    tracker = Tracker(stream, penalty, record, history, loggers, config.log_every_n_steps)
    bar = StreamProgress(stream, penalty, record, tracker, request.console)
    ours: dict[str, Any] = {"logger": loggers or False, "default_root_dir": folder.path}

    def trainer_of_task(**replaced: int) -> Trainer:
        stopping = build(config.early_stopping, "early_stopping")
        all_of_them = [tracker, penalty, *stopping, *request.callbacks, bar, checkpoints]
        return make_trainer(config, this_share().of, {**device, **replaced}, callbacks=all_of_them, **ours)

    def on_row(task: Task) -> None:
        tracker.log_test_row(about.title)
        bar.say(row_line(record, stream.names))

    with tracker.closing(), bar.closing(), checkpoints.signals_saved(), own_device(config) as device:
        options = {key: config[key] for key in ("batch_size", "seed", "resident_bytes", "keep_optimizer")}
        options |= {"augment": build(config.augment, "augment"), "epochs": config.epochs_per_task, "record": record}
        run_stream(stream, learner, penalty, memory, trainer_of_task, **options, checkpoints=checkpoints, on_row=on_row)
        result: Any = None
        if is_first():
            result = write_result(config, stream, learner, penalty, memory, record, folder)
            result = compared(result, request.reference) if request.reference else result
        result = from_rank_zero(result)
        tracker.summarise(result.metrics)
    return result


@contextmanager
def own_device(config: DictConfig) -> Iterator[dict[str, list[int]]]:
    """What the trainer's devices are to be: in a multirun on a machine of several GPUs, one that is least in use."""
    num_gpus = torch.cuda.device_count() if config.trainer.accelerator in ("auto", "gpu", "cuda") else 0
    if num_gpus < 2 or config.trainer.devices != 1 or multirun_job() is None:
        yield {}
        return
    with gpu_slot(num_gpus) as gpu:
        yield {"devices": [gpu]}
