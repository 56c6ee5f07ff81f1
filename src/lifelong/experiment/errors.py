"""Errors a user can mend, in one line on stderr; a defect of the program keeps its traceback."""

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from lifelong.config.groups import choices
from lifelong.config.options import must_be, unknown_key
from lifelong.config.overrides import checked
from lifelong.config.schema import ConfigError, compose, one_line
from lifelong.runs.interrupted import Interrupted

MENDABLE = {"MisconfigurationException", "OutOfMemoryError", "MemoryError"}
"""By name, from libraries that need not be loaded to explain an error."""
PLUGINS = {"submitit_slurm": "slurm", "submitit_local": "slurm", "joblib": "sweep", "optuna": "sweep"}
"""Hydra's launchers and sweepers that are packages of their own, and the extra that brings them."""
COMMAND = "LIFELONG_COMMAND"
"""Environment variable: the process of the command that started this one, or is this one."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Around a command: says what the user can mend in one line and ends with exit code 1, or 128 + the signal number.

    HYDRA_FULL_ERROR=1 shows tracebacks instead.
    """
    if wants_tracebacks():
        yield
        return
    try:
        with _hydra_raises():
            yield
    except (Interrupted, KeyboardInterrupt) as error:
        stop = error if isinstance(error, Interrupted) else Interrupted(signal.SIGINT)
        print(stop, file=sys.stderr)
        sys.exit(128 + stop.signum)
    except Exception as error:
        message = explain(error)
        if message is None:
            raise
        sys.exit(f"error: {message}")


def wants_tracebacks() -> bool:
    """Whether the user asked for them; within a command HYDRA_FULL_ERROR is its own."""
    return os.environ.get("HYDRA_FULL_ERROR") == "1" and COMMAND not in os.environ


@contextmanager
def _hydra_raises() -> Iterator[None]:
    """Hydra hands its exceptions on instead of printing several lines."""
    before = dict(os.environ)
    os.environ.update({"HYDRA_FULL_ERROR": "1", COMMAND: str(os.getpid())})
    try:
        yield
    finally:
        for key in ("HYDRA_FULL_ERROR", COMMAND):
            os.environ.pop(key)
            os.environ.update({key: before[key]} if key in before else {})


def explain(error: BaseException) -> str | None:
    """One line for an error a user can mend; None for a defect of the program, which deserves its traceback."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return _explain_missing(error)
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _explain_composition(error)
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    library = type(error).__module__.split(".")[0]
    mendable = isinstance(error, ConfigError | OSError) or type(error).__name__ in MENDABLE
    if mendable or library in ("lifelong", "submitit") or type(error).__module__.startswith("wandb.errors"):
        return one_line(error) or type(error).__name__
    return None


def _explain_missing(error: MissingConfigException) -> str:
    group, _, name = str(error.missing_cfg_file).removesuffix(".yaml").rpartition("/")
    if name in PLUGINS:
        return f"{name} of Hydra is not installed: pip install 'lifelong[{PLUGINS[name]}]'"
    return must_be(group, f"one of {', '.join(error.options or choices(group.replace('/', '.')))}", name)


def _explain_composition(error: BaseException) -> str:
    """Its cause if that is ours (a resolver's) or an unknown key; else Hydra's words, with the key or override."""
    if isinstance(error, OverrideParseException):
        return f"override {error.override!r} must be written key=value: {one_line(error)}"
    own: BaseException | None = error
    while own and not isinstance(own, ConfigError):
        own = own.__cause__ or own.__context__
    cause = error.__cause__
    if own or not isinstance(cause, OmegaConfBaseException):
        key, text = getattr(error, "full_key", None), one_line(own or error).partition("; full_key")[0]
        return f"{key}: {text}" if key and not own and key not in text else text
    if isinstance(cause, ConfigAttributeError | ConfigKeyError) and cause.full_key:
        above = str(cause.full_key).rpartition(".")[0]
        return unknown_key(cause.full_key, map(str, cause.parent_node or ()), above or "the configuration")
    return f"{one_line(error).removeprefix('Error merging override ')}: {one_line(cause).partition('; full_key')[0]}"


def composed(overrides: Sequence[str]) -> DictConfig:
    """The configuration of `python train.py *overrides`, with ConfigError in place of what Hydra raises."""
    try:
        return compose(checked(overrides))
    except Exception as error:
        message = explain(error)
        if message is None or isinstance(error, ConfigError):
            raise
        raise ConfigError(message) from error
