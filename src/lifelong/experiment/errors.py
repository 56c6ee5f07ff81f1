"""Errors a user can mend, in one line on stderr; a defect of the program keeps its traceback."""

import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, get_type_hints

from lifelong.config.arguments import described, unknown_key
from lifelong.config.credentials import exposed, refusal
from lifelong.config.groups import CONFIGS, choices
from lifelong.config.schema import Config, ConfigError, compose, one_line
from lifelong.launch.cluster import end_job
from lifelong.launch.jobs import ended_with, job_results, multirun_job
from lifelong.runs.interrupted import Interrupted

MENDABLE = {"MisconfigurationException", "OutOfMemoryError", "MemoryError"}
"""By name, from libraries that need not be loaded to explain an error."""
HYDRAS = ("Config group override must be", "Only one of --run, --multirun")
"""How errors of Hydra begin that are of no type of its own."""
PLUGINS = {"submitit_slurm": "slurm", "submitit_local": "slurm", "joblib": "sweep", "optuna": "sweep"}
"""Hydra's launchers and sweepers that are packages of their own, and the extra that brings them."""
OURS = "LIFELONG_COMMAND"
_failed_jobs: list[str] = []


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Around a command: says what the user can mend in one line and ends with exit code 1, or 128 + the signal number.

    HYDRA_FULL_ERROR=1 shows tracebacks instead. A secret of the environment is refused even before Hydra, which writes
    a multirun's arguments down.
    """
    for argument in sys.argv[1:]:
        if variable := exposed(argument):
            sys.exit(f"error: {refusal(argument.partition('=')[0].lstrip('+~'), variable)}")
    if _wants_tracebacks():
        yield
        return
    _failed_jobs.clear()
    try:
        with _hydra_raises(), job_results(_say_failed) as results:
            yield
    except (Interrupted, KeyboardInterrupt) as error:
        stop = error if isinstance(error, Interrupted) else Interrupted(signal.SIGINT)
        print(stop, file=sys.stderr)
        sys.exit(128 + stop.signum)
    except Exception as error:
        message = explain(error, sys.argv[1:])
        if message is None:
            raise
        sys.exit(f"error: {message}")
    if results or _failed_jobs:
        trained = sum(result.trained for result in results)
        found = len(results) - trained
        print(
            f"{len(results) + len(_failed_jobs)} jobs: {trained} trained, {found} finished before, "
            f"{len(_failed_jobs)} failed"
        )
    if _failed_jobs:
        sys.exit(1)


@contextmanager
def one_line_job() -> Iterator[None]:
    """Around a job of the command: one of a multirun that fails says so in one line and lets the others run.

    A job of a cluster that was interrupted ends as its scheduler needs it (`end_job`).
    """
    command = os.environ.get(OURS)
    in_worker = command == str(os.getppid())
    try:
        with ended_with(os.getppid()) if in_worker else nullcontext():
            yield
    except Interrupted as stop:
        end_job(stop)
        raise
    except Exception as error:
        message = None if _wants_tracebacks() else explain(error, sys.argv[1:])
        if message is None:
            raise
        job = multirun_job()
        if job is None:
            sys.exit(f"error: {message}")
        if command != str(os.getpid()):  # another process started the job: it says so when it hears of it
            raise
        _say_failed([job], error)


def _say_failed(overrides: Sequence[str], error: Exception) -> None:
    """One line for a job of a multirun; it has no result."""
    message = explain(error, sys.argv[1:])
    if message is None:
        raise error
    _failed_jobs.append(message)
    print(f"error: {' '.join(overrides)}: {message}", file=sys.stderr)


def _wants_tracebacks() -> bool:
    return os.environ.get("HYDRA_FULL_ERROR") == "1" and OURS not in os.environ


@contextmanager
def _hydra_raises() -> Iterator[None]:
    """Hydra hands its exceptions on instead of printing several lines."""
    before = {key: os.environ.get(key) for key in ("HYDRA_FULL_ERROR", OURS)}
    os.environ.update({"HYDRA_FULL_ERROR": "1", OURS: str(os.getpid())})
    try:
        yield
    finally:
        for key, value in before.items():
            os.environ.pop(key)
            if value is not None:
                os.environ[key] = value


def explain(error: BaseException, overrides: Sequence[str]) -> str | None:
    """One line for an error a user can mend; None for a defect of the program, which deserves its traceback."""
    library = type(error).__module__.split(".")[0]
    if library in ("hydra", "omegaconf") or str(error).startswith(
        ("Config group override must be", "Only one of --run")
    ):
        return _explain_composition(error, overrides)
    if str(error).startswith("No trials are completed"):
        return "no trial of the sweep succeeded: the lines above say why"
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if library == "submitit":
        return _explain_lost_job(str(error))
    if str(error).startswith('Could not detect "srun"'):
        return "hydra/launcher=slurm submits jobs to SLURM, whose srun is not on the PATH of this machine"
    mendable = isinstance(error, ConfigError | OSError) or type(error).__name__ in MENDABLE
    if mendable or library == "lifelong" or type(error).__module__.startswith("wandb.errors"):
        return one_line(error) or type(error).__name__
    return None


def composed(overrides: Sequence[str]) -> Any:
    """`compose`, with ConfigError in place of what Hydra raises."""
    try:
        return compose(overrides)
    except Exception as error:
        message = explain(error, overrides)
        if message is None:
            raise
        raise ConfigError(message) from error


def _explain_composition(error: BaseException, overrides: Sequence[str]) -> str:
    text = one_line(error)
    if found := re.search(r"Could not override '([^']+)'.*Did you mean to override (?:one of )?([^?;]+)", text):
        return f"unknown key {found.group(1)!r}: here it is {found.group(2)}"
    if found := re.search(r"Could not override '([^']+)'", text):
        return _unknown_key(found.group(1), overrides)
    if (found := re.search(r"Could not (?:find|load) 'hydra/\w+/(\w+)'", text)) and found.group(1) in PLUGINS:
        return f"{found.group(1)} of Hydra is not installed: pip install -e '.[{PLUGINS[found.group(1)]}]'"
    if found := re.search(r"Could not find '([^']+)'", text):
        group, _, wrong = found.group(1).rpartition("/")
        return f"{group} must be one of {', '.join(choices(group))}, got {wrong!r}"
    if found := re.search(r"Error merging override ([\w.]+)=(.*)", text):
        key, value = found.groups()
        return f"{key} must be {_root_type(key)}, got {value!r}"
    if found := re.search(r"Ambiguous value for argument '(([^=]+)=([^']*))'", text):
        whole, key, values = found.groups()
        return f"{whole} is ambiguous: a list is {key}=[{values}], a sweep wants --multirun"
    if text.startswith("Config group override must be"):
        group = next((_key(o) for o in overrides if o.partition("=")[2] == "null" and _key(o) in _groups()), "a group")
        return f"{group} must be one of {', '.join(choices(group))}, got null"
    if override := getattr(error, "override", None):
        return f"override {override!r} must be written key=value: {text.rpartition('; ')[2]}"
    override = next((o for o in overrides if re.search(rf"\b{re.escape(_key(o))}\b", text)), "")
    return f"{override}: {text}" if override and override not in text else text


def _explain_lost_job(text: str) -> str | None:
    """What a scheduler did to a job or to its submission; None for a traceback from within the job."""
    if found := re.search(r"Job (\S+) .*?with path (.*)/[^/\n]*\s+has not produced any output \(state: (.*)\)", text):
        job, logs, state = found.groups()
        return f"job {job} ended without a result ({state}), its log is in {logs}; the same command goes on"
    return None if "Traceback" in text else " ".join(text.split())


def _unknown_key(wrong: str, overrides: Sequence[str]) -> str:
    chosen = [o for o in overrides if _key(o) in _groups() and o.partition("=")[2] in choices(_key(o))]
    parent = wrong.rpartition(".")[0]
    node = compose(chosen, with_hydra=parent.startswith("hydra"))
    for part in filter(None, parent.split(".")):
        node = node[part]
    allowed = [str(key) for key in node if str(key) != "_target_"]
    return unknown_key(wrong, allowed, parent or "the configuration")


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~")


def _groups() -> list[str]:
    """method, dataset, dataset/source …: the folders of configs/."""
    return [str(path.relative_to(CONFIGS)) for path in CONFIGS.rglob("*") if path.is_dir()]


def _root_type(key: str) -> str:
    return described(get_type_hints(Config).get(key)) or "of another type"
