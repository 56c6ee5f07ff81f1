"""Test a finished run's weights on any stream: python scripts/evaluate.py run=runs/a/RUN dataset=permuted.

What is not said is as in the run: the stream itself, its source, scenario, active_classes, val_fraction and seed.
Normalisation is the run's; so are the output columns it sees (all of them, if the run was told its tasks), but for
scenario=task, where each task is told. --config-dir is as for training, if the data are your own. The result is written
beside the run, to RUN/evaluations/<dataset>-<hash>.json.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pandas import DataFrame

from lifelong.config.checks import OF_STREAM, check
from lifelong.config.groups import choices
from lifelong.config.overrides import SEARCH_PATH
from lifelong.config.schema import ConfigError, choice
from lifelong.data.preview import class_names
from lifelong.data.stream import Task, TaskStream
from lifelong.experiment.errors import composed
from lifelong.experiment.load import load, load_method
from lifelong.experiment.parts import make_stream
from lifelong.models.evaluation import accuracy
from lifelong.models.learner import Learner
from lifelong.runs.atomic import atomic_write
from lifelong.runs.checksum import load_with_checksum
from lifelong.runs.folder import RunFolder, run_id
from lifelong.runs.identity import flattened, identity, source_names
from own_options import run_script
from terminal import print_table

ROOT_KEYS = (*OF_STREAM, "seed")
ALLOWED = ("dataset", *ROOT_KEYS, "resident_bytes", "trusted")


def stream_config(run: DictConfig, overrides: Sequence[str]) -> DictConfig:
    """The configuration of the stream to test on: the run's own where `overrides` say nothing.

    Raises:
        ConfigError: an override of what is not the stream's, or outside what is allowed.
    """
    search = of_search(overrides)
    overrides = [override for override in overrides if override not in search]
    keys = [override.partition("=")[0].lstrip("+~").rpartition("@")[2].replace("/", ".") for override in overrides]
    for key in keys:
        if key.split(".")[0] not in ALLOWED:
            allowed = f"only {', '.join(ALLOWED)} may be"
            raise ConfigError(f"{key} must not be set: weights are tested as they are, {allowed}")
    base = [*search] if "dataset" in keys else [*search, f"dataset={known('dataset', choice(run, 'dataset'), search)}"]
    there = composed([*base, *(o for o, key in zip(overrides, keys, strict=True) if key == "dataset")]).choices
    may_stay = there if "dataset" in keys else run.choices
    sources = {
        g: name for g, name in run.choices.items() if g.startswith("dataset.") and g in may_stay and g not in keys
    }
    for group, name in sources.items():
        if "." in name:  # a `_target_` that no yaml names
            continue
        at = "" if group == "dataset.source" else f"@{group}"
        base.append(f"{'+' * (group not in there)}dataset/source{at}={known(group, name, search)}")
    config = composed([*base, *overrides])
    OmegaConf.set_struct(config, False)
    config.update({key: run[key] for key in ROOT_KEYS if key not in keys and key in run})
    config.choices.update(sources)
    given = [f"{key}." for key in (*keys, *(f"dataset.{key}" for key in ROOT_KEYS if key in keys)) if key != "dataset"]
    for key, value in flattened(OmegaConf.to_container(run.dataset), "dataset.").items():  # type: ignore[arg-type]
        of_source = key.startswith(tuple(f"{group}." for group in sources))
        if ("dataset" not in keys or of_source) and not f"{key}.".startswith(tuple(given)):
            OmegaConf.update(config, key, value, force_add=True)
    check(config)
    return config


def of_search(overrides: Sequence[str]) -> list[str]:
    """What --config-dir came to."""
    return [override for override in overrides if override.startswith(f"{SEARCH_PATH}=")]


def of_own_code(overrides: Sequence[str]) -> list[str]:
    """What the run's own stream may need."""
    return [*of_search(overrides), *(override for override in overrides if override.startswith("trusted="))]


def known(group: str, name: str, search: Sequence[str]) -> str:
    """The run's choice of a group; raises ConfigError if it is none of ours and there is no --config-dir."""
    if search or name in choices(group):
        return name
    raise ConfigError(f"{group} is the run's own {name!r}: give --config-dir and PYTHONPATH as for training")


def check_fits(stream: TaskStream, learner: Learner, input_shape: tuple[int, int, int]) -> None:
    """Raises ConfigError for images or labels the network was not made for."""
    if tuple(stream.input_shape) != input_shape:
        raise ConfigError(f"dataset must have images of shape {input_shape}, as the run had, got {stream.input_shape}")
    num_columns = len(learner.visible)
    if stream.num_classes > num_columns:
        raise ConfigError(
            f"dataset must have at most {num_columns} output columns, as the run had, got {stream.num_classes} "
            f"with scenario={stream.scenario}"
        )


def columns(stream: TaskStream) -> list[set[str]]:
    """What each output column stands for, in the words of the source."""
    found: list[set[str]] = [set() for _ in range(stream.num_classes)]
    for task in map(stream.task, range(stream.num_tasks)):
        for column, word in class_names(stream, task).items():
            found[column].add(word)
    return found


def note_of_columns(stream: TaskStream, run: DictConfig, own_code: Sequence[str]) -> str | None:
    """A line if a column stands for classes here that it did not stand for in the run's own stream.

    None, too, if the run's own stream cannot be made any more.
    """
    try:
        own = make_stream(stream_config(run, own_code))
    except ConfigError:  # its data have moved, say
        return None
    own.resident_bytes = 0  # names alone are looked at
    for column, (here, there) in enumerate(zip(columns(stream), columns(own), strict=False)):
        if not here <= there:
            now, then = (", ".join(sorted(words)) for words in (here, there))
            return f"note: output column {column} stands for {now} here and for {then} in the run: is scenario right?"
    return None


def accuracies(learner: Learner, stream: TaskStream, enter: Callable[[Task | None], object]) -> list[float]:
    """(T,) test accuracy in [0, 1] on every task, which is entered before."""
    shown = learner.visible.nonzero().flatten().tolist()
    found = []
    for i in range(stream.num_tasks):
        learner.show(stream.visible(stream.num_tasks - 1, i) if stream.scenario == "task" else shown)
        enter(stream.task(i))
        found.append(accuracy(learner, stream.task(i).test))
    enter(None)
    learner.show(shown)
    return found


def evaluate(folder: Path, overrides: Sequence[str]) -> tuple[Path, dict[str, Any]]:
    """Test the run, and tell of columns that stand for other classes; returns where the result is, and the result.

    Raises:
        RunFolderError: the run is not finished, or its files are damaged.
        ConfigError: an override outside what is allowed, or a stream that does not fit the network.
    """
    paths = RunFolder(folder)
    paths.read_metrics()
    run = paths.read_config()
    config = stream_config(run, overrides)
    stream = make_stream(config)
    learner = load(folder, config.trusted, stream.as_input)
    check_fits(stream, learner, tuple(load_with_checksum(paths.model)["input_shape"]))
    if run.scenario == "task":  # model.pt shows the last task's columns
        learner.show(range(len(learner.visible)))
    tested = {key: identity(config)[key] for key in ("dataset", "scenario")}
    found = accuracies(learner, stream, load_method(folder, learner, config.trusted).enter)
    if overrides and (note := note_of_columns(stream, run, of_own_code(overrides))):
        print(note)
    result = {
        "run_id": folder.resolve().name,
        "dataset": choice(config, "dataset"),
        "source": "+".join(source_names(config)),
        "scenario": config.scenario,
        "tasks": stream.names,
        "accuracy_per_task": found,
        "average_accuracy": sum(found) / len(found),
        "num_examples_per_task": [len(stream.task(i).test) for i in range(stream.num_tasks)],
        "config": tested,
    }
    path = folder / "evaluations" / f"{run_id(choice(config, 'dataset'), tested)}.json"
    path.parent.mkdir(exist_ok=True)
    with atomic_write(path) as file:
        file.write(json.dumps(result, indent=2) + "\n")
    return path, result


def main(arguments: Sequence[str]) -> None:
    folders = [argument.removeprefix("run=") for argument in arguments if argument.startswith("run=")]
    if len(folders) != 1 or not folders[0]:
        raise ConfigError(f"run must be the folder of one finished run, got {', '.join(folders) or 'nothing'}")
    path, result = evaluate(Path(folders[0]), [a for a in arguments if not a.startswith("run=")])
    sizes, found = result["num_examples_per_task"], [*result["accuracy_per_task"], result["average_accuracy"]]
    table = DataFrame({"task": [*result["tasks"], "mean"], "examples": [*map(str, sizes), ""]})
    table["test accuracy (%)"] = [f"{100 * accuracy:.1f}" for accuracy in found]
    print_table(table, f"{result['run_id']} on {path.stem}")
    print(f"written: {path}")


if __name__ == "__main__":
    run_script(main, __doc__)
