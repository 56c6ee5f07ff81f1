"""The parts of a run, built from its configuration and wired together."""

from collections.abc import Mapping, Sequence
from functools import partial
from inspect import Parameter, signature
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from lightning.pytorch import Callback, Trainer
from omegaconf import DictConfig
from torch import Tensor

from lifelong.config.build import build, factory
from lifelong.config.groups import SOURCES
from lifelong.config.schema import ConfigError
from lifelong.data.loader import num_batches
from lifelong.data.seeds import derive_seed
from lifelong.data.stream import TaskStream
from lifelong.distributed.ranks import this_shard
from lifelong.experiment.weights import load_weights
from lifelong.launch.jobs import multirun_job
from lifelong.models.learner import Learner
from lifelong.training.loop import Run
from lifelong.training.precision import check_precision, compiled, set_tf32
from lifelong.training.trainer import make_trainer, trial_trainer

NOT_WATCHED: Mapping[str, Any] = {"logger": False}
OF_RUN = ("batch_size", "seed", "resident_bytes", "keep_optimizer", "drop_last", "shuffle")
"""Root keys that a Run has too."""


def build_run(config: DictConfig, stream: TaskStream | None = None) -> Run:
    """The parts of a run, wired together, from a checked configuration. Nothing is written.

    stream: in the place of the configuration's.

    Raises:
        ConfigError: parts that cannot be built, or that do not go together.
    """
    stream = stream or make_stream(config)
    learner = initial_learner(config, stream)
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
        **{key: config[key] for key in OF_RUN},
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
    if run.epochs is not None and run.method.learned(stream, stream.task(0)) > 0:
        raise ConfigError(f"epochs_per_task must be null with method.schedule=once, got {config.epochs_per_task}")
    stopping = build(config.early_stopping, "early_stopping")
    if stopping and not all(len(stream.task(i).val) for i in range(stream.num_tasks)):
        raise ConfigError(
            f"early_stopping must be none without validation data to watch, got val_fraction={config.val_fraction}"
        )
    if not run.shuffle and run.memory.replay == "balanced" and not run.method.replays:
        raise ConfigError("shuffle must be true with memory.replay=balanced, which draws its batches, got false")
    device = trial_trainer(config).strategy.root_device
    num_cells = sum(len(stream.task(i).classes) for i in range(stream.num_tasks // stream.cycles))
    try:
        if run.augment is not None:
            stream.check_images("augment")
        optimizer = run.learner.make_optimizer([torch.nn.Parameter(torch.zeros(1))])
        build(config.scheduler, "scheduler", optimizer=optimizer, num_steps=2)
        check_precision(config.trainer.precision, device, optimizer, clips=bool(config.trainer.gradient_clip_val))
        fewest = num_batches(min(stream.num_train[base] for base in stream.order), run.batch_size, run.drop_last)
        check_share(config.trainer.get("limit_train_batches"), fewest)
        run.method.check(stream, run.learner.backbone)
        run.memory.check(run.learner.backbone, num_cells=num_cells, batch_size=config.batch_size)
        set_tf32(config.tf32, device)
        run.learner.compiled = compiled(run.learner.backbone, device) if config.compile else None
    except ValueError as error:
        raise ConfigError(str(error)) from error


def check_share(limit: int | float | None, fewest: int) -> None:
    """Raises ValueError for a share of an epoch that leaves the task of the fewest batches without one."""
    if isinstance(limit, float) and int(limit * fewest) < 1:
        allowed = f"an integer >= 1, or a share of an epoch that leaves a batch of the smallest task's {fewest}"
        raise ValueError(f"trainer.limit_train_batches must be {allowed}, got {limit}")


def initial_learner(config: DictConfig, stream: TaskStream) -> Learner:
    """A learner with the weights that the run begins with; seeds torch's generator."""
    torch.manual_seed(derive_seed(config.seed))
    learner = make_learner(config, stream.input_shape, stream.num_classes, stream.groups())
    if config.get("init_from") is not None:
        load_weights(learner.backbone, config.init_from)
    return learner


def make_learner(config: DictConfig, input_shape: tuple[int, ...], num_classes: int, groups: Tensor | None) -> Learner:
    backbone = build(config.backbone, "backbone", input_shape=tuple(input_shape), num_classes=num_classes)
    make_optimizer = factory(config.optimizer, "optimizer")
    optimizer = make_optimizer([torch.nn.Parameter(torch.zeros(1))])  # refuses impossible settings before any training
    closure = signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is Parameter.empty:
        what = f"{type(optimizer).__name__}, whose step computes several gradients"
        raise ConfigError(f"optimizer must be one whose step takes the gradient that is there, got {what}")
    learner = Learner(backbone, make_optimizer, num_classes, groups)
    try:
        learner.freeze_parts(config.backbone.get("freeze") or [])
    except ValueError as error:
        raise ConfigError(str(error)) from error
    return learner


def own_device(config: DictConfig) -> dict[str, list[int]]:
    """What the trainer's devices are to be: the jobs of a multirun take the GPUs of a machine in turn."""
    num_gpus = torch.cuda.device_count() if config.trainer.accelerator in ("auto", "gpu", "cuda") else 0
    if num_gpus < 2 or config.trainer.devices != 1 or multirun_job() is None:
        return {}
    return {"devices": [HydraConfig.get().job.num % num_gpus]}
