"""One run, wired in the open: configuration → objects → run folder."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import Tensor

from lifelong.atomic import atomic_write
from lifelong.checkpoint import Checkpoints, load_whole
from lifelong.config import ConfigError, build, check, check_group, choice, factory, identity, setting
from lifelong.data.normalise import Normalise
from lifelong.data.seeds import derive_seed
from lifelong.data.stream import Task, TaskStream
from lifelong.environment import environment, peak_memory_bytes
from lifelong.explain import composed
from lifelong.figures import Point, accuracy_curves_figure, accuracy_matrix_figure, save_figure
from lifelong.groups import SOURCES
from lifelong.learner import Learner
from lifelong.loop import accuracy_matrix, run_stream
from lifelong.memory.base import Memory
from lifelong.memory.none import NoMemory
from lifelong.metrics import AccuracyMatrix
from lifelong.penalties.base import Penalty
from lifelong.progress import StreamProgress, result_tables, row_line
from lifelong.record import Record
from lifelong.run_folder import RunFolder, run_id, whole
from lifelong.tracking import History, Tracker, quiet_libraries, read_history

TRAINER = {"log_every_n_steps": 1, "enable_checkpointing": False, "enable_model_summary": False,
           "use_distributed_sampler": False}  # fmt: skip
"""What of Lightning's Trainer is our own business."""


@dataclass(frozen=True)
class Result:
    """What a finished run says.

    Attributes:
        folder: its run folder.
        names: the T task names.
        matrix: (T, T) float64 test accuracies, row = after learning, column = tested on.
        metrics: the content of metrics.json.
    """

    folder: Path
    names: list[str]
    matrix: Tensor
    metrics: dict[str, Any]


def run(*overrides: str) -> Result:
    """`python train.py *overrides` from Python: lifelong.run("method=ewc", "seed=1").

    Raises:
        ConfigError: a setting outside what is allowed.
    """
    return run_experiment(composed(overrides))


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
        saved = load_whole(paths.model)
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


def run_experiment(config: DictConfig) -> Result:
    """Train, or answer from the run folder if this very run is finished there.

    Raises:
        ConfigError: a setting outside what is allowed, before anything is written.
        RunFolderError: the run folder cannot be written, is in use or is damaged.
        PenaltyError, DivergedError: the run cannot go on sensibly.
    """
    check(config)
    quiet_libraries()
    folder = RunFolder(Path(config.root) / config.name / identifier(config))
    console = Console(quiet=not config.progress)
    if folder.finished and not config.rerun:
        result = read_result(folder)
        print(f"finished before, not trained again (rerun=true does): {folder.path}")
        show(result, console)
        return result
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    stream = make_stream(config)
    torch.manual_seed(derive_seed(config.seed))
    learner = make_learner(config, stream.input_shape, stream.num_classes, stream.groups())
    learner.as_input = build(config.normalise, "normalise", stream=stream)
    penalty: Penalty = build(config.method, "method")
    memory: Memory = build(config.memory, "memory")
    check_together(config, stream, learner, penalty, memory)
    with folder.locked():
        if folder.finished:
            folder.start_over()
        return train(config, stream, learner, penalty, memory, folder, console)


def make_stream(config: DictConfig) -> TaskStream:
    """The stream on its source, or on each of its sources."""
    if "sources" in config.dataset:
        sources = {name: build(node, f"{SOURCES}.{name}") for name, node in config.dataset.sources.items()}
        return build(config.dataset, "dataset", sources=sources, resident_bytes=config.resident_bytes)
    source = build(config.dataset.source, "dataset.source")
    return build(config.dataset, "dataset", source=source, resident_bytes=config.resident_bytes)


def source_names(config: DictConfig) -> list[str]:
    nodes = config.dataset.sources.values() if "sources" in config.dataset else [config.dataset.source]
    return [Path(node.get("name") or choice(node)).name for node in nodes]  # a hub set is called what the hub calls it


def identifier(config: DictConfig) -> str:
    """The run id: what can be read at a glance, and a hash of all that decides the numbers."""
    parts = [choice(config.method), choice(config.dataset), *source_names(config), f"s{config.seed}"]
    if choice(config.memory) != "none":
        parts.insert(1, choice(config.memory))
    return run_id("-".join(parts), identity(config))


def check_together(config: DictConfig, stream: TaskStream, learner: Learner, penalty: Penalty, memory: Memory) -> None:
    """Raises ConfigError for parts that are sound but do not go together."""
    if penalty.cumulative and not isinstance(memory, NoMemory):
        raise ConfigError(
            f"memory must be none with method={choice(config.method)}, which keeps all data, "
            f"got {choice(config.memory)}"
        )
    silent = ("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary")
    ranks = build(config.trainer, "trainer", **dict.fromkeys(silent, False)).world_size
    if ranks > 1:
        raise ConfigError(f"trainer.devices must be 1: penalties are not yet reduced over ranks, got {ranks} ranks")
    build(config.augment, "augment")  # refuses impossible settings before anything is written
    if config.epochs_per_task is not None and len(config.epochs_per_task) != stream.num_tasks:
        raise ConfigError(
            f"epochs_per_task must be null or a list of {stream.num_tasks} integers >= 1, one for each task, "
            f"got {config.epochs_per_task}"
        )
    num_cells = sum(len(stream.task(i).classes) for i in range(stream.num_tasks // stream.cycles))
    try:
        penalty.held(learner.backbone)
        memory.check(learner.backbone, num_cells=num_cells, batch_size=config.batch_size)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def train(
    config: DictConfig,
    stream: TaskStream,
    learner: Learner,
    penalty: Penalty,
    memory: Memory,
    folder: RunFolder,
    console: Console,
) -> Result:
    """Wire the parts, learn the stream, write the run folder."""
    folder.write_text(folder.config, OmegaConf.to_yaml(config, resolve=True))
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    record, history = Record(), History(folder.history)
    checkpoints = Checkpoints(folder.checkpoint, record, memory, history.position, config.checkpoint_seconds)
    history.truncate(checkpoints.load(learner, penalty) or 0)
    loggers = build(config.logger, "logger", folder=folder.path, run_id=folder.path.name, config=plain)
    tracker = Tracker(stream, penalty, record, history, loggers, config.log_every_n_steps)
    bar = StreamProgress(stream, penalty, record, tracker, console)
    ours: dict[str, Any] = {"callbacks": [penalty, tracker, bar, checkpoints], "logger": loggers or False}

    def make_trainer(**replaced: int) -> Trainer:
        node = OmegaConf.merge(config.trainer, replaced)
        return build(node, "trainer", **ours, **TRAINER, default_root_dir=folder.path)  # type: ignore[arg-type]

    def on_row(task: Task) -> None:
        tracker.log_test_row()
        bar.say(row_line(record, stream.names))

    with tracker.closing(), bar.closing(), checkpoints.signals_saved():
        options = {key: config[key] for key in ("batch_size", "seed", "resident_bytes")}
        options |= {"augment": build(config.augment, "augment"), "epochs": config.epochs_per_task, "record": record}
        run_stream(stream, learner, penalty, memory, make_trainer, **options, checkpoints=checkpoints, on_row=on_row)
        result = write_result(config, stream, learner, penalty, memory, record, folder)
        tracker.summarise(result.metrics)
    show(result, console)
    return result


def write_result(
    config: DictConfig,
    stream: TaskStream,
    learner: Learner,
    penalty: Penalty,
    memory: Memory,
    record: Record,
    folder: RunFolder,
) -> Result:
    """Weights, matrix, pictures and, last, metrics.json."""
    matrix = accuracy_matrix(record)
    shape = {"input_shape": list(stream.input_shape), "num_classes": stream.num_classes, "groups": stream.groups()}
    pixels = learner.as_input
    normalise = [pixels.mean, pixels.std] if isinstance(pixels, Normalise) else None
    state = {name: tensor.cpu() for name, tensor in learner.state_dict().items()}
    visible = learner.visible.nonzero().flatten().tolist()
    with atomic_write(folder.model, "wb") as file:
        torch.save({"state_dict": state, "visible": visible, "normalise": normalise, **shape}, file)
    folder.write_text(folder.matrix, matrix.to_csv(stream.names))
    draw(folder, stream.names, matrix.values, record)
    folder.write_metrics(
        {
            **matrix.compute(),
            "val_average_accuracy": sum(record.val[-1]) / len(record.val[-1]),
            "final_accuracy_per_task": record.test[-1],
            "baseline_accuracy_per_task": record.baseline,
            "num_tasks": stream.num_tasks,
            "num_steps": record.step,
            "method": choice(config.method),
            "strength": penalty.strength,
            "memory": choice(config.memory),
            "dataset": choice(config.dataset),
            "source": "+".join(source_names(config)),
            "order": stream.order,
            "cycles": stream.cycles,
            "scenario": config.scenario,
            "seed": config.seed,
            "run_id": folder.path.name,
            "setting": run_id("setting", setting(config)),
            **{f"{phase}_seconds": seconds for phase, seconds in record.seconds.items()},
            "peak_memory_bytes": peak_memory_bytes(learner.device),
            "penalty_state_bytes": penalty.state_bytes(),
            "memory_bytes": memory.state_bytes(),
            **environment(learner.device),
        }
    )
    return read_result(folder)


def draw(folder: RunFolder, names: list[str], matrix: Tensor, record: Record) -> None:
    """accuracy_matrix.png and accuracy_curves.png."""
    title = folder.path.name
    save_figure(accuracy_matrix_figure(matrix, names, title), folder.path / "accuracy_matrix.png")
    points: list[Point] = [
        {"step": row["step"], "task": names.index(key.removeprefix("val/accuracy/")), "accuracy": value}
        for row in read_history(folder.history)
        for key, value in row.items()
        if key.startswith("val/accuracy/") and value is not None
    ]
    if points:  # none without validation data
        figure = accuracy_curves_figure(points, names, record.boundaries, title)
        save_figure(figure, folder.path / "accuracy_curves.png")


def read_result(folder: RunFolder) -> Result:
    """What a finished run left behind."""
    names, rows = folder.read_matrix()
    return Result(folder.path, names, torch.tensor(rows, dtype=torch.float64), folder.read_metrics())


def show(result: Result, console: Console) -> None:
    """The table that ends a run."""
    baseline = torch.tensor(result.metrics["baseline_accuracy_per_task"])
    measures = AccuracyMatrix.from_rows(result.matrix, baseline).compute()
    for table in result_tables(result.names, result.matrix.tolist(), measures):
        console.print(table)
    console.print(f"run folder: {result.folder}", highlight=False, soft_wrap=True)
