"""What a run has come to: weights, matrix, pictures and measures, written to its folder and read back."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from rich.console import Console
from torch import Tensor

from lifelong.analysis.ends import LackingError, read_importances
from lifelong.analysis.overlap import overlap
from lifelong.config.schema import choice
from lifelong.data.examples import as_input
from lifelong.data.normalise import Normalise
from lifelong.data.stream import TaskStream
from lifelong.distributed.ranks import this_shard
from lifelong.methods.method import Method
from lifelong.metrics import measures, to_csv, within_measures
from lifelong.plots.analysed import importance_figure
from lifelong.plots.figures import Point, accuracy_curves_figure, accuracy_matrix_figure, save_figure
from lifelong.runs.atomic import atomic_write
from lifelong.runs.environment import environment, peak_memory_bytes
from lifelong.runs.folder import RunFolder, run_id
from lifelong.runs.identity import code_hashes, setting, source_names, stream_setting, title
from lifelong.runs.record import Record
from lifelong.tracking import WITHIN, evaluations, part_tested, read_history
from lifelong.training.loop import Run
from lifelong.training.progress import result_tables


@dataclass(frozen=True)
class Result:
    """What a finished run says.

    Attributes:
        folder: its run folder.
        names: the T task names.
        matrix: (T, T) float64 test accuracies, row = after learning, column = tested on.
        metrics: the content of metrics.json.
        trained: False if the run was finished before.
    """

    folder: Path
    names: list[str]
    matrix: Tensor
    metrics: dict[str, Any]
    trained: bool = True


def write_result(config: DictConfig, run: Run, folder: RunFolder, *, drawn: bool = False) -> Result:
    """Write weights, matrix, pictures unless they are drawn already and, last, metrics.json; returns what can be read
    of them."""
    stream, learner, record = run.stream, run.learner, run.record
    matrix, baseline, val = (torch.tensor(a, dtype=torch.float64) for a in (record.test, record.baseline, record.val))
    found = measures(val)  # what hyperparameters may be chosen by; nan without validation data
    last = stream.task(stream.num_tasks - 1)  # after which the run may have been resumed, without a fit
    learner.show(stream.visible(run.method.learned(stream, last), last.index))
    write_model(run, folder.model)
    folder.write_text(folder.matrix, to_csv(matrix, stream.names))
    if not val.isnan().any():
        folder.write_text(folder.val_matrix, to_csv(val, stream.names))
    if run.method.keeps_importance and folder.importances.exists():
        write_overlap(folder, stream.names, title(config))
    if not drawn:
        draw(folder, stream.names, matrix, record, title(config))
    folder.write_metrics(
        {
            **measures(matrix, baseline),
            **{f"val_{name}": found[name] for name in ("average_accuracy", "learning_accuracy", "forgetting")},
            **(within(run, folder) if config.evaluate_every_n_steps else {}),
            "final_accuracy_per_task": record.test[-1],
            "baseline_accuracy_per_task": record.baseline,
            "num_tasks": stream.num_tasks,
            "num_steps": record.step,
            **described(config, stream),
            "run_id": folder.path.name,
            **code_hashes(config),
            "setting": run_id("setting", setting(config)),
            "stream": run_id("stream", stream_setting(config)),
            **{f"{phase}_seconds": seconds for phase, seconds in record.seconds.items()},
            "peak_memory_bytes": peak_memory_bytes(learner.device),
            "method_state_bytes": run.method.state_bytes(),
            "memory_bytes": run.memory.state_bytes(),
            "num_processes": this_shard().of,
            **environment(learner.device),
        }
    )
    return read_result(folder)


def keep_task(run: Run, folder: RunFolder, task: int, *, weights: bool) -> None:
    """Write what is kept of a task just learned: the model, and its own importance if the method kept one."""
    if weights:
        folder.weights.mkdir(exist_ok=True)
        write_model(run, folder.weights_after(task))
    if run.method.task_importance is not None:
        folder.importances.mkdir(exist_ok=True)
        kept = {name: omega.to("cpu", torch.float32) for name, omega in run.method.task_importance.items()}
        with atomic_write(folder.importance_of(task), "wb") as file:
            torch.save(kept, file)


def write_overlap(folder: RunFolder, names: list[str], title: str) -> None:
    """analysis.json and importance.png: what the importances of the tasks share; says so in a line if some are missing,
    as where the run began without keep_importances."""
    try:
        found = overlap(read_importances(folder, len(names)))
    except LackingError as error:
        print(error, file=sys.stderr)
        return
    folder.write_analysis({"overlap": found})
    save_figure(importance_figure(found, names, title), folder.importance_picture)


def write_model(run: Run, path: Path) -> None:
    """model.pt: weights, what the method makes of them on each task, and what it takes to use them without the data."""
    stream, learner = run.stream, run.learner
    shape = {"input_shape": list(stream.input_shape), "num_classes": stream.num_classes, "groups": stream.groups()}
    pixels = learner.as_input
    normalise = [pixels.mean, pixels.std] if isinstance(pixels, Normalise) else None
    shape["own_as_input"] = stream.as_input is not as_input  # code of the source's: load asks for it
    state = {name: tensor.cpu() for name, tensor in learner.state_dict().items()}
    visible = learner.visible.nonzero().flatten().tolist()
    method = {"method": run.method.state_dict()} if type(run.method).enter is not Method.enter else {}
    with atomic_write(path, "wb") as file:
        torch.save({"state_dict": state, "visible": visible, "normalise": normalise, **shape, **method}, file)


def within(run: Run, folder: RunFolder) -> dict[str, Any]:
    """Measures within tasks and whose data they are of; {}, with a line on stderr, if some task was not evaluated."""
    R, tasks, steps = evaluations(read_history(folder.history), run.stream.names)
    ends = {(last, k) for k, (_, last) in enumerate(run.record.boundaries)}
    if not ends <= set(zip(steps, tasks.tolist(), strict=True)):
        print("no measures within tasks: evaluate_every_n_steps was not set from the start", file=sys.stderr)
        return {}
    return {"within_part": part_tested(run.stream), **within_measures(R, tasks)}


def described(config: DictConfig, stream: TaskStream) -> dict[str, Any]:
    """The choices that a table of runs is read by."""
    return {
        "method": choice(config, "method"),
        "strength": config.method.get("strength"),
        "memory": choice(config, "memory"),
        "dataset": choice(config, "dataset"),
        "source": "+".join(source_names(config)),
        "order": stream.order,
        "cycles": stream.cycles,
        "scenario": config.scenario,
        "seed": config.seed,
    }


def draw(folder: RunFolder, names: list[str], matrix: Tensor, record: Record, title: str) -> None:
    """accuracy_matrix.png, accuracy_curves.png and, of a run that was evaluated within tasks, within_tasks.png."""
    save_figure(accuracy_matrix_figure(matrix, names, title), folder.path / "accuracy_matrix.png")
    rows = read_history(folder.history)
    turns = [(name, *steps) for name, steps in zip(names, record.boundaries, strict=True) if steps[0] < steps[1]]
    if len(turns) == 1 < len(names):  # joint at once
        turns = [("all tasks", *turns[0][1:])]
    for file, prefix, accuracy in (
        ("accuracy_curves.png", "val/accuracy/", "validation accuracy"),
        ("within_tasks.png", WITHIN, "accuracy on a fixed subset"),
    ):
        points: list[Point] = [
            {"step": row["step"], "task": names.index(key.removeprefix(prefix)), "accuracy": value}
            for row in rows
            for key, value in row.items()
            if key.startswith(prefix) and value is not None
        ]
        if points:
            figure = accuracy_curves_figure(points, names, turns, title, accuracy)
            save_figure(figure, folder.path / file)


def read_result(folder: RunFolder) -> Result:
    """What a finished run has written."""
    names, rows = folder.read_matrix()
    return Result(folder.path, names, torch.tensor(rows, dtype=torch.float64), folder.read_metrics())


def show(result: Result, console: Console) -> None:
    """The table that ends a run."""
    found = measures(result.matrix, torch.tensor(result.metrics["baseline_accuracy_per_task"]))
    for table in result_tables(result.names, result.matrix.tolist(), found):
        console.print(table)
    console.print(f"run folder: {result.folder}", highlight=False, soft_wrap=True)
